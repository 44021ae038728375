"""What a sweep finds."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What is to be thought of something that was found."""

    LEFT = "left"
    KEPT = "kept"
    """Kept on purpose: `protect` marked it."""
    GOING = "going"
    """Deleted already; AWS takes it away by itself and bills nothing for it."""


@dataclass(frozen=True)
class Item:
    """One thing of a stack.

    Attributes:
        kind: as in `KINDS`.
        identifier: what AWS's API wants to know to delete it.
        name: what a person knows it by.
        region: where it is; `global` for what has no region.
        usd_per_hour: at list price; None where it is not known.
        found_by: `tag`, `name`, or what it is part of.
        state: left, kept or going.
        note: one remark for a person.
    """

    kind: str
    identifier: str
    name: str
    region: str
    usd_per_hour: float | None = 0.0
    found_by: str = "tag"
    state: State = State.LEFT
    note: str = ""
