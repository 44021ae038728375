"""A request that crashes its engine must not crash one replica after another."""

from __future__ import annotations

import asyncio

import pytest

from fakes import fake_engine
from fakes.fake_engine import FakeEngine, Line, Request
from tests.image.gateway.conftest import Gateway, StartEngine, StartGateway, until

# Longer than the gateway takes the reset of an idle connection for a request that crossed its close.
WORKS_SECONDS = 0.15


async def die_of_poison(request: Request, line: Line) -> None:
    """Work on it for a while, then die as a process does: every connection is reset and nothing listens."""
    if "poison" in request.json:
        await asyncio.sleep(request.json["poison"])
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, line.engine.stop())
        await line.gone()
    else:
        await fake_engine.answer(request, line)


async def die_and_come_back(request: Request, line: Line) -> None:
    """Only the connection is reset: what listens is there again before anybody looks."""
    if "poison" in request.json:
        await asyncio.sleep(request.json["poison"])
        line.reset()
        await line.gone()
    else:
        await fake_engine.answer(request, line)


async def warm_up(gateway: Gateway, engines: list[FakeEngine]) -> None:
    """Have a connection to each replica lie idle in the pool."""
    for number in range(64):
        await gateway.chat(messages=[{"role": "user", "content": str(number)}])
    assert all(engine.requests for engine in engines)
    for engine in engines:
        engine.requests.clear()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("works_seconds", [0, WORKS_SECONDS])
@pytest.mark.parametrize("replicas", [1, 2, 3])
async def test_a_request_that_kills_its_engine_kills_no_other(
    start_engine: StartEngine, start_gateway: StartGateway, replicas: int, works_seconds: float, stream: bool
) -> None:
    engines = [await start_engine(die_of_poison) for _ in range(replicas)]
    gateway = await start_gateway(
        *engines, probe_seconds=60, hold_timeout_seconds=2, hold_timeout_nonstream_seconds=2, sse_comment_seconds=60
    )
    await warm_up(gateway, engines)
    response = await gateway.chat(poison=works_seconds, stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "engine_failed")
    assert sum(len(engine.requests) for engine in engines) == 1
    assert gateway.log()[-1]["error"] == "engine_died"
    if replicas > 1:
        assert (await gateway.chat()).status_code == 200
    assert gateway.service.admission.demand == 0


@pytest.mark.parametrize("replicas", [1, 2, 3])
async def test_a_reset_after_work_is_no_free_retry(
    start_engine: StartEngine, start_gateway: StartGateway, replicas: int
) -> None:
    """It counts as a breakdown: never the same replica again, and one other at most."""
    engines = [await start_engine(die_and_come_back) for _ in range(replicas)]
    gateway = await start_gateway(*engines, probe_seconds=60)
    await warm_up(gateway, engines)
    assert (await gateway.chat(poison=WORKS_SECONDS)).status_code == 502
    assert sorted(len(engine.requests) for engine in engines) == [0, 1, 1][-replicas:]


async def test_those_beside_a_request_that_killed_their_engine_are_handed_on(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """A replica that dies with many loses none of them: which of them killed it, if one did, is not known."""
    first, second = await start_engine(fake_engine.say_nothing), await start_engine(fake_engine.say_nothing)
    gateway = await start_gateway(first, second, probe_seconds=60)
    requests = [
        asyncio.create_task(gateway.chat(messages=[{"role": "user", "content": str(number)}])) for number in range(12)
    ]
    await until(lambda: first.running + second.running == 12)
    assert first.running > 1
    lost = first.running
    second.behaviour = fake_engine.answer
    await first.stop()
    await until(lambda: sum(request.done() for request in requests) == lost)
    assert {request.result().status_code for request in requests if request.done()} == {200}
    for request in requests:
        request.cancel()


async def work_then_lose_the_core(request: Request, line: Line) -> None:
    """As vLLM whose core dies of a request: 500 to it, and 503 at /health from then on."""
    if "poison" in request.json or line.engine.health != 200:
        await asyncio.sleep(request.json.get("poison", 0))
        line.engine.health = 503
        await fake_engine.fail(request, line)
    else:
        await fake_engine.answer(request, line)


@pytest.mark.parametrize("replicas", [1, 2, 3])
async def test_a_request_that_kills_an_engines_core_kills_no_other(
    start_engine: StartEngine, start_gateway: StartGateway, replicas: int
) -> None:
    engines = [await start_engine(work_then_lose_the_core) for _ in range(replicas)]
    gateway = await start_gateway(*engines, probe_seconds=60)
    response = await gateway.chat(poison=WORKS_SECONDS)
    assert (response.status_code, response.content) == (500, b"oops\n")
    assert sum(len(engine.requests) for engine in engines) == 1


async def test_an_answer_that_broke_off_at_once_is_not_asked_for_again(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """Sooner than any work takes, but a byte has come: it was no idle connection's reset that crossed the request."""

    async def half_a_head(request: Request, line: Line) -> None:
        if "poison" not in request.json:
            await fake_engine.answer(request, line)
            return
        line.write(b"HTTP/1.1 200 OK\r\ncontent-")
        await line.writer.drain()
        line.writer.close()
        await line.gone()

    engine = await start_engine(half_a_head)
    gateway = await start_gateway(engine, probe_seconds=60, hold_timeout_nonstream_seconds=2)
    await warm_up(gateway, [engine])
    assert (await gateway.chat(poison=0)).status_code == 502
    assert len(engine.requests) == 1
