"""The engine's entrypoint: translate the arguments, check the machine, then exec vLLM. Standard library only."""
