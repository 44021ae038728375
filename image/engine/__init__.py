"""The engine's container: settle the arguments, check the machine, then become vLLM. Standard library only."""
