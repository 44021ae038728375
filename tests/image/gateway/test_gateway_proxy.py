"""What is forwarded to the engine and back, and the client's error if the engine fails."""

from __future__ import annotations

import asyncio
import ipaddress
import json

import httpx2
import pytest

from fakes import fake_engine
from fakes.fake_engine import COMPLETION, EVENTS, MODEL
from image.gateway import upstream
from tests.image.gateway.conftest import TLS, StartEngine, StartGateway, until


async def test_an_answer_comes_back_byte_for_byte(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    body = b'{ "model":"%b",\n "x": 1.0e2, "messages":[{"role":"user","content":"\\u00e9\xc3\xa9"}] }' % MODEL.encode()
    response = await gateway.client.post(
        "/v1/chat/completions?a=b%20c", content=body, headers={"content-type": "application/json; charset=utf-8"}
    )
    assert response.content == json.dumps(COMPLETION).encode()
    assert response.status_code == 200
    assert response.headers["x-engine"] == "yes"
    assert engine.requests[0].body == body
    assert engine.requests[0].path == "/v1/chat/completions?a=b%20c"


@pytest.mark.parametrize("behaviour", [fake_engine.answer, fake_engine.drip])
async def test_a_stream_comes_back_byte_for_byte(
    start_engine: StartEngine, start_gateway: StartGateway, behaviour: fake_engine.Behaviour
) -> None:
    gateway = await start_gateway(await start_engine(behaviour))
    async with gateway.stream() as response:
        content = await response.aread()
    assert content == b"".join(EVENTS)
    assert response.headers["content-type"].startswith("text/event-stream")
    await until(lambda: len(gateway.log()) == 1)
    assert (gateway.log()[0]["tokens_in"], gateway.log()[0]["tokens_out"]) == (7, 2)


async def test_an_event_is_sent_on_before_the_next_one_is_made(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(fake_engine.answer_when_told)
    gateway = await start_gateway(engine)
    async with gateway.stream() as response:
        parts = response.aiter_raw()
        assert await anext(parts) == EVENTS[0]
        engine.go_on.set()
        assert b"".join([part async for part in parts]) == b"".join(EVENTS[1:])


async def test_headers_of_one_hop_stay_there(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    response = await gateway.chat(
        headers={
            "connection": "keep-alive, X-Private",
            "x-private": "mine",
            "te": "trailers",
            "proxy-authorization": "secret",
            "accept-encoding": "gzip",
            "x-request-id": "abc-123",
            "traceparent": trace,
            "x-other": "kept",
            "x-forwarded-for": "6.6.6.6",
            "forwarded": "for=6.6.6.6",
            "x-real-ip": "6.6.6.6",
        }
    )
    received = engine.requests[0].headers
    assert received["x-request-id"] == response.headers["x-request-id"] == "abc-123"
    assert received["traceparent"] == trace
    assert received["x-other"] == "kept"
    assert received["host"] == f"127.0.0.1:{engine.port}"
    hidden = {"connection", "x-private", "te", "proxy-authorization", "accept-encoding", "authorization"}
    assert not hidden & received.keys()
    assert received["x-forwarded-for"] == "127.0.0.1"
    assert not {"forwarded", "x-real-ip"} & received.keys()
    assert "server" not in response.headers


async def test_only_a_trusted_proxy_says_who_the_client_is(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    networks = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.0.0.0/8"))
    for trusted, said, client in (
        ((), "1.2.3.4", "127.0.0.1"),
        (networks, "1.2.3.4", "1.2.3.4"),
        (networks, "6.6.6.6, 1.2.3.4, 10.1.1.1", "1.2.3.4"),
        (networks, "10.1.1.1", "10.1.1.1"),
        (networks, "nonsense", "127.0.0.1"),
        (networks, "2001:db8::1", "2001:db8::1"),
    ):
        gateway = await start_gateway(engine, trusted_proxies=trusted)
        await gateway.chat(headers={"x-forwarded-for": said})
        assert engine.requests[-1].headers["x-forwarded-for"] == client
        assert gateway.log()[0]["client"] == client


async def test_a_bad_request_id_is_replaced(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    for given in ("", "a" * 129, "two words", "<b>"):
        response = await gateway.chat(headers={"x-request-id": given})
        made = response.headers["x-request-id"]
        assert made != given
        assert len(made) == 32
        assert engine.requests[-1].headers["x-request-id"] == made


async def test_connections_to_a_replica_are_used_again(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, probe_seconds=60)
    await until(lambda: engine.connections == 0)
    for _ in range(5):
        await gateway.chat()
        async with gateway.stream() as response:
            await response.aread()
    assert len(engine.requests) == 10
    assert engine.connections == 1


async def test_connections_that_nobody_uses_are_closed(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "_IDLE_SECONDS", 0.1)
    engine = await start_engine()
    gateway = await start_gateway(engine, probe_seconds=60)
    assert {r.status_code for r in await asyncio.gather(*(gateway.chat() for _ in range(8)))} == {200}
    await until(lambda: engine.connections == 0)
    assert (await gateway.chat()).status_code == 200


async def test_requests_go_to_the_replica_that_has_fewest(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engines = [await start_engine(fake_engine.answer_when_told) for _ in range(3)]
    gateway = await start_gateway(*engines, concurrency_per_replica=2)
    requests = [asyncio.create_task(gateway.chat()) for _ in range(8)]
    await until(lambda: [engine.running for engine in engines] == [2, 2, 2])
    assert gateway.service.admission.queued == 2
    for engine in engines:
        engine.go_on.set()
    assert {response.status_code for response in await asyncio.gather(*requests)} == {200}
    assert max(engine.most_running for engine in engines) == 2
    assert gateway.service.admission.demand == 0


@pytest.mark.parametrize(
    ("behaviour", "status", "body"),
    [(fake_engine.refuse, 400, b"max_tokens is too large"), (fake_engine.fail, 500, b"oops\n")],
)
async def test_an_error_of_the_engine_is_passed_on_as_it_is(
    start_engine: StartEngine, start_gateway: StartGateway, behaviour: fake_engine.Behaviour, status: int, body: bytes
) -> None:
    gateway = await start_gateway(await start_engine(behaviour))
    for response in (await gateway.chat(), await gateway.chat(stream=True)):
        assert response.status_code == status
        assert body in response.content


async def test_what_the_model_is_not_for_is_refused_as_openai_does(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(await start_engine(fake_engine.have_no_such_path))
    response = await gateway.chat(path="/v1/embeddings", input="Hi")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert "/v1/embeddings" in response.json()["error"]["message"]


async def test_large_and_unmeasured_answers_come_whole(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(fake_engine.answer_at_length)
    gateway = await start_gateway(engine)
    response = await gateway.chat()
    assert response.content == b"".join(bytes([number % 256]) * 10_000 for number in range(300))
    engine.behaviour = fake_engine.answer_until_close
    assert (await gateway.chat()).content == b"all of it"


async def test_a_large_body_arrives_whole(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    for size in (1 << 16, 9 << 20):
        content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * (size // 4)}}]
        response = await gateway.chat(messages=[{"role": "user", "content": content}])
        assert response.status_code == 200
        assert engine.requests[-1].json["messages"][0]["content"] == content
    assert gateway.service.admission.waiting_bytes == 0


# Faults: each has a defined answer, and the gateway lives


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (fake_engine.reset, "engine_died"),
        (fake_engine.close_within_an_answer, "engine_died"),
        (fake_engine.answer_nonsense, "engine_protocol"),
    ],
)
async def test_an_engine_that_fails_before_its_answer_is_a_502(
    start_engine: StartEngine, start_gateway: StartGateway, behaviour: fake_engine.Behaviour, code: str
) -> None:
    engine = await start_engine(behaviour)
    gateway = await start_gateway(engine)
    response = await gateway.chat()
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "engine_failed"
    assert gateway.log()[0]["error"] == code
    assert len(engine.requests) == 1, "one replica is never asked twice"
    engine.behaviour = fake_engine.answer
    await gateway.ready()
    assert (await gateway.chat()).status_code == 200
    assert gateway.service.admission.running == 0


@pytest.mark.parametrize("behaviour", [fake_engine.reset_within_a_stream, fake_engine.break_the_chunking])
async def test_an_engine_that_dies_within_a_stream_ends_it_with_an_error_event(
    start_engine: StartEngine, start_gateway: StartGateway, behaviour: fake_engine.Behaviour
) -> None:
    engine = await start_engine(behaviour)
    gateway = await start_gateway(engine)
    async with gateway.stream() as response:
        engine.go_on.set()
        content = await response.aread()
    assert response.status_code == 200
    *events, last, nothing = content.split(b"\n\n")
    assert [event + b"\n\n" for event in events] == EVENTS[:1], "half an event is not sent on"
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_failed"
    assert nothing == b""
    await until(lambda: gateway.service.admission.running == 0)
    assert gateway.log()[0]["status"] == 502


async def test_a_request_that_never_reached_a_replica_goes_to_another(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    gone, alive = await start_engine(), await start_engine()
    gateway = await start_gateway(gone, alive, probe_seconds=60)
    await gone.stop()
    responses = await asyncio.gather(*(gateway.chat() for _ in range(4)))
    assert [response.status_code for response in responses] == [200] * 4
    assert len(alive.requests) == 4
    assert await gateway.metric('gateway_upstream_errors_total{kind="connect"}') >= 1
    assert await gateway.metric("gateway_retries_total") >= 1
    assert await gateway.metric("gateway_replicas_ready") == 1


async def test_a_request_that_breaks_replicas_is_handed_on_once(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engines = [await start_engine(fake_engine.reset) for _ in range(3)]
    gateway = await start_gateway(*engines, probe_seconds=60)
    assert (await gateway.chat()).status_code == 502
    assert sorted(len(engine.requests) for engine in engines) == [0, 1, 1]


async def test_a_request_one_replica_dropped_is_answered_by_another(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engines = [await start_engine(fake_engine.reset), await start_engine()]
    gateway = await start_gateway(*engines, probe_seconds=60)
    assert [(await gateway.chat()).status_code for _ in range(3)] == [200] * 3
    assert len(engines[0].requests) <= 1, "it is out of rotation until it answers a probe"


async def test_a_request_that_crosses_the_close_of_an_idle_connection_is_sent_again(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(fake_engine.close_when_asked_again)
    gateway = await start_gateway(engine, probe_seconds=60)
    assert [(await gateway.chat()).status_code for _ in range(5)] == [200] * 5
    assert await gateway.metric("gateway_retries_total") == 4
    assert await gateway.metric("gateway_replicas_ready") == 1
    engine.behaviour = fake_engine.reset
    assert (await gateway.chat()).status_code == 502, "on a fresh connection it is the request's own doing"


async def test_an_engine_that_never_answers_is_a_504(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(fake_engine.say_nothing)
    gateway = await start_gateway(engine, request_timeout_seconds=0.1)
    response = await gateway.chat()
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "request_timeout"
    await engine.abandoned.wait()


# A client that leaves


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_client_that_leaves_stops_the_engine_at_once(
    start_engine: StartEngine, start_gateway: StartGateway, streaming: bool
) -> None:
    engine = await start_engine(fake_engine.stream_for_ever if streaming else fake_engine.say_nothing)
    gateway = await start_gateway(engine)
    async with httpx2.AsyncClient(headers=gateway.client.headers, trust_env=False, verify=TLS) as client:
        body = {"model": MODEL, "messages": [], "stream": streaming}
        request = asyncio.create_task(client.post(f"{gateway.url}/v1/chat/completions", json=body))
        await engine.reached.wait()
        request.cancel()
    await asyncio.wait_for(engine.abandoned.wait(), 1)
    await until(lambda: bool(gateway.log()))
    assert gateway.service.admission.running == 0
    assert gateway.log()[0]["status"] == 499
    assert gateway.log()[0]["error"] == "client_left"
    stage = "answering" if streaming else "asked"
    assert await gateway.metric(f'gateway_cancellations_total{{stage="{stage}"}}') == 1


async def test_a_slow_reader_slows_its_engine_and_is_put_out(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(fake_engine.flood)
    gateway = await start_gateway(engine, stalled_reader_seconds=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
    body = json.dumps({"model": MODEL, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: {gateway.client.headers['authorization']}\r\n"
    writer.write(head.encode() + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await engine_abandoned(engine)
    await until(lambda: bool(gateway.log()))
    assert gateway.log()[0]["error"] == "client_stalled"
    assert gateway.log()[0]["bytes_out"] < 20 << 20
    del reader
    writer.close()


async def engine_abandoned(engine: fake_engine.FakeEngine) -> None:
    await asyncio.wait_for(engine.abandoned.wait(), 10)
