"""The resources that a sweep finds."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Whether a resource must still be deleted."""

    LEFT = "left"
    KEPT = "kept"
    """Retained by `protect`."""
    GOING = "going"
    """Already deleted: AWS removes it without further billing."""
    UNCONFIRMED = "unconfirmed"
    """Listed by the tagging API, which also lists deleted resources, and not confirmed with its own service."""


@dataclass(frozen=True)
class Item:
    """One resource of a stack.

    Attributes:
        kind: as in `KINDS`.
        identifier: the id that AWS's API requires to delete it.
        name: the name for people.
        region: its region; `global` if it has none.
        usd_per_hour: list price; None if unknown.
        found_by: `tag`, `name`, or the resource that it is part of.
        state: left, retained, being deleted or unconfirmed.
        note: a remark for people.
    """

    kind: str
    identifier: str
    name: str
    region: str
    usd_per_hour: float | None = 0.0
    found_by: str = "tag"
    state: State = State.LEFT
    note: str = ""
