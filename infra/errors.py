"""Errors that the user can correct."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(ValueError):
    """An error that the user can correct. `problems` are lines of the form `key: found X, why it is wrong. Set Y`."""

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
    """The settings are valid, but no engine can serve them."""


class DeployError(UserError):
    """The stack cannot be deployed to this account or cluster."""
