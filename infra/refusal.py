"""Ends the Pulumi program with an error that the user can correct."""

from __future__ import annotations

import sys
from typing import NoReturn

import pulumi

SHOWN_TO_THE_USER = 32
"""The exit status that tells Pulumi's language host that the program has already reported its error."""


_own_program = False


def run_own_program() -> None:
    """Declare that this process runs the stack-file program, which `refuse` may exit, and not another one's component."""
    global _own_program  # noqa: PLW0603 - an `apply` that refuses has no other way to know
    _own_program = True


def refuse(message: str) -> NoReturn:
    """End the program with exactly these lines; also works inside an ``apply``.

    After any other error, including ``pulumi.RunError``, the host would add its own message that the program failed. Another
    program gets that error, because exiting is not a component's decision.
    """
    if not _own_program:
        raise pulumi.RunError(message)
    pulumi.log.error(message)
    sys.exit(SHOWN_TO_THE_USER)
