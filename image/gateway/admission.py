"""Who may go to a replica now, who waits, and who is turned away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection

from image.gateway import errors
from image.gateway.fleet import Replica
from image.gateway.settings import Settings

_RETRY_COLD_SECONDS = 30
_RETRY_BUSY_SECONDS = 2


class Ticket:
    """A place in the queue. `slot` becomes the replica that has a slot for its holder."""

    __slots__ = ("excluded", "size_bytes", "slot")

    def __init__(self, slot: asyncio.Future[Replica], size_bytes: int, excluded: Collection[Replica]) -> None:
        self.slot = slot
        self.size_bytes = size_bytes
        self.excluded = excluded


class Admission:
    """At most so many requests in flight per ready replica; the others in one queue, first come, first served.

    A request *runs* when it has a slot; it is *held* when it waits and no replica is ready, *queued* when it waits for
    a slot on one that is.
    """

    def __init__(self, settings: Settings, rotation: Callable[[], list[Replica]], cold: Callable[[], None]) -> None:
        """`cold` is called when a request waits and no replica is ready."""
        self._limit = settings.concurrency_per_replica
        self._max_waiting = settings.max_queued_requests
        self._max_bytes = settings.max_queued_bytes
        self._rotation = rotation
        self._cold = cold
        self._queue: deque[Ticket] = deque()
        self._bytes = 0
        self._peak = 0
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many wait, held or queued."""
        return len(self._queue)

    @property
    def held(self) -> int:
        """How many wait while no replica is ready."""
        return 0 if self._rotation() else len(self._queue)

    @property
    def queued(self) -> int:
        """How many wait for a slot on a ready replica."""
        return len(self._queue) if self._rotation() else 0

    @property
    def bytes(self) -> int:
        """Bytes of body in memory, of requests that wait or are still being received."""
        return self._bytes

    @property
    def demand(self) -> int:
        """Running and waiting requests together."""
        return self.running + len(self._queue)

    def take_peak(self) -> int:
        """The highest demand since the last call."""
        peak, self._peak = self._peak, self.demand
        return peak

    def reserve(self, size_bytes: int) -> None:
        """Account for bytes of body that are kept; raises the 429 when they are too many. `unreserve` ends it."""
        if self._bytes + size_bytes > self._max_bytes:
            raise self._full("queue_bytes")
        self._bytes += size_bytes

    def unreserve(self, size_bytes: int) -> None:
        """The bytes are kept no longer."""
        self._bytes -= size_bytes

    def try_take(self, excluded: Collection[Replica] = ()) -> Replica | None:
        """A slot at once, if there is one and nobody waits for it; `release` it when done."""
        if self._queue:
            return None
        return self._pick(excluded)

    def enqueue(self, size_bytes: int, excluded: Collection[Replica] = (), *, again: bool = False) -> Ticket:
        """A place in the queue; raises the 429 when it is full. `again`: it had a slot once, and keeps its turn."""
        if len(self._queue) >= self._max_waiting and not again:
            raise self._full("queue_full")
        if not again:
            self.reserve(size_bytes)
        else:
            self._bytes += size_bytes
        ticket = Ticket(asyncio.get_running_loop().create_future(), size_bytes, excluded)
        if again:
            self._queue.appendleft(ticket)
        else:
            self._queue.append(ticket)
        self._note_peak()
        if not self._rotation():
            self._cold()
        self.dispatch()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give up the place, or the slot it has turned into."""
        if ticket in self._queue:
            self._queue.remove(ticket)
            self._bytes -= ticket.size_bytes
        elif ticket.slot.done() and not ticket.slot.cancelled():
            self.release(ticket.slot.result())

    def release(self, replica: Replica) -> None:
        """A slot is free again."""
        replica.outstanding -= 1
        self.running -= 1
        if self._queue:
            self.dispatch()

    def dispatch(self) -> None:
        """Hand out the slots that are free, in turn. Called too when the rotation has changed."""
        if not self._queue:
            return
        if not self._rotation():
            self._cold()
            return
        skipped: list[Ticket] = []
        while self._queue:
            ticket = self._queue.popleft()
            if ticket.slot.cancelled():  # its holder is about to leave
                self._bytes -= ticket.size_bytes
                continue
            replica = self._pick(ticket.excluded)
            if replica is None:
                skipped.append(ticket)
                if not ticket.excluded:
                    break  # no slot for anybody
                continue
            self._bytes -= ticket.size_bytes
            ticket.slot.set_result(replica)
        self._queue.extendleft(reversed(skipped))

    def _pick(self, excluded: Collection[Replica]) -> Replica | None:
        """The ready replica with the fewest requests in flight, its slot taken."""
        best: Replica | None = None
        for replica in self._rotation():
            if replica.outstanding < self._limit and (best is None or replica.outstanding < best.outstanding):
                if excluded and replica in excluded:
                    continue
                best = replica
        if best is not None:
            best.outstanding += 1
            self.running += 1
            self._note_peak()
        return best

    def _note_peak(self) -> None:
        self._peak = max(self._peak, self.running + len(self._queue))

    def _full(self, reason: str) -> errors.ApiError:
        return errors.queue_full(reason, _RETRY_BUSY_SECONDS if self._rotation() else _RETRY_COLD_SECONDS)
