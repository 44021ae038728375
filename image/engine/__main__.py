"""``python3 -m image.engine [MODEL] [vllm serve arguments]``: check, then become vLLM."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from image.engine.arguments import EngineError, settle
from image.engine.checks import check_machine

SECRET_FLAGS = ("--api-key", "--hf-token")


def shown(arguments: Sequence[str]) -> list[str]:
    """The arguments as they may stand in a log."""
    hidden, after = [], ""
    for argument in arguments:
        flag = argument.split("=")[0]
        if after in SECRET_FLAGS:
            argument = "***"
        elif flag in SECRET_FLAGS and "=" in argument:
            argument = f"{flag}=***"
        hidden.append(argument)
        after = argument
    return hidden


def main() -> None:
    """Replace this process by vLLM's server; exit code 2 with one line where that cannot work."""
    try:
        launch = settle(sys.argv[1:], os.environ)
        for line in (*launch.notes, *check_machine(launch)):
            print(f"engine: {line}", flush=True)
    except EngineError as error:
        print(f"engine: error: {error}", file=sys.stderr)
        sys.exit(2)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", *launch.arguments]
    print(f"engine: vllm serve {' '.join(shown(launch.arguments))}", flush=True)
    os.execve(command[0], command, dict(launch.environment))  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
