"""What a sweep finds, and how each kind is found and removed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoke_tests.teardown.look import Look


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


@dataclass(frozen=True)
class Kind:
    """A kind of resource.

    Attributes:
        title: in the singular, as it is told.
        find: what there is of it in one region, of the stack alone.
        remove: deletes one; raises what boto3 raises.
        everywhere: whether it belongs to no region, so that it is looked for once.
        arns: `service:type` of the ARNs that `find` answers for, so that the search by tag does not tell them twice.
    """

    title: str
    find: "Callable[[Look], Iterable[Item]]"
    remove: "Callable[[Look, Item], None]"
    everywhere: bool = False
    arns: tuple[str, ...] = ()
