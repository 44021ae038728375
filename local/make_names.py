"""Translates options in error messages to make's variables: the user of `make key CONCURRENCY=x` did not type `--concurrency`.

Usage: python -m local.make_names MODULE [argument ...] runs a module with translated errors. `make local` calls `by_make`
instead, because it consists of two programs.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO, cast

STARTED_BY_MAKE = "STARTED_BY_MAKE"
"""The environment variable that the Makefile sets."""
# The Makefile's options and variables. `--local` is LOCAL=1, and so on.
VARIABLES = {
    f"--{variable.lower().replace('_', '-')}": variable
    for variable in (
        "STACK", "MODEL", "PORT", "WEIGHTS", "SCALE_DOWN_MINUTES", "SET", "NAME", "ENDPOINT", "LOCAL", "ADD", "ROTATE",
        "REVOKE", "LIST", "HEALTH", "CONCURRENCY", "REQUESTS_PER_MINUTE", "TOKENS_PER_MINUTE", "EXPIRES", "PRIORITY",
        "GRACE_HOURS", "FIX", "MAX_TOKENS",
    )
} | {"--pairs": "SET", "--endpoint-name": "ENDPOINT"}  # fmt: skip
FLAGS = ("LIST", "HEALTH", "LOCAL", "FIX")
"""Variables that are set to 1."""
_OPTION = re.compile(r"(?:argument )?(?<![\w-])(--[a-z][a-z-]*)(?:[ =]([A-Z]{2,}\b|\w+=\S+|https?://\S+))?")
_OTHER_PROGRAM = re.compile(r"\b(?:pulumi|kubectl|aws|python) [^;:.()]*$")
_NO_STACK = re.compile(r"(there is no Pulumi\.\S+\.yaml\.) Set one of")


def translate(text: str) -> str:
    """An error message with make's variables instead of options. Commands of other programs do not change."""

    def replace(match: re.Match[str]) -> str:
        variable = VARIABLES.get(match[1])
        if variable is None or _OTHER_PROGRAM.search(text[: match.start()]):
            return match[0]
        if match[2] is None:
            return f"{variable}=1" if variable in FLAGS else variable
        return f"{variable}='{match[2]}'" if "=" in match[2] else f"{variable}={match[2]}"

    return _NO_STACK.sub(r"\1 Set STACK to one of", _OPTION.sub(replace, text))


def by_make(text: str) -> str:
    """`translate`, if make started this process."""
    return translate(text) if os.environ.get(STARTED_BY_MAKE) else text


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line without usage if make started this process."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        if os.environ.get(STARTED_BY_MAKE):
            _exit_with(self, message)
        super().error(message)


def _exit_with(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    parser.exit(2, f"error: {translate(message)}\n")


class _Errors:
    """A stream that translates lines that start with "error:" and passes others through."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(translate(text) if text.startswith("error:") else text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def main(arguments: Sequence[str]) -> None:
    """Run a module as `python -m` does."""
    module, *rest = arguments
    os.environ[STARTED_BY_MAKE] = "1"
    argparse.ArgumentParser.error = _exit_with  # type: ignore[assignment, method-assign]
    sys.argv = [module, *rest]
    sys.stderr = cast(TextIO, _Errors(sys.stderr))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
