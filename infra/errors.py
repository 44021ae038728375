"""Errors that the user can correct, and how the program ends with one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

SHOWN_TO_THE_USER = 32
"""The exit status after which Pulumi's language host adds no error of its own, because the program has shown one."""


class UserError(ValueError):
    """What a user can correct. `problems` are lines of the form `key: found X, why it is wrong. Set Y`."""

    def __init__(self, problems: str | Sequence[str], heading: str = "") -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        lines = [heading, *(f"  - {problem}" for problem in self.problems)] if heading else self.problems
        super().__init__("\n".join(lines))


class SettingsError(UserError):
    """The settings of a stack are invalid."""

    def __init__(self, stack: str, problems: Sequence[str]) -> None:
        heading = f"stack {stack}: {len(problems)} problem{'s' if len(problems) > 1 else ''} in its settings"
        super().__init__(problems, heading)


class PlanError(UserError):
    """The settings are valid, and no engine can serve them."""


class DeployError(UserError):
    """The account or cluster cannot hold this stack."""


def refuse(message: str) -> NoReturn:
    """End the Pulumi program with these lines and nothing else; also from inside an ``apply``.

    After any other error, ``pulumi.RunError`` included, the host would add that the program failed.
    """
    import pulumi  # the plan and `make local` read this module without Pulumi

    pulumi.log.error(message)
    sys.exit(SHOWN_TO_THE_USER)
