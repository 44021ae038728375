"""`--help` of the engine's programs, which pass every other argument on to vLLM."""

from __future__ import annotations

import sys


def help_if_asked(module: str, text: str) -> None:
    """Print the usage and exit with 0 if the first argument is -h or --help."""
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(f"usage: python3 -m {module} [MODEL] [vllm serve arguments]\n\n{text}\n")
        print(
            "MODEL is a Hub id or a folder; without it, MODEL_NAME names the model. docs/engine-image.md lists the variables."
        )
        sys.exit(0)
