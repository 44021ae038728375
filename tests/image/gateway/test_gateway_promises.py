"""Every failure of an engine has a defined answer, timeout and metric: each row of the table in docs/gateway.md."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from fakes import fake_engine
from fakes.fake_engine import EVENTS, Behaviour, Line, Request
from image.gateway.backends import Address
from image.gateway.discovery import DiscoveryError
from tests.image.gateway.conftest import StartEngine, StartGateway, until

REQUEST_TIMEOUT = 0.6
HOLD_TIMEOUT = 0.5
# Beyond its deadline by so much, and something hangs. A busy machine is slow, too.
GRACE = 3.0


async def hang(request: Request, line: Line) -> None:
    await line.gone()


async def hang_within_a_stream(request: Request, line: Line) -> None:
    line.head(content_type="text/event-stream")
    line.chunk(EVENTS[0])
    await line.gone()


async def one_byte_at_a_time(request: Request, line: Line) -> None:
    """A head, then a byte now and then: alive, and of no use."""
    line.head(content_type="text/event-stream")
    for byte in EVENTS[0] * 100:
        line.chunk(bytes([byte]))
        await line.writer.drain()
        await asyncio.sleep(0.05)


async def one_byte_of_a_head_at_a_time(request: Request, line: Line) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" * 100:
        line.write(bytes([byte]))
        await line.writer.drain()
        await asyncio.sleep(0.05)


async def head_without_an_end(request: Request, line: Line) -> None:
    line.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        line.write(b"x-more: " + b"y" * 1000 + b"\r\n")
        await line.writer.drain()


async def reset_within_an_answer(request: Request, line: Line) -> None:
    line.head(length=1000)
    line.write(b'{"id":')
    await line.writer.drain()
    line.reset()
    await line.gone()


async def wrong_content_type(request: Request, line: Line) -> None:
    line.head(200, "text/html", length=6)
    line.write(b"<html>")


async def overloaded(request: Request, line: Line) -> None:
    line.reply({"error": {"message": "queue full", "type": "x", "param": None, "code": 503}}, 503)


async def two_lengths(request: Request, line: Line) -> None:
    line.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef")


async def more_than_it_said(request: Request, line: Line) -> None:
    line.head(length=2)
    line.write(b"{}HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad")


async def switching_protocols(request: Request, line: Line) -> None:
    line.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
    await line.gone()


@dataclass
class Row:
    """What happens at the engine, and what comes of it."""

    behaviour: Behaviour
    status: int  # of a plain request
    stream_status: int  # of a stream; the log's, where the client has been sent 200 already
    code: str | None  # of the error, in the answer or as the stream's last event
    deadline: float = GRACE
    metric: str | None = None
    says: bytes = field(default=b"")


PROTOCOL = 'gateway_upstream_errors_total{kind="protocol"}'
RESET = 'gateway_upstream_errors_total{kind="reset"}'
SERVER_ERROR = 'gateway_upstream_errors_total{kind="status_5xx"}'
TIMEOUT = 'gateway_refusals_total{reason="request_timeout"}'
ROWS = [
    Row(fake_engine.reset, 502, 502, "engine_failed", metric=RESET),
    Row(reset_within_an_answer, 502, 502, "engine_failed", metric=RESET),
    Row(fake_engine.close_within_an_answer, 502, 502, "engine_failed", metric=RESET),
    Row(fake_engine.reset_within_a_stream, 502, 502, "engine_failed", metric=RESET),
    Row(fake_engine.break_the_chunking, 502, 502, "engine_failed", metric=PROTOCOL),
    Row(fake_engine.answer_nonsense, 502, 502, "engine_failed", metric=PROTOCOL),
    Row(head_without_an_end, 502, 502, "engine_failed", metric=PROTOCOL),
    Row(two_lengths, 502, 502, "engine_failed", metric=PROTOCOL),
    Row(hang, 504, 504, "request_timeout", REQUEST_TIMEOUT + GRACE, TIMEOUT),
    Row(hang_within_a_stream, 504, 504, "request_timeout", REQUEST_TIMEOUT + GRACE, TIMEOUT),
    Row(one_byte_at_a_time, 504, 504, "request_timeout", REQUEST_TIMEOUT + GRACE, TIMEOUT),
    Row(one_byte_of_a_head_at_a_time, 504, 504, "request_timeout", REQUEST_TIMEOUT + GRACE, TIMEOUT),
    Row(switching_protocols, 502, 502, "engine_failed", metric=PROTOCOL),
    Row(fake_engine.fail, 500, 500, None, metric=SERVER_ERROR, says=b"oops\n"),
    Row(overloaded, 503, 503, None, metric=SERVER_ERROR, says=b"queue full"),
    Row(fake_engine.refuse, 400, 400, None, says=b"max_tokens is too large"),
    Row(wrong_content_type, 200, 200, None, says=b"<html>"),
    Row(more_than_it_said, 200, 200, None, says=b"{}"),
    Row(fake_engine.answer_until_close, 200, 200, None, says=b"all of it"),
    Row(fake_engine.answer_at_length, 200, 200, None, says=b"\xff" * 10_000),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.behaviour.__name__)
async def test_an_engine_that_fails(start_engine: StartEngine, start_gateway: StartGateway, row: Row) -> None:
    engine = await start_engine(row.behaviour)
    engine.go_on.set()
    gateway = await start_gateway(engine, request_timeout_seconds=REQUEST_TIMEOUT)
    for stream in (False, True):
        await gateway.ready()
        began = time.monotonic()
        response = await gateway.chat(stream=stream)
        assert time.monotonic() - began < row.deadline
        expected = row.stream_status if stream else row.status
        await until(lambda: len(gateway.log()) == 1 + stream)  # noqa: B023 - awaited at once
        assert gateway.log()[-1]["status"] == expected
        assert response.status_code in (expected, 200)
        if row.code is not None:
            body = response.content
            if response.status_code == 200:
                body = body.rpartition(b"data: ")[2]
            assert json.loads(body)["error"]["code"] == row.code
        assert row.says in response.content
    if row.metric is not None:
        assert await gateway.metric(row.metric) == 2
    assert gateway.service.admission.demand == 0
    engine.behaviour = fake_engine.answer
    await gateway.ready()
    assert (await gateway.chat()).status_code == 200, "the gateway goes on"


class Names:
    """DNS, as told."""

    def __init__(self, *engines: fake_engine.FakeEngine) -> None:
        self.answer: frozenset[Address] | None = frozenset(("127.0.0.1", engine.port) for engine in engines)

    async def addresses(self) -> frozenset[Address]:
        if self.answer is None:
            raise DiscoveryError("server failure")
        return self.answer


async def refused(gateway: Any) -> None:
    began = time.monotonic()
    response = await gateway.chat()
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "not_ready"
    assert int(response.headers["retry-after"]) > 0
    assert HOLD_TIMEOUT <= time.monotonic() - began < HOLD_TIMEOUT + GRACE


async def test_where_nothing_listens_a_request_waits_until_its_deadline(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, hold_timeout_nonstream_seconds=HOLD_TIMEOUT)
    await engine.stop()
    await refused(gateway)
    assert await gateway.metric('gateway_refusals_total{reason="not_ready"}') == 1


async def test_a_name_that_changes_or_vanishes_or_fails(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    old, new = await start_engine(), await start_engine()
    names = Names(old)
    gateway = await start_gateway(discovery=names, ready=1, hold_timeout_nonstream_seconds=HOLD_TIMEOUT)
    names.answer = None
    await until(lambda: bool(gateway.log("discovery_failed")))
    assert (await gateway.chat()).status_code == 200, "what was known stays"
    names.answer = frozenset({("127.0.0.1", new.port)})
    await until(lambda: [r.pool.address[1] for r in gateway.service.fleet.rotation] == [new.port])
    assert (await gateway.chat()).status_code == 200
    assert (len(old.requests), len(new.requests)) == (1, 1)
    names.answer = frozenset()
    await until(lambda: not gateway.service.fleet.rotation)
    await refused(gateway)


async def test_a_client_that_leaves_while_the_gateway_connects(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, probe_seconds=60)
    (replica,) = gateway.service.fleet.rotation
    connecting = asyncio.Event()

    async def never() -> Any:
        connecting.set()
        await asyncio.Event().wait()

    replica.pool.connect = never  # type: ignore[method-assign]
    request = asyncio.create_task(gateway.chat())
    await connecting.wait()
    request.cancel()
    await until(lambda: gateway.service.admission.demand == 0, 1)
    assert await gateway.metric('gateway_cancellations_total{stage="connecting"}') == 1
