"""Requests that arrive while no replica is ready or all slots are busy: held, queued, answered or rejected in time."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from fakes import fake_engine
from fakes.fake_engine import EVENTS
from image.gateway.capacity.base import ScalingError
from tests.image.gateway.conftest import Cloud, Gateway, StartEngine, StartGateway, until


async def held(gateway: Gateway, count: int) -> None:
    await until(lambda: gateway.service.admission.held == count)


async def test_twenty_requests_to_a_cold_engine_wake_it_once_and_are_answered(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    cloud = Cloud(await start_engine())
    gateway = await start_gateway(discovery=cloud, capacity=cloud, concurrency_per_replica=4)
    requests = [asyncio.create_task(gateway.chat(stream=bool(number % 2))) for number in range(20)]
    await held(gateway, 20)
    info = await gateway.info()
    assert info["state"] == "waking"
    assert info["requests"] == {"running": 0, "held": 20, "queued": 0}
    assert await gateway.metric("gateway_demand") == 20
    assert gateway.service.admission.waiting_bytes > 0
    cloud.arrive()
    responses = await asyncio.gather(*requests)
    assert {response.status_code for response in responses} == {200}
    assert responses[1].content == b"".join(EVENTS)
    assert cloud.wakes == 1
    assert cloud.engines[0].most_running <= 4
    assert gateway.service.admission.waiting_bytes == 0
    assert await gateway.metric("gateway_cold_start_seconds_count") == 1
    assert await gateway.metric('gateway_wakes_total{outcome="ok"}') == 1
    assert len(gateway.log("wake")) == 1


async def test_a_held_stream_is_sent_comments_then_its_answer(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    cloud = Cloud(await start_engine())
    gateway = await start_gateway(discovery=cloud, capacity=cloud, sse_comment_seconds=0.05)
    async with gateway.stream() as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.aiter_lines()
        assert (await anext(lines)).startswith(":")
        cloud.arrive()
        events = [line async for line in lines if line and not line.startswith(":")]
    assert "".join(f"{line}\n\n" for line in events).encode() == b"".join(EVENTS)
    assert "x-request-id" in response.headers


async def test_a_held_stream_whose_request_the_engine_refuses_ends_with_the_engines_error(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    for behaviour, says in ((fake_engine.refuse, "max_tokens is too large"), (fake_engine.fail, "rejected")):
        cloud = Cloud(await start_engine(behaviour))
        gateway = await start_gateway(discovery=cloud, capacity=cloud, sse_comment_seconds=0.05)
        async with gateway.stream() as response:
            lines = response.aiter_lines()
            await anext(lines)
            cloud.arrive()
            (event,) = [line async for line in lines if line.startswith("data: ")]
        assert says in json.loads(event[6:])["error"]["message"]


async def test_a_held_request_that_cannot_stream_keeps_its_status(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    cloud = Cloud(await start_engine(fake_engine.refuse))
    gateway = await start_gateway(discovery=cloud, capacity=cloud, sse_comment_seconds=0.01)
    request = asyncio.create_task(gateway.chat(path="/v1/embeddings", stream=True, input="x"))
    await held(gateway, 1)
    await asyncio.sleep(0.05)  # long enough for comments, had it been a stream
    cloud.arrive()
    assert (await request).status_code == 400


async def test_nothing_waits_beyond_its_deadline(start_gateway: StartGateway) -> None:
    cloud = Cloud()
    cloud.failures = [ScalingError("an account quota is exhausted", "VcpuLimitExceeded arn:aws:...")] * 100
    gateway = await start_gateway(
        discovery=cloud,
        capacity=cloud,
        hold_timeout_seconds=0.3,
        hold_timeout_nonstream_seconds=0.1,
        sse_comment_seconds=0.05,
    )
    response = await gateway.chat()
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["error"]["code"] == "not_ready"
    assert "an account quota is exhausted" in response.json()["error"]["message"]
    assert "arn:aws" not in response.text
    info = await gateway.info()
    assert info["wake_error"] == "an account quota is exhausted"
    async with gateway.stream() as response:
        content = await response.aread()
    assert response.status_code == 200
    assert json.loads(content.rpartition(b"data: ")[2])["error"]["code"] == "not_ready"
    assert gateway.log("wake_failed")[0]["error"].startswith("VcpuLimitExceeded")
    assert gateway.service.admission.demand == 0


async def test_a_wake_that_fails_is_tried_again(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    cloud = Cloud(await start_engine())
    cloud.failures = [ScalingError("throttled", "x")] * 3
    gateway = await start_gateway(discovery=cloud, capacity=cloud)
    gateway.service.waker._first_backoff_seconds = 0.01
    request = asyncio.create_task(gateway.chat())
    await until(lambda: cloud.wakes == 4)
    cloud.arrive()
    assert (await request).status_code == 200
    assert await gateway.metric('gateway_wakes_total{outcome="failed"}') == 3
    assert (await gateway.info())["wake_error"] is None


async def test_the_queue_is_bounded_in_count_and_in_bytes(start_gateway: StartGateway) -> None:
    cloud = Cloud()
    gateway = await start_gateway(
        discovery=cloud,
        capacity=cloud,
        max_queued_requests=3,
        max_queued_bytes=100_000,
        hold_timeout_nonstream_seconds=1,
    )
    waiting = [asyncio.create_task(gateway.chat(pad="x" * 20_000)) for _ in range(2)]
    await held(gateway, 2)
    begun = time.monotonic()
    response = await gateway.chat(pad="x" * 70_000)
    assert response.status_code == 429
    assert time.monotonic() - begun < 0.5
    assert gateway.log()[-1]["error"] == "queue_bytes"
    waiting.append(asyncio.create_task(gateway.chat()))
    await held(gateway, 3)
    response = await gateway.chat()
    assert response.status_code == 429
    assert response.json()["error"]["type"] == "rate_limit_error"
    assert int(response.headers["retry-after"]) > 0
    assert gateway.log()[-1]["error"] == "queue_full"
    assert (await gateway.client.get("/health")).status_code == 200
    assert {(await request).status_code for request in waiting} == {503}
    assert gateway.service.admission.waiting_bytes == 0


async def test_those_that_wait_go_first_come_first_served(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(fake_engine.answer_when_told)
    gateway = await start_gateway(engine, concurrency_per_replica=1, max_queued_per_slot=0)
    requests = []
    for number in range(6):
        requests.append(asyncio.create_task(gateway.chat(number=number)))
        await until(lambda: gateway.service.admission.demand == len(requests))
    assert gateway.service.admission.queued == 5
    engine.go_on.set()
    await asyncio.gather(*requests)
    assert [request.json["number"] for request in engine.requests] == list(range(6))
    assert engine.most_running == 1
    assert gateway.log()[-1]["waiting_ms"] > gateway.log()[0]["waiting_ms"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_it_waits_frees_its_place(start_gateway: StartGateway, stream: bool) -> None:
    cloud = Cloud()
    gateway = await start_gateway(discovery=cloud, capacity=cloud)
    requests = [asyncio.create_task(gateway.chat(stream=stream)) for _ in range(5)]
    await held(gateway, 5)
    for request in requests:
        request.cancel()
    await held(gateway, 0)
    assert gateway.service.admission.waiting_bytes == 0
    await until(lambda: len(gateway.log()) == 5)
    assert await gateway.metric('gateway_cancellations_total{stage="waiting"}') == 5


async def test_an_engine_that_comes_back_finds_its_requests_waiting(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """Nothing listens where the replica was: the request reached nobody, and waits instead of failing."""
    engine = await start_engine()
    gateway = await start_gateway(engine)
    port = engine.port
    await engine.stop()
    request = asyncio.create_task(gateway.chat())
    await held(gateway, 1)
    await engine.start(port)
    assert (await request).status_code == 200


async def test_a_replica_discovery_no_longer_knows_gets_nothing_new_and_finishes(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    old, new = await start_engine(fake_engine.answer_when_told), await start_engine()
    cloud = Cloud(old)
    cloud.arrive()
    gateway = await start_gateway(discovery=cloud, capacity=cloud, ready=1)
    stream = asyncio.create_task(gateway.chat(stream=True))
    await old.reached.wait()
    cloud.engines = (new,)
    cloud.arrive()
    await until(lambda: [r.pool.address[1] for r in gateway.service.fleet.rotation] == [new.port])
    assert [(await gateway.chat()).status_code for _ in range(3)] == [200] * 3
    assert (len(old.requests), len(new.requests)) == (1, 3)
    old.go_on.set()
    assert (await stream).content == b"".join(EVENTS)


async def test_an_unhealthy_replica_is_out_of_rotation(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    sick, well = await start_engine(), await start_engine()
    gateway = await start_gateway(sick, well)
    sick.health = 503
    await gateway.ready(1)
    assert [(await gateway.chat()).status_code for _ in range(3)] == [200] * 3
    assert sick.requests == []
    sick.health = 200
    await gateway.ready(2)


async def test_a_plain_requests_time_begins_when_it_arrives(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """Nothing flows to its client meanwhile, so that no hop in between must have to wait for longer."""
    cloud = Cloud(await start_engine(fake_engine.say_nothing))
    gateway = await start_gateway(discovery=cloud, capacity=cloud, request_timeout_nonstream_seconds=0.6)
    began = time.monotonic()
    plain = asyncio.create_task(gateway.chat())
    stream = asyncio.create_task(gateway.chat(stream=True))
    await held(gateway, 2)
    await asyncio.sleep(0.3)
    cloud.arrive()
    response = await plain
    assert 0.6 <= time.monotonic() - began < 0.85
    assert (response.status_code, response.json()["error"]["code"]) == (504, "request_timeout")
    assert "0.6 s" in response.json()["error"]["message"]
    assert not stream.done()
    stream.cancel()
