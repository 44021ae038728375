"""Comments keep an idle event stream alive from beginning to end, and never break an event or another answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fakes import fake_engine
from fakes.fake_engine import EVENTS, MODEL, Behaviour, Line, Request
from image.gateway.comments import COMMENT
from tests.image.gateway.conftest import KEY, StartEngine, StartGateway, until

SECONDS = 0.05
LONG = b"data: " + b"x" * (300 << 10)


def silent(*parts: bytes | None) -> Behaviour:
    """A stream of these parts; at None the engine is silent until `go_on` is set, which clears it again."""

    async def behave(request: Request, line: Line) -> None:
        headed = False
        for part in parts:
            if part is None:
                line.engine.reached.set()
                await line.engine.go_on.wait()
                line.engine.go_on.clear()
                continue
            if not headed:
                line.head(content_type="text/event-stream; charset=utf-8")
                headed = True
            if part:
                line.chunk(part)
        line.end()

    return behave


async def comments(parts: AsyncIterator[bytes], count: int, *, strict: bool = True) -> bytes:
    """What comes until so many comments have; with `strict` nothing but comments comes between the first and the last."""
    came = b""
    while came.count(COMMENT) < count:
        came += await anext(parts)
    if strict:
        assert came.endswith(COMMENT * count)
    return came


# The whole is EVENTS in every case. b"" sends the head alone.
SILENCES: dict[str, tuple[bytes | None, ...]] = {
    "before the head": (None, *EVENTS),
    "before the first event": (b"", None, *EVENTS),
    "between two events": (EVENTS[0], None, *EVENTS[1:]),
    "before the end": (*EVENTS, None),
    "within an event that is held back": (EVENTS[0], EVENTS[1][:10], None, EVENTS[1][10:], *EVENTS[2:]),
    "within the first event": (EVENTS[0][:3], None, EVENTS[0][3:], *EVENTS[1:]),
    "within an event's end": (EVENTS[0][:-1], None, EVENTS[0][-1:], *EVENTS[1:]),
    "several times": (None, b"", None, EVENTS[0], None, EVENTS[1], None, *EVENTS[2:], None),
}


@pytest.mark.parametrize("parts", SILENCES.values(), ids=SILENCES.keys())
async def test_a_silent_stream_is_kept_alive(
    start_engine: StartEngine, start_gateway: StartGateway, parts: tuple[bytes | None, ...]
) -> None:
    engine = await start_engine(silent(*parts))
    gateway = await start_gateway(engine, sse_comment_seconds=SECONDS)
    came = b""
    async with gateway.stream() as response:
        stream = response.aiter_raw()
        for _ in range(parts.count(None)):
            came += await comments(stream, 3)
            engine.go_on.set()
        came += b"".join([part async for part in stream])
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert came.replace(COMMENT, b"") == b"".join(EVENTS)
    for before in came.split(COMMENT)[:-1]:
        assert before.endswith(b"\n\n") or not before, "inside an event"
    await until(lambda: bool(gateway.log()))
    assert (gateway.log()[0]["tokens_in"], gateway.log()[0]["tokens_out"], gateway.log()[0]["error"]) == (7, 2, None)


async def test_no_comment_comes_where_an_event_is_half_out(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """An event too large to be held back goes out in parts; a comment in it would become part of its data."""
    engine = await start_engine(silent(LONG, None, LONG, b"\n\n", None, *EVENTS))
    gateway = await start_gateway(engine, sse_comment_seconds=SECONDS)
    came = b""
    async with gateway.stream() as response:
        stream = response.aiter_raw()
        rest = asyncio.create_task(anext(stream))
        while (await asyncio.wait([rest], timeout=6 * SECONDS))[0]:
            came += rest.result()
            rest = asyncio.create_task(anext(stream))
        assert came
        assert COMMENT not in came
        engine.go_on.set()
        came += await rest
        came += await comments(stream, 2)
        engine.go_on.set()
        came += b"".join([part async for part in stream])
    assert came.replace(COMMENT, b"") == LONG * 2 + b"\n\n" + b"".join(EVENTS)
    assert came.startswith(LONG * 2 + b"\n\n")


async def wait_then(behaviour: Behaviour, request: Request, line: Line) -> None:
    line.engine.reached.set()
    await line.engine.go_on.wait()
    await behaviour(request, line)


async def head_then_wait(request: Request, line: Line) -> None:
    """A refusal whose body is slow."""
    body = b'{"error":{"message":"no"}}'
    line.head(400, length=len(body))
    line.engine.reached.set()
    await line.engine.go_on.wait()
    line.write(body)


@pytest.mark.parametrize(
    ("behaviour", "body", "status"),
    [
        (lambda *a: wait_then(fake_engine.answer, *a), {"stream": False}, 200),
        (lambda *a: wait_then(fake_engine.refuse, *a), {"stream": False}, 400),
        (lambda *a: wait_then(fake_engine.answer, *a), {"path": "/v1/embeddings", "input": "x"}, 200),
        (head_then_wait, {"stream": True}, 400),
    ],
)
async def test_what_is_no_event_stream_gets_no_comment(
    start_engine: StartEngine,
    start_gateway: StartGateway,
    behaviour: Callable[..., Any],
    body: dict[str, Any],
    status: int,
) -> None:
    engine = await start_engine(behaviour)
    gateway = await start_gateway(engine, sse_comment_seconds=SECONDS)
    request = asyncio.create_task(gateway.chat(**body))
    await engine.reached.wait()
    assert not (await asyncio.wait([request], timeout=6 * SECONDS))[0]
    engine.go_on.set()
    response = await request
    assert response.status_code == status
    assert COMMENT not in response.content


async def test_a_stream_that_nobody_asked_for_is_kept_alive_too(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """Whether an answer is a stream, its engine says."""
    engine = await start_engine(silent(EVENTS[0], None, *EVENTS[1:]))
    gateway = await start_gateway(engine, sse_comment_seconds=SECONDS)
    async with gateway.stream(stream=False) as response:
        stream = response.aiter_raw()
        came = await comments(stream, 2)
        engine.go_on.set()
        came += b"".join([part async for part in stream])
    assert came.replace(COMMENT, b"") == b"".join(EVENTS)


async def test_nothing_follows_the_end_of_a_stream(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine(), sse_comment_seconds=0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = b'{"model":"%b","stream":true}' % MODEL.encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    writer.write(head.encode() + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await reader.readuntil(b"\r\n0\r\n\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    writer.close()
    await writer.wait_closed()


async def test_an_engine_that_dies_in_a_silence_ends_the_stream_with_an_error(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(fake_engine.reset_within_a_stream)
    gateway = await start_gateway(engine, sse_comment_seconds=SECONDS)
    async with gateway.stream() as response:
        stream = response.aiter_raw()
        came = await comments(stream, 2)
        engine.go_on.set()
        came += b"".join([part async for part in stream])
    events = came.replace(COMMENT, b"").split(b"\n\n")
    assert events[0] + b"\n\n" == EVENTS[0]
    assert b"engine_failed" in events[1]
    assert events[2:] == [b""]
