"""``python3 -m image.engine [MODEL] [vllm serve arguments]``: check, download, restore the compile cache, then exec vLLM.

Until vLLM runs, SIGTERM ends the process at once with exit code 143, also as PID 1; nothing half-written is trusted later.
"""

from image.engine.init import become_child

if __name__ == "__main__":
    become_child()  # before the imports below: as PID 1, this process does not receive SIGTERM yet
    from image.engine.start import main
    from image.engine.usage import help_if_asked

    help_if_asked(
        "image.engine", "Check the GPU, download the weights, restore the compile cache, then run vLLM's server."
    )
    main()
