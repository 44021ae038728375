"""Admission control: which requests run now, which wait, and which are rejected."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from time import monotonic

from image.gateway import errors
from image.gateway.fleet import Replica
from image.gateway.routing import choose
from image.gateway.settings import Settings

_RETRY_COLD_SECONDS = 30
_RETRY_BUSY_SECONDS = 2
# If keys share a gateway, one key may use at most 8 times as many places in the queue as it leaves free, so at least a
# ninth of the queue stays available to the others.
_MOST_OF_WHAT_IS_LEFT = 8


class Ticket:
    """A place in the queue. `slot` resolves to the replica that has a free slot."""

    __slots__ = ("affinity", "excluded", "key", "size_bytes", "slot")

    def __init__(
        self, slot: asyncio.Future[Replica], key: str, size_bytes: int, affinity: bytes, excluded: Collection[Replica]
    ) -> None:
        self.slot = slot
        self.key = key
        self.size_bytes = size_bytes
        self.affinity = affinity
        self.excluded = excluded


class Admission:
    """Limits the requests in flight per ready replica and queues the others.

    Within a key: first come, first served. Between keys: a free slot goes to the key with the highest priority, and
    among those to the one with the fewest running requests.

    A request is *running* while it has a slot, *held* while it waits and no replica is ready, and *queued* while it waits
    for a slot on a ready replica.
    """

    def __init__(
        self,
        settings: Settings,
        rotation: Callable[[], list[Replica]],
        cold: Callable[[], None],
        names: Callable[[], int] = lambda: 1,
        priority: Callable[[str], int] = lambda key: 0,
    ) -> None:
        """`cold` is called when a request waits and no replica is ready; `names` returns how many keys share the gateway;
        `priority` returns the priority of a key.
        """
        self._priority = priority
        self._limit = settings.concurrency_share
        self._max_waiting = settings.max_queued_requests
        self._max_per_slot = settings.max_queued_per_slot
        self._max_bytes = settings.max_queued_bytes
        self._rotation = rotation
        self._cold = cold
        self._names = names
        self._queues: dict[str, deque[Ticket]] = {}
        self._running_of: dict[str, int] = {}
        self._served: dict[str, int] = {}
        self._serving = 0
        self._idle_since = monotonic()
        self._bytes = 0
        self._peak = 0
        self._refused = 0
        self.running = 0
        self.waiting = 0

    @property
    def held(self) -> int:
        """Number of requests waiting while no replica is ready."""
        return 0 if self._rotation() else self.waiting

    @property
    def queued(self) -> int:
        """Number of requests waiting for a slot on a ready replica."""
        return self.waiting if self._rotation() else 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the bodies in memory of requests that are waiting or still being received."""
        return self._bytes

    @property
    def demand(self) -> int:
        """Running and waiting requests."""
        return self.running + self.waiting

    @property
    def idle_seconds(self) -> float:
        """Seconds since a request last ran or waited."""
        return 0.0 if self.demand else monotonic() - self._idle_since

    def take_peak(self) -> int:
        """The highest demand since the previous call."""
        peak, self._peak = self._peak, self.demand
        return peak

    def take_refused(self) -> int:
        """Requests rejected since the previous call because a queue was full."""
        refused, self._refused = self._refused, 0
        return refused

    def reserve(self, size_bytes: int) -> None:
        """Account for bytes of a body in memory; raises the 429 above the limit. Release them with `unreserve`."""
        if self._bytes + size_bytes > self._max_bytes:
            raise self._full("queue_bytes")
        self._bytes += size_bytes

    def unreserve(self, size_bytes: int) -> None:
        """Release bytes that were reserved."""
        self._bytes -= size_bytes

    def try_take(self, key: str = "", affinity: bytes = b"", excluded: Collection[Replica] = ()) -> Replica | None:
        """A free slot if no other request waits for it, else None; `release` it when done."""
        if self.waiting:
            return None
        replica = self._pick(key, affinity, excluded)
        if replica is not None:
            self._note_peak()
        return replica

    def enqueue(
        self,
        size_bytes: int,
        key: str = "",
        affinity: bytes = b"",
        excluded: Collection[Replica] = (),
        *,
        again: bool = False,
    ) -> Ticket:
        """A place in the queue; raises the 429 if the queue is full. `again`: a retry, which returns to the front."""
        queue = self._queues.get(key)
        if not again:
            left = self._max_waiting - self.waiting
            if left <= 0 or (queue and len(queue) >= _MOST_OF_WHAT_IS_LEFT * left and self._names() > 1):
                raise self._full("queue_full")
            # One request of each key may always wait; otherwise a key that fills the queue would lock out all others.
            slots = len(self._rotation()) * self._limit
            if queue and self._max_per_slot and slots and self.waiting >= max(self._max_per_slot * slots, 1):
                raise self._full("queue_full")
            self.reserve(size_bytes)
        else:
            self._bytes += size_bytes
        if queue is None:
            queue = self._queues[key] = deque()
        ticket = Ticket(asyncio.get_running_loop().create_future(), key, size_bytes, affinity, excluded)
        if again:
            queue.appendleft(ticket)
        else:
            queue.append(ticket)
        self.waiting += 1
        self._note_peak()
        if not self._rotation():
            self._cold()
        self.dispatch()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Leave the queue, or release the slot if one was assigned."""
        if ticket in self._queues.get(ticket.key, ()):
            self._remove(ticket)
        elif ticket.slot.done() and not ticket.slot.cancelled():
            self.release(ticket.slot.result(), ticket.key)

    def release(self, replica: Replica, key: str = "") -> None:
        """A slot is free again."""
        replica.outstanding -= 1
        self.running -= 1
        running = self._running_of[key] - 1
        if running:
            self._running_of[key] = running
        else:
            del self._running_of[key]
        if self.waiting:
            self.dispatch()
        elif not self.running:
            self._idle_since = monotonic()

    def dispatch(self) -> None:
        """Assign free slots in turn. Also called when the rotation has changed."""
        if not self.waiting:
            return
        if not self._rotation():
            self._cold()
            return
        passed_over: set[str] = set()
        while keys := [key for key in self._queues if key not in passed_over]:
            key = min(keys, key=self._share) if len(keys) > 1 else keys[0]
            for ticket in list(self._queues[key]) if self._queues[key][0].excluded else [self._queues[key][0]]:
                if ticket.slot.cancelled():  # the request is about to leave
                    self._remove(ticket)
                    break
                replica = self._pick(key, ticket.affinity, ticket.excluded)
                if replica is not None:
                    self._remove(ticket)
                    ticket.slot.set_result(replica)
                    break
                if not ticket.excluded:
                    return  # no free slot
            else:
                passed_over.add(key)

    def _share(self, key: str) -> tuple[int, int, int]:
        """Sort key: highest priority, then fewest running requests, then least recently served."""
        return -self._priority(key), self._running_of.get(key, 0), self._served.get(key, 0)

    def _remove(self, ticket: Ticket) -> None:
        queue = self._queues[ticket.key]
        queue.remove(ticket)
        if not queue:
            del self._queues[ticket.key]
        self.waiting -= 1
        self._bytes -= ticket.size_bytes
        if not self.demand:
            self._idle_since = monotonic()

    def _pick(self, key: str, affinity: bytes, excluded: Collection[Replica]) -> Replica | None:
        """Take a slot on a ready replica; None if no slot is free."""
        replica = choose(self._rotation(), self._limit, affinity, excluded)
        if replica is not None:
            replica.outstanding += 1
            self.running += 1
            self._running_of[key] = self._running_of.get(key, 0) + 1
            self._serving += 1
            self._served[key] = self._serving
        return replica

    def _note_peak(self) -> None:
        if self.running + self.waiting > self._peak:  # max() costs more
            self._peak = self.running + self.waiting

    def _full(self, reason: str) -> errors.ApiError:
        self._refused += 1
        return errors.queue_full(reason, _RETRY_BUSY_SECONDS if self._rotation() else _RETRY_COLD_SECONDS)
