"""An engine whose core has died answers every request with 500 until its process exits; a full one answers 503."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from fakes import fake_engine
from fakes.fake_engine import COMPLETION, FakeEngine, Line, Request
from tests.image.gateway.conftest import KEY, StartEngine, StartGateway, until


async def full(request: Request, line: Line) -> None:
    line.reply({"error": {"message": "queue full"}}, 503)


@pytest.mark.parametrize("behaviour", [fake_engine.fail, full])
@pytest.mark.parametrize("stream", [False, True])
async def test_another_replica_answers_what_one_could_not(
    start_engine: StartEngine, start_gateway: StartGateway, behaviour: fake_engine.Behaviour, stream: bool
) -> None:
    broken, well = await start_engine(behaviour), await start_engine()
    gateway = await start_gateway(broken, well, probe_seconds=60)
    # Each prompt has a replica of its own, by a hash of both: of so many, some are the broken one's.
    prompts = [[{"role": "user", "content": str(n)}] for n in range(24)]
    responses = [await gateway.chat(stream=stream, messages=messages) for messages in prompts]
    assert [response.status_code for response in responses] == [200] * 24
    assert len(broken.requests) >= 1
    assert len(well.requests) == 24
    assert await gateway.metric("gateway_retries_total") == len(broken.requests)
    assert await gateway.metric('gateway_upstream_errors_total{kind="status_5xx"}') == len(broken.requests)
    assert gateway.service.admission.demand == 0


async def test_what_no_replica_can_answer_is_handed_on_once(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engines = [await start_engine(fake_engine.fail) for _ in range(3)]
    gateway = await start_gateway(*engines, probe_seconds=60)
    response = await gateway.chat()
    assert (response.status_code, response.content) == (500, b"oops\n")
    assert sorted(len(engine.requests) for engine in engines) == [0, 1, 1]


def kill(engine: FakeEngine) -> None:
    """Its core dies: 500 to requests, 503 at /health."""
    engine.health = 503
    engine.behaviour = fake_engine.fail


@pytest.mark.parametrize("stream", [False, True])
async def test_the_only_replica_is_waited_for_when_its_core_has_died(
    start_engine: StartEngine, start_gateway: StartGateway, stream: bool
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, probe_seconds=0.8, sse_comment_seconds=0.05)
    kill(engine)
    requests = [asyncio.create_task(gateway.chat(stream=stream)) for _ in range(3)]
    await until(lambda: gateway.service.admission.held == 3)
    engine.health, engine.behaviour = 200, fake_engine.answer
    responses = await asyncio.gather(*requests)
    assert [response.status_code for response in responses] == [200] * 3
    if not stream:
        assert responses[0].json() == COMPLETION
    # One or more found it dead; those that came when it was out of rotation just waited.
    assert 1 <= await gateway.metric("gateway_retries_total") <= 3
    assert gateway.service.admission.demand == 0


async def test_a_request_that_kills_the_only_replica_twice_is_told_so(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, probe_seconds=0.8)
    kill(engine)
    request = asyncio.create_task(gateway.chat())
    await until(lambda: gateway.service.admission.held == 1)
    engine.health = 200
    assert (await request).status_code == 500
    assert len(engine.requests) == 2


async def test_a_request_whose_client_has_gone_before_its_turn_never_reaches_an_engine(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    loop = asyncio.get_running_loop()
    connection = SimpleNamespace(gone=True, exchange=None, loop=loop, client_of=lambda headers: "127.0.0.1")
    cycle = SimpleNamespace(disconnected=False, more_body=False, flow=SimpleNamespace(write_paused=False))
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {KEY}".encode())],
        "gateway.connection": connection,
        "gateway.cycle": cycle,
    }

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nothing is read or sent")

    await asyncio.create_task(gateway.service.app(scope, nothing, nothing))
    assert cycle.disconnected
    assert (gateway.log()[0]["status"], gateway.log()[0]["error"]) == (499, "client_left")
    assert engine.requests == []
