"""Routing: affinity with bounded load, fair shares between keys, and the ejection of failing replicas."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import pytest

from fakes import fake_engine
from fakes.fake_engine import FakeEngine
from image.gateway.admission import Admission
from image.gateway.backends import FixedDiscovery
from image.gateway.errors import ApiError
from image.gateway.fleet import Replica
from image.gateway.routing import affinity_of, choose
from image.gateway.settings import Settings
from tests.image.gateway.conftest import Gateway, StartEngine, StartGateway, until


def replicas(count: int) -> list[Replica]:
    return [Replica((f"10.0.0.{number}", 8000), 1) for number in range(count)]


def conversation(text: str, *turns: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]
    return {"messages": [*messages, *({"role": "assistant", "content": turn} for turn in turns)]}


def test_a_conversation_keeps_its_beginning() -> None:
    assert affinity_of(conversation("Hi")) == affinity_of(conversation("Hi", "Hello", "And then?"))
    assert affinity_of(conversation("Hi")) != affinity_of(conversation("Ho"))
    images = [[{"type": "image_url", "image_url": {"url": f"data:{name}"}}] for name in "ab"]
    first, second = (affinity_of({"messages": [{"role": "user", "content": image}]}) for image in images)
    assert first != second
    assert affinity_of({"instructions": "Be kind.", "input": "Hi"}) != affinity_of({"input": "Hi"})
    assert affinity_of({"prompt": "Once"}) != b""
    for nothing in ({}, {"input": [1, 2]}, {"messages": [None, {"content": 7}]}, {"prompt": [[1, 2]]}):
        assert affinity_of(nothing) == b""


def test_conversations_spread_and_few_move_when_a_replica_comes() -> None:
    three, four = replicas(3), replicas(4)
    names = [b"conversation %d" % number for number in range(3000)]
    before = {name: choose(three, 9, name, ()) for name in names}
    counts = Counter(replica.name for replica in before.values() if replica)
    assert min(counts.values()) > 900
    moved = 0
    for name in names:
        old, new = before[name], choose(four, 9, name, ())
        assert old is not None
        assert new is not None
        assert new.name in (old.name, four[3].name), "only to the one that came"
        moved += new.name != old.name
    assert 600 < moved < 900


def test_the_load_is_bounded_even_for_one_conversation() -> None:
    pool = replicas(4)
    for number in range(1, 41):
        replica = choose(pool, 100, b"the one that everybody has", ())
        assert replica is not None
        replica.outstanding += 1
        assert max(r.outstanding for r in pool) <= -(-1.25 * number // 4)
    assert all(r.outstanding for r in pool)


def test_without_affinity_it_is_the_one_with_fewest_in_flight() -> None:
    pool = replicas(3)
    pool[0].outstanding, pool[1].outstanding, pool[2].outstanding = 3, 1, 2
    assert choose(pool, 4, b"", ()) is pool[1]
    assert choose(pool, 4, b"", [pool[1]]) is pool[2]
    assert choose(pool, 1, b"", ()) is None
    pool[0].outstanding, pool[0].on_trial = 0, True
    assert choose(pool, 4, b"x", ()) is pool[0]
    pool[0].outstanding = 1
    assert choose(pool, 4, b"", ()) is pool[1], "one at a time while on trial"


async def test_a_free_slot_goes_to_the_key_that_has_fewest_running() -> None:
    settings = Settings(
        model="m",
        discovery=FixedDiscovery(()),
        concurrency_per_replica=4,
        max_queued_requests=1000,
        max_queued_per_slot=0,
    )
    (only,) = replicas(1)
    admission = Admission(settings, lambda: [only], lambda: None, lambda: 3)
    greedy = [admission.try_take("greedy") for _ in range(4)]
    waiting = [(key, admission.enqueue(1, key)) for key in ["greedy"] * 20 + ["modest"] * 3 + ["late"] * 3]
    order = []
    running = ["greedy"] * len(greedy)
    while running:
        key = running.pop(0)
        admission.release(only, key)
        for entry in list(waiting):
            if entry[1].slot.done():
                order.append(entry[0])
                running.append(entry[0])
                waiting.remove(entry)
    assert order[:2] == ["modest", "late"]
    assert set(order[9:]) == {"greedy"}, "a third of the slots each while all three wait"
    assert Counter(order) == {"greedy": 20, "modest": 3, "late": 3}
    assert admission.demand == 0


async def test_one_key_cannot_fill_the_queue_for_all() -> None:
    settings = Settings(model="m", discovery=FixedDiscovery(()), max_queued_requests=90)
    names = 2
    admission = Admission(settings, list, lambda: None, lambda: names)
    for _ in range(80):
        admission.enqueue(0, "greedy")
    with pytest.raises(ApiError):
        admission.enqueue(0, "greedy")
    admission.enqueue(0, "modest")
    names = 1
    admission.enqueue(0, "greedy")


async def test_a_conversation_stays_with_its_replica(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engines = [await start_engine() for _ in range(3)]
    gateway = await start_gateway(*engines)
    for name in range(5):
        for _ in range(4):
            await gateway.chat(messages=[{"role": "user", "content": f"I am {name}"}])
    for engine in engines:
        said = Counter(request.json["messages"][0]["content"] for request in engine.requests)
        assert set(said.values()) <= {4}
    assert sum(len(engine.requests) for engine in engines) == 20


async def scene(
    start_engine: StartEngine, start_gateway: StartGateway, count: int, **settings: Any
) -> tuple[list[FakeEngine], Gateway]:
    engines = [await start_engine() for _ in range(count)]
    engines[0].behaviour = fake_engine.fail
    gateway = await start_gateway(*engines, eject_after_failures=3, **settings)
    return engines, gateway


async def until_ejected(gateway: Gateway) -> None:
    numbers = itertools.count()
    while not gateway.log("replica_ejected"):
        await gateway.chat(messages=[{"role": "user", "content": str(next(numbers))}])


async def test_a_replica_that_keeps_failing_is_ejected_tried_and_taken_back(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    (sick, *others), gateway = await scene(start_engine, start_gateway, 3, eject_seconds=0.05)
    fleet = gateway.service.fleet
    await until_ejected(gateway)
    assert len(sick.requests) >= 3
    assert await gateway.metric("gateway_ejections_total") >= 1
    for _ in range(2):  # one request fails each time it is tried, not three
        await until(lambda: any(replica.on_trial for replica in fleet.rotation))
        before = len(sick.requests)
        await asyncio.gather(*(gateway.chat() for _ in range(10)))
        assert len(sick.requests) == before + 1
    sick.behaviour = fake_engine.answer
    await until(lambda: any(replica.on_trial for replica in fleet.rotation))
    assert (await gateway.chat()).status_code == 200
    assert [replica.on_trial for replica in fleet.rotation] == [False] * 3
    assert gateway.log("replica_recovered")
    assert len(gateway.log("replica_ejected")) >= 3
    assert gateway.log("replica_ejected")[1]["seconds"] == 0.1
    assert sum(len(engine.requests) for engine in others) >= 18


async def test_an_only_replica_is_never_ejected(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    (sick,), gateway = await scene(start_engine, start_gateway, 1)
    assert [(await gateway.chat()).status_code for _ in range(6)] == [500] * 6
    assert len(sick.requests) == 6
    sick.behaviour = fake_engine.answer
    assert (await gateway.chat()).status_code == 200


async def test_an_ejected_replica_is_better_than_none(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    (sick, well), gateway = await scene(start_engine, start_gateway, 2, eject_seconds=60)
    await until_ejected(gateway)
    sick.behaviour = fake_engine.answer
    well.health = 503
    await until(lambda: [r.pool.address[1] for r in gateway.service.fleet.rotation] == [sick.port])
    assert (await gateway.chat()).status_code == 200
