"""How the Pulumi program ends with an error that the user can correct."""

from __future__ import annotations

import sys
from typing import NoReturn

import pulumi

SHOWN_TO_THE_USER = 32
"""The exit status after which Pulumi's language host adds no error of its own, because the program has shown one."""


def refuse(message: str) -> NoReturn:
    """End the program with these lines and nothing else; also from inside an ``apply``.

    After any other error, ``pulumi.RunError`` included, the host would add that the program failed.
    """
    pulumi.log.error(message)
    sys.exit(SHOWN_TO_THE_USER)
