"""The queue's bookkeeping, without a network: no slot is lost or assigned twice."""

from __future__ import annotations

import asyncio
import random

import pytest

from image.gateway.admission import Admission
from image.gateway.backends import FixedDiscovery
from image.gateway.errors import ApiError
from image.gateway.fleet import Replica
from image.gateway.settings import Settings

SETTINGS = Settings(
    model="m", discovery=FixedDiscovery(()), concurrency_per_replica=2, max_queued_requests=5, max_queued_per_slot=0
)


def replica(port: int) -> Replica:
    return Replica(("127.0.0.1", port), 1)


async def test_a_ticket_that_may_not_use_a_replica_does_not_hold_up_those_behind_it() -> None:
    first, second = replica(1), replica(2)
    rotation = [first, second]
    admission = Admission(SETTINGS, lambda: rotation, lambda: None)
    held = [admission.try_take() for _ in range(4)]
    picky, other = admission.enqueue(1, excluded=[first], again=True), admission.enqueue(1)
    admission.release(first)
    assert not picky.slot.done()
    assert other.slot.result() is first
    admission.release(second)
    assert picky.slot.result() is second
    assert held.count(first) == held.count(second) == 2
    assert (admission.running, admission.waiting, admission.waiting_bytes) == (4, 0, 0)


async def test_a_new_request_does_not_overtake_those_that_wait() -> None:
    only = replica(1)
    admission = Admission(SETTINGS, lambda: [only], lambda: None)
    assert admission.try_take() is admission.try_take() is only
    ticket = admission.enqueue(1)
    only.outstanding -= 1
    admission.running -= 1  # a slot is free, but not yet handed out
    assert admission.try_take() is None
    admission.dispatch()
    assert ticket.slot.done()


async def test_a_slot_given_to_one_who_leaves_is_given_on() -> None:
    only = replica(1)
    rotation: list[Replica] = []
    cold = 0

    def note_cold() -> None:
        nonlocal cold
        cold += 1

    admission = Admission(SETTINGS, lambda: rotation, note_cold)
    tickets = [admission.enqueue(10) for _ in range(4)]
    assert (admission.held, admission.queued, admission.waiting_bytes, cold) == (4, 0, 40, 8)
    tickets[0].slot.cancel()  # its task was cancelled while it waited
    rotation.append(only)
    admission.dispatch()
    assert [ticket.slot.done() for ticket in tickets] == [True, True, True, False]
    admission.leave(tickets[0])
    admission.leave(tickets[1])  # had a slot already
    assert tickets[3].slot.result() is only
    assert (admission.running, only.outstanding, admission.waiting_bytes) == (2, 2, 0)


async def test_bounds() -> None:
    admission = Admission(SETTINGS, list, lambda: None)
    tickets = [admission.enqueue(0) for _ in range(5)]
    with pytest.raises(ApiError) as raised:
        admission.enqueue(0)
    assert raised.value.status == 429
    admission.leave(tickets[0])
    with pytest.raises(ApiError, match="Too many"):
        admission.reserve(SETTINGS.max_queued_bytes + 1)
    admission.enqueue(SETTINGS.max_queued_bytes)


async def test_peaks_between_two_looks_are_seen() -> None:
    only = replica(1)
    admission = Admission(SETTINGS, lambda: [only], lambda: None)
    taken = [admission.try_take(), admission.try_take()]
    ticket = admission.enqueue(0)
    admission.leave(ticket)
    for _ in taken:
        admission.release(only)
    assert admission.demand == 0
    assert admission.take_peak() == 3
    assert admission.take_peak() == 0


async def test_whatever_happens_the_books_balance() -> None:
    """Random arrivals, departures, cancellations and losses of replicas, then everybody leaves."""
    dice = random.Random(7)  # noqa: S311
    all_replicas = [replica(port) for port in range(3)]
    rotation: list[Replica] = []
    admission = Admission(SETTINGS, lambda: rotation, lambda: None)
    running: list[Replica] = []
    tickets = []
    for _ in range(5000):
        match dice.randrange(6):
            case 0 | 1:
                excluded = dice.sample(all_replicas, dice.randrange(2))
                taken = admission.try_take(excluded=excluded)
                if taken is not None:
                    assert taken not in excluded
                    running.append(taken)
                elif admission.waiting < SETTINGS.max_queued_requests:
                    tickets.append(admission.enqueue(5, excluded=excluded, again=bool(excluded)))
            case 2 | 3 if running:
                admission.release(running.pop(dice.randrange(len(running))))
            case 4 if tickets:
                ticket = tickets.pop(dice.randrange(len(tickets)))
                if dice.random() < 0.5:
                    ticket.slot.cancel()
                admission.leave(ticket)
            case 5:
                rotation[:] = dice.sample(all_replicas, dice.randrange(4))
                admission.dispatch()
        assert all(0 <= r.outstanding <= 2 for r in all_replicas)
        running += [ticket.slot.result() for ticket in tickets if ticket.slot.done()]
        tickets = [ticket for ticket in tickets if not ticket.slot.done()]
        assert admission.running == len(running) == sum(r.outstanding for r in all_replicas)
        assert admission.waiting_bytes == 5 * admission.waiting == 5 * len(tickets)
    for ticket in tickets:
        admission.leave(ticket)
    for taken in running:
        admission.release(taken)
    assert (admission.demand, admission.waiting_bytes) == (0, 0)
    await asyncio.sleep(0)


async def test_the_queue_of_a_warm_engine_is_bounded_by_its_slots() -> None:
    settings = Settings(
        model="m",
        discovery=FixedDiscovery(()),
        concurrency_per_replica=4,
        max_queued_requests=100,
        max_queued_per_slot=0.5,
    )
    rotation: list[Replica] = []
    admission = Admission(settings, lambda: rotation, lambda: None)
    held = [admission.enqueue(0) for _ in range(10)]  # while nothing is ready, only the other bound holds
    rotation.append(replica(1))
    admission.dispatch()
    assert admission.queued == 6
    with pytest.raises(ApiError) as raised:
        admission.enqueue(0)
    assert raised.value.reason == "queue_full"
    for ticket in held[:9]:
        admission.leave(ticket)
    admission.enqueue(0)
    rotation.append(replica(2))
    assert admission.queued < 4
    admission.enqueue(0)


async def test_a_key_that_fills_the_queue_of_a_warm_engine_keeps_no_other_out() -> None:
    settings = Settings(model="m", discovery=FixedDiscovery(()), concurrency_per_replica=8)  # two may wait
    only = replica(1)
    admission = Admission(settings, lambda: [only], lambda: None, lambda: 2)
    for _ in range(8):
        assert admission.try_take("greedy") is only
    for _ in range(2):
        admission.enqueue(0, "greedy")
    with pytest.raises(ApiError):
        admission.enqueue(0, "greedy")
    modest = admission.enqueue(0, "modest")
    with pytest.raises(ApiError):
        admission.enqueue(0, "modest")
    admission.release(only, "greedy")
    assert modest.slot.done(), "and it is served first, having the fewest running"
