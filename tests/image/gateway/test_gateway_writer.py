"""Writing answers: in as few packets as possible, framed for the client's HTTP version, with backpressure."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from fakes import fake_engine
from fakes.fake_engine import COMPLETION, EVENTS, MODEL, Line, Request
from tests.image.gateway.conftest import KEY, StartEngine, StartGateway, until


def request(stream: bool, version: str = "1.1", extra: str = "") -> bytes:
    body = json.dumps({"model": MODEL, "prompt": "Hi", "stream": stream}).encode()
    head = (
        f"POST /v1/completions HTTP/{version}\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\n{extra}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def test_a_whole_answer_is_one_packet(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine())
    reads: list[bytes] = []

    class Client(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            reads.append(data)

    made, _ = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", gateway.port)
    transport: Any = made  # uvloop's is no subclass
    for count in (1, 2, 3):
        transport.write(request(False))
        await until(lambda count=count: len(gateway.log()) == count and len(reads) >= count)  # type: ignore[misc]
    transport.close()
    assert [read.endswith(json.dumps(COMPLETION).encode()) for read in reads] == [True] * 3


@pytest.mark.parametrize("stream", [True, False])
async def test_http_1_0_knows_no_chunks(start_engine: StartEngine, start_gateway: StartGateway, stream: bool) -> None:
    gateway = await start_gateway(await start_engine())
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request(stream, "1.0"))
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == (b"".join(EVENTS) if stream else json.dumps(COMPLETION).encode())


async def test_the_head_of_a_stream_does_not_wait_for_its_first_event(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def late(asked: Request, line: Line) -> None:
        line.head(content_type="text/event-stream")
        await line.writer.drain()
        await line.engine.go_on.wait()
        line.chunk(EVENTS[-1])
        line.end()

    engine = await start_engine(late)
    gateway = await start_gateway(engine)
    async with gateway.stream() as response:  # returns with the head
        assert response.status_code == 200
        engine.go_on.set()
        assert await response.aread() == EVENTS[-1]


async def test_a_client_that_pauses_gets_every_byte_when_it_reads_on(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    blocks = 400
    size = 20 * len(EVENTS[0])

    async def much(asked: Request, line: Line) -> None:
        line.head(content_type="text/event-stream")
        for _ in range(blocks):
            line.chunk(EVENTS[0] * 20)
            await line.writer.drain()
        line.engine.reached.set()
        line.end()

    engine = await start_engine(much)
    gateway = await start_gateway(engine)
    for wait in (0.0, 0.05):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
        writer.write(request(True, "1.0"))
        async with asyncio.timeout(10):
            await reader.readuntil(b"\r\n\r\n")
            received = 0
            while part := await reader.read(size * 10):
                received += len(part)
                await asyncio.sleep(wait if received < size * 100 else 0)
        writer.close()
        assert received == size * blocks


async def test_a_trailer_of_the_engines_is_no_header(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def with_a_trailer(asked: Request, line: Line) -> None:
        line.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            b"2\r\n{}\r\n0\r\nx-trailer: 1\r\nset-cookie: a=b\r\n\r\n"
        )

    gateway = await start_gateway(await start_engine(with_a_trailer))
    response = await gateway.chat()
    assert response.content == b"{}"
    assert not {"x-trailer", "set-cookie"} & response.headers.keys()


async def test_a_head_request_has_no_body(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine())
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"HEAD /health HTTP/1.1\r\nhost: x\r\n\r\n" + request(False, extra="connection: close\r\n"))
    async with asyncio.timeout(5):
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b"content-length: 15" in head
    assert rest.startswith(b"HTTP/1.1 200 OK")
    assert rest.endswith(json.dumps(COMPLETION).encode())


async def test_what_is_no_text_cannot_end_the_log(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine(fake_engine.answer))
    gateway.service.telemetry.event("odd", name="\ud800", count=2**70)
    assert gateway.log("odd")[0]["count"] == 2**70


async def test_a_request_is_freed_when_it_is_over(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    """Not when the garbage collector comes by: until then it would keep its body, and then stop everybody."""
    gateway = await start_gateway(await start_engine(), probe_seconds=60)
    await gateway.chat()
    gc.collect()
    gc.disable()
    try:
        for number in range(10):
            assert (await gateway.chat(stream=number % 2 == 0)).status_code == 200
        await until(lambda: not gateway.service.app.active)
        kept = sum(isinstance(thing, RequestResponseCycle) for thing in gc.get_objects())
    finally:
        gc.enable()
    assert kept <= 2, "the last one of each connection"
