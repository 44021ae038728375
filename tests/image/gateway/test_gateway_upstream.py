"""Connections to replicas: when they are reused, and how much of an invalid answer is read."""

from __future__ import annotations

import asyncio
import json

import pytest

from fakes.fake_engine import COMPLETION, EVENTS, Line, Request
from tests.image.gateway.conftest import StartEngine, StartGateway

ANSWER = json.dumps(COMPLETION).encode()
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
CHUNKS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (
        len(ANSWER),
        ANSWER,
    )
)
SURPLUS = [
    b"H",
    b"\r\n",
    b"HTTP/1.1 200 OK\r\nconte",
    b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\nevil",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"0\r\n\r\n",
    b"\0",
    ANSWER,
]


@pytest.mark.parametrize("answer", [LENGTH, CHUNKS], ids=["length", "chunks"])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("surplus", SURPLUS)
async def test_a_connection_with_bytes_behind_an_answer_is_not_used_again(
    start_engine: StartEngine, start_gateway: StartGateway, answer: bytes, apart: bool, surplus: bytes
) -> None:
    connections = set()

    async def reply(request: Request, line: Line) -> None:
        connections.add(line.writer)
        if len(connections) > 1:
            line.write(answer)
        elif apart:
            line.write(answer)
            await line.writer.drain()
            line.write(surplus)
            await line.gone()
            line.engine.abandoned.set()
        else:
            line.write(answer + surplus)

    engine = await start_engine(reply)
    gateway = await start_gateway(engine)
    for count in (1, 2, 2):
        response = await gateway.chat()
        assert (response.status_code, response.content) == (200, ANSWER)
        assert len(connections) == count
        if apart:
            await asyncio.wait_for(engine.abandoned.wait(), 5)


@pytest.mark.parametrize("answer", [LENGTH, CHUNKS], ids=["length", "chunks"])
async def test_a_connection_is_used_again_after_a_clean_answer(
    start_engine: StartEngine, start_gateway: StartGateway, answer: bytes
) -> None:
    connections = set()

    async def reply(request: Request, line: Line) -> None:
        connections.add(line.writer)
        line.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer)

    gateway = await start_gateway(await start_engine(reply))
    for _ in range(4):
        assert (await gateway.chat()).content == ANSWER
    assert len(connections) == 1


@pytest.mark.parametrize("part", [b"a: b\r\n" * 1000, b"a" * 8192])
@pytest.mark.parametrize(
    "beginning",
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;",
    ],
    ids=["head", "trailers", "extension"],
)
async def test_what_an_engine_sends_beside_its_answer_is_bounded(
    start_engine: StartEngine, start_gateway: StartGateway, beginning: bytes, part: bytes
) -> None:
    sent = 0

    async def reply(request: Request, line: Line) -> None:
        nonlocal sent
        line.write(beginning)
        while True:
            line.write(part)
            sent += len(part)
            await line.writer.drain()

    gateway = await start_gateway(await start_engine(reply))
    response = await gateway.chat()
    assert response.status_code == 502
    assert sent < 8 << 20


@pytest.mark.parametrize(
    "content_type", ["Text/Event-Stream", "TEXT/EVENT-STREAM;charset=utf-8", "text/event-stream ; x"]
)
async def test_an_event_stream_is_one_in_any_case(
    start_engine: StartEngine, start_gateway: StartGateway, content_type: str
) -> None:
    async def reply(request: Request, line: Line) -> None:
        line.head(content_type=content_type)
        line.chunk(EVENTS[0])
        await line.engine.go_on.wait()
        line.end()

    engine = await start_engine(reply)
    gateway = await start_gateway(engine)
    async with gateway.stream() as response:
        async for data in response.aiter_bytes():
            assert data == EVENTS[0]
            engine.go_on.set()  # which is not before the event has come
    assert engine.go_on.is_set()
