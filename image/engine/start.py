"""Starts vLLM in place of this process, once everything is prepared.

Until vLLM runs, SIGTERM ends the process at once with exit code 143, also as PID 1; nothing half-written is trusted later.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from image.engine import watcher
from image.engine.arguments import EngineError, settle
from image.engine.prepare import Start, prepare, say

SECRET_FLAGS = ("--api-key", "--hf-token")


def shown(arguments: Sequence[str]) -> list[str]:
    """The arguments with secrets masked, for the log."""
    hidden, secret = [], False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        if argument.startswith("-"):
            secret = flag in SECRET_FLAGS
            hidden.append(f"{flag}=***" if secret and equals else argument)
        else:
            hidden.append("***" if secret else argument)  # --api-key takes several
    return hidden


def command(start: Start) -> list[str]:
    """The command line of vLLM's server."""
    say(f"vllm serve {' '.join(shown(start.arguments))}")
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", *start.arguments]


def main() -> None:
    """Replace this process with vLLM's server; on an error, print one line and return exit code 2."""
    began = time.monotonic()
    try:
        start = prepare(settle(sys.argv[1:], os.environ), say, began=began)
    except EngineError as error:
        print(f"engine: error: {error}", file=sys.stderr)
        sys.exit(2)
    program = command(start)
    if start.watch:
        watcher.start(start.watch, say)
    os.execve(program[0], program, dict(start.environment))  # noqa: S606 - no shell is wanted
