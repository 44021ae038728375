"""Deletes leftovers, repeatedly, because resources that are in use cannot be deleted yet."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from smoke_tests.teardown.items import Item, State
from smoke_tests.teardown.kinds import KINDS
from smoke_tests.teardown.region_scan import is_denied, is_gone, message_of
from smoke_tests.teardown.sweep import Sweep, Sweeper, Tell

PAUSE_SECONDS = 10.0


@dataclass(frozen=True)
class Refused:
    """A resource that could not be deleted, and AWS's error."""

    item: Item
    reason: str


def condemned(sweep: Sweep, *, include_retained: bool) -> list[Item]:
    """The resources to delete, in order: leftovers and, on request, retained resources."""
    return [item for item in sweep.items if item.state is State.LEFT or (include_retained and item.state is State.KEPT)]


def remove(
    sweeper: Sweeper,
    sweep: Sweep,
    tell: Tell,
    *,
    include_retained: bool,
    timeout_seconds: float,
    pause: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Sweep, list[Refused]]:
    """Delete and sweep again until nothing is left, the timeout expires, or only denied deletions remain.

    Args:
        sweeper: sweeps again.
        sweep: what to delete.
        tell: receives one line per deletion.
        include_retained: whether to delete retained resources, too.
        timeout_seconds: an instance takes minutes to terminate, and its network can only be deleted afterwards.
        pause: waits, in seconds.
        clock: monotonic seconds.

    Returns:
        The last sweep, and why each remaining resource could not be deleted.
    """
    deadline = clock() + timeout_seconds
    while True:
        refused = _rounds(sweeper, condemned(sweep, include_retained=include_retained), tell, deadline, pause, clock)
        sweep = sweeper.sweep()
        again = condemned(sweep, include_retained=include_retained)
        forbidden = {one.item.identifier for one in refused}
        if not again or clock() >= deadline or all(item.identifier in forbidden for item in again):
            known = {one.item.identifier: one for one in refused}
            return sweep, [known.get(i.identifier, Refused(i, "it is still there")) for i in again]
        pause(PAUSE_SECONDS)


def _rounds(
    sweeper: Sweeper,
    items: Sequence[Item],
    tell: Tell,
    deadline: float,
    pause: Callable[[float], object],
    clock: Callable[[], float],
) -> list[Refused]:
    """Try each one; retry those that are in use."""
    remove_by_kind = {kind.title: kind.remove for kind in KINDS}
    waiting, refused = list(items), []
    reasons: dict[str, str] = {}
    while waiting:
        still = []
        for item in waiting:
            try:
                remove_by_kind[item.kind](sweeper.look_of(item), item)
            except Exception as error:  # an error of one deletion does not stop the others
                if is_gone(error):
                    tell(f"gone: {item.kind} {item.name}")
                elif is_denied(error) or not isinstance(error, ClientError | BotoCoreError):
                    refused.append(Refused(item, message_of(error)))
                    tell(f"refused: {item.kind} {item.name}: {message_of(error)}")
                else:
                    reasons[item.identifier] = message_of(error)
                    still.append(item)
            else:
                tell(f"deleted: {item.kind} {item.name}")
        if still and clock() >= deadline:
            return refused + [Refused(item, reasons[item.identifier]) for item in still]
        if still and len(still) == len(waiting):
            tell(
                f"{len(still)} wait for others to go, such as {still[0].kind} {still[0].name}: {reasons[still[0].identifier]}"
            )
            pause(PAUSE_SECONDS)
        waiting = still
    return refused
