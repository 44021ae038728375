"""Errors that are the user's to mend, and how the program ends with one."""

from __future__ import annotations

import sys
from typing import NoReturn

import pulumi

SHOWN_TO_THE_USER = 32
"""The exit status after which Pulumi's language host adds no error of its own, because the program has shown one."""


class DeployError(ValueError):
    """The account or cluster cannot hold this stack; the message says what was found and what to set instead."""


def refuse(message: str) -> NoReturn:
    """End with these lines and nothing else; from inside an ``apply``, too.

    After any other error, ``pulumi.RunError`` included, the host would add that the program failed.
    """
    pulumi.log.error(message)
    sys.exit(SHOWN_TO_THE_USER)
