"""Exits the Pulumi program with an error that the user can correct."""

from __future__ import annotations

import sys
from typing import NoReturn

import pulumi

SHOWN_TO_THE_USER = 32
"""The exit status that tells Pulumi's language host that the program has already reported its error."""


def refuse(message: str) -> NoReturn:
    """Exit the program with exactly these lines; also works inside an ``apply``.

    After any other error, including ``pulumi.RunError``, the host would add its own message that the program failed.
    """
    pulumi.log.error(message)
    sys.exit(SHOWN_TO_THE_USER)
