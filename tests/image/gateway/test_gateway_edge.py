"""Slow (slowloris), flooding and stalled clients and clients that do not send HTTP, as raw bytes on a socket."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from fakes import fake_engine
from fakes.fake_engine import MODEL
from image.gateway.edge import EdgeProtocol
from tests.image.gateway.conftest import KEY, Gateway, StartEngine, StartGateway, until

AUTHORIZED = f"host: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
GOOD = json.dumps({"model": MODEL, "prompt": "Hi"}).encode()
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


NOT_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\nhost: x\n\n",
    b"POST /v1/completions HTTP/1.1\r\nho st: x\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n\x00: y\r\n\r\n",
    b"POST /v1/comple\x00tions HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
]


async def test_what_is_not_http_is_a_400(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    for request in NOT_HTTP:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400 "), request
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
    assert engine.requests == []
    assert await gateway.metric('gateway_refusals_total{reason="http"}') == len(NOT_HTTP)


async def test_a_head_that_drips_is_cut_off(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine(), header_timeout_seconds=0.2)
    for beginning, status in ((b"GET /health HTTP/1.1\r\nx: ", b" 408 "), (b"", b""), (b"\r\n\r\n", b"")):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(beginning)
        assert status in await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert await gateway.metric('gateway_refusals_total{reason="header_timeout"}') >= 1


async def test_a_second_head_that_drips_is_cut_off_too(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine(), header_timeout_seconds=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b" 200 " in await reader.readuntil(b"}")
    writer.write(b"GET /health HT")
    assert b" 408 " in await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def test_headers_beyond_their_cap(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, max_header_bytes=10_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nx: " + b"a" * 20_000)
    assert b" 431 " in await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert engine.requests == []


async def test_a_body_that_drips_is_a_408(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, body_timeout_seconds=0.2, header_timeout_seconds=0.2)
    for body in (b"", b'{"model": '):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"POST /v1/completions HTTP/1.1\r\n{AUTHORIZED}content-length: 500\r\n\r\n".encode() + body)
        assert b" 408 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b" ")  # further bytes are discarded, up to a limit
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert engine.requests == []
    assert gateway.service.admission.waiting_bytes == 0


async def test_bodies_being_received_are_bounded_together(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, max_queued_bytes=100_000)
    writers = []
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"POST /v1/completions HTTP/1.1\r\n{AUTHORIZED}content-length: 90000\r\n\r\n".encode())
        writer.write(b" " * 60_000)
        writers.append(writer)
    assert b" 429 " in await reader.readuntil(b"\r\n\r\n")
    for writer in writers:
        writer.close()
    await until(lambda: gateway.service.admission.waiting_bytes == 0)


async def test_garbage_behind_a_request_does_not_get_into_its_answer(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(fake_engine.answer_when_told)
    gateway = await start_gateway(engine)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = json.dumps({"model": MODEL, "stream": True}).encode()
    writer.write(f"POST /v1/completions HTTP/1.1\r\n{AUTHORIZED}content-length: {len(body)}\r\n\r\n".encode() + body)
    await engine.reached.wait()
    writer.write(b"\x00\x01\x02 garbage\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    engine.go_on.set()
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    stream, end, refusal = answer.partition(b"0\r\n\r\n")
    assert b"[DONE]" in stream
    assert end
    assert refusal.startswith(b"HTTP/1.1 400 ")
    await until(lambda: gateway.service.admission.running == 0)


async def test_pipelined_requests_are_answered_in_turn(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(fake_engine.drip)
    gateway = await start_gateway(engine)
    body = json.dumps({"model": MODEL, "stream": True}).encode()
    chat = f"POST /v1/completions HTTP/1.1\r\n{AUTHORIZED}content-length: {len(body)}\r\n\r\n".encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(chat + b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" + chat + b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n")
    for expected in (b" 200 ", b" 200 ", b" 200 ", b" 404 "):
        head = await reader.readuntil(b"\r\n\r\n")
        assert expected in head
        if b"chunked" in head:
            await reader.readuntil(b"0\r\n\r\n")
        else:
            await reader.readuntil(b"}\n" if expected == b" 404" else b"}")
            if expected == b" 404 ":
                break
    writer.close()
    assert len(engine.requests) == 2


@pytest.mark.parametrize("together", [True, False])
async def test_however_many_requests_are_pipelined_each_is_answered(
    start_engine: StartEngine, start_gateway: StartGateway, together: bool
) -> None:
    gateway = await start_gateway(await start_engine())
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    requests = [f"GET /nowhere/{number} HTTP/1.1\r\nhost: x\r\n\r\n".encode() for number in range(5000)]
    if together:
        writer.write(b"".join(requests))
    else:
        writer.writelines(requests)
    async with asyncio.timeout(20):
        for number in range(5000):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            assert f"'/nowhere/{number}'".encode() in await reader.readexactly(length)
    writer.close()


async def test_a_client_that_pipelines_and_leaves_is_noticed(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(fake_engine.say_nothing)
    gateway = await start_gateway(engine)
    body = json.dumps({"model": MODEL}).encode()
    chat = f"POST /v1/completions HTTP/1.1\r\n{AUTHORIZED}content-length: {len(body)}\r\n\r\n".encode() + body
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(chat * 100)
    await engine.reached.wait()
    writer.close()
    await asyncio.wait_for(engine.abandoned.wait(), 5)
    await until(lambda: not gateway.service.app.active)
    assert len(engine.requests) == 1


async def test_no_more_is_read_of_what_is_pipelined_than_its_bound(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[EdgeProtocol] = []
    wait = EdgeProtocol._wait
    monkeypatch.setattr(EdgeProtocol, "_wait", lambda self, data: connections.append(self) or wait(self, data))  # type: ignore[func-returns-value]
    engine = await start_engine(fake_engine.say_nothing)
    gateway = await start_gateway(engine)
    body = json.dumps({"model": MODEL}).encode()
    chat = f"POST /v1/completions HTTP/1.1\r\n{AUTHORIZED}content-length: {len(body)}\r\n\r\n".encode() + body
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(chat * 10_000)
    await until(lambda: bool(connections) and connections[-1]._flow.read_paused)
    kept = len(connections[-1]._waiting)
    writer.transport.abort()
    connections[-1]._transport.abort()  # nothing is read any more, the client's end included
    await until(lambda: not gateway.service.app.active)
    assert kept <= (16 << 10) + 2 * (32 << 10)  # the bound, and what was read before the reading stopped


# Answers that are given before the body has come


async def head_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))  # type: ignore[index]
    return head


@pytest.mark.parametrize(
    ("extra", "framing", "kept"),
    [
        ("", f"content-length: {200_000}", True),
        ("", f"content-length: {300_000}", False),
        ("", "transfer-encoding: chunked", False),
        ("expect: 100-continue\r\n", "content-length: 5", False),  # the client may leave the body out
        ("connection: close\r\n", "content-length: 5", False),
    ],
)
async def test_an_answer_before_the_body_keeps_the_connection_only_where_the_rest_is_certain_and_small(
    start_engine: StartEngine, start_gateway: StartGateway, extra: str, framing: str, kept: bool
) -> None:
    gateway = await start_gateway(await start_engine())
    for line in ("POST /v1/completions", "GET /health"):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"{line} HTTP/1.1\r\nhost: x\r\n{extra}{framing}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            assert (b"connection: close" in await head_of(reader)) is not kept
            if kept:
                writer.write(b" " * 200_000 + LAST)
                assert b" 404 " in await head_of(reader)
            assert await reader.read() == b""
        writer.close()


async def test_a_client_that_sends_all_of_a_body_that_is_refused_reads_why(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(await start_engine())
    for head in (
        f"POST /v1/completions HTTP/1.1\r\n{AUTHORIZED}connection: close\r\ncontent-length: {30 << 20}\r\n\r\n",
        f"POST /v1/completions HTTP/1.0\r\n{AUTHORIZED}content-length: {30 << 20}\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nx: " + "y" * 100_000,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head.encode())
        for _ in range(30):
            writer.write(b" " * (1 << 20))
            await writer.drain()  # a reset would raise here
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 431 "))
        writer.close()


async def test_what_comes_behind_a_refusal_is_bounded(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("image.gateway.edge._MOST_LINGERING_BYTES", 1 << 20)
    gateway = await start_gateway(await start_engine())
    sent = await until_cut_off(gateway, b"POST /nowhere HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    assert sent < 20 << 20


async def until_cut_off(gateway: Gateway, head: bytes) -> int:
    """How many bytes can be sent behind a head."""
    sent = 0
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head)
    async with asyncio.timeout(10):
        try:
            while True:
                writer.write(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
                sent += 0x8000
                await writer.drain()
        except ConnectionError:
            return sent


# What every answer has


async def test_every_answer_has_a_date_and_a_request_id(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine(), header_timeout_seconds=0.2)
    stream = json.dumps({"model": MODEL, "stream": True}).encode()
    post = f"POST /v1/completions HTTP/1.1\r\n{AUTHORIZED}connection: close\r\ncontent-length: "
    for request, status in (
        (LAST, 404),
        (LAST.replace(b"/last", b"/health"), 200),
        (LAST.replace(b"GET", b"HEAD"), 404),
        (f"{post}{len(GOOD)}\r\n\r\n".encode() + GOOD, 200),
        (f"{post}{len(stream)}\r\n\r\n".encode() + stream, 200),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nx: ", 408),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request)
        async with asyncio.timeout(5):
            head = (await reader.read()).partition(b"\r\n\r\n")[0]
        writer.close()
        assert head.startswith(b"HTTP/1.1 %d " % status)
        dates = re.findall(rb"(?im)^date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r?$", head)
        assert len(dates) == 1, head
        assert len(re.findall(rb"(?im)^x-request-id: \S+\r?$", head)) == 1, head
