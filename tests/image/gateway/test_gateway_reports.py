"""Bugs that users reported for other gateways, routers and SDKs, tested here."""

from __future__ import annotations

import asyncio
import codecs
import gzip
import json
from typing import Any

import pytest

from fakes.fake_engine import EVENTS, MODEL, Behaviour, Line, Request, answer, say_nothing
from image.gateway.errors import ApiError
from image.gateway.form import fields
from tests.image.gateway.conftest import KEY, StartEngine, StartGateway, until

GOOD = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


def each_in_turn(*parts: bytes) -> Behaviour:
    """A stream of these parts, each when `go_on` is set again."""

    async def behave(request: Request, line: Line) -> None:
        line.head(content_type="text/event-stream")
        for part in parts:
            line.chunk(part)
            await line.writer.drain()
            await line.engine.go_on.wait()
            line.engine.go_on.clear()
        line.end()

    return behave


# Event streams


def events_of_a_splitter(stream: bytes) -> list[Any]:
    """As many browser programs read a stream: split at empty lines, and only what begins with `data: ` counts."""
    blocks = [block.removeprefix(b"data: ") for block in stream.split(b"\n\n") if block.startswith(b"data: ")]
    return [None if block == b"[DONE]" else json.loads(block) for block in blocks]


async def test_a_comment_is_a_block_of_its_own(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(each_in_turn(*EVENTS))
    gateway = await start_gateway(engine, sse_comment_seconds=0.02)
    came = b""
    async with gateway.stream() as response:
        stream = response.aiter_raw()
        for expected in EVENTS:
            while not (expected in came and came[came.rindex(expected) :].count(b"\n:")):
                came += await anext(stream)
            engine.go_on.set()
        came += b"".join([part async for part in stream])
    assert came.count(b": waiting") >= len(EVENTS)
    assert len(events_of_a_splitter(came)) == len(EVENTS)
    assert all(b": " in line for line in came.splitlines() if line), "some parsers expect 'key: value' in every line"


@pytest.mark.parametrize(
    ("newline", "end"),
    [(b"\n", b"\n"), (b"\r\n", b"\r\n"), (b"\r", b"\r"), (b"\n", b"\r\n"), (b"\r\n", b"\n")],
    ids=["LF", "CRLF", "CR", "LF and CRLF", "CRLF and LF"],
)
@pytest.mark.parametrize("space", [b" ", b""], ids=["space", "no space"])
async def test_an_event_is_sent_on_at_once_however_its_lines_end(
    start_engine: StartEngine, start_gateway: StartGateway, newline: bytes, end: bytes, space: bytes
) -> None:
    spelt = [event[:-2].replace(b"data: ", b"data:" + space) + newline + end for event in EVENTS]
    engine = await start_engine(each_in_turn(*spelt))
    gateway = await start_gateway(engine)
    came = b""
    async with gateway.stream() as response:
        stream = response.aiter_raw()
        for number in range(len(spelt)):
            while came != b"".join(spelt[: number + 1]):
                came += await asyncio.wait_for(anext(stream), 5)
            engine.go_on.set()
        assert b"".join([part async for part in stream]) == b""
    await until(lambda: bool(gateway.log()))
    assert (gateway.log()[0]["tokens_in"], gateway.log()[0]["tokens_out"]) == (7, 2)


async def test_an_event_of_any_size_and_cut_anywhere_comes_whole(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    large = b'data: {"reasoning":"%b"}\n\n' % ("日本😀" * 300_000).encode()  # over 3 MB, on one line
    small = b'data: {"text":"%b"}\n\n' % "日本😀".encode()

    async def cut(request: Request, line: Line) -> None:
        line.head(content_type="text/event-stream")
        for at in range(0, len(large), 65_537):  # within a character nearly every time
            line.chunk(large[at : at + 65_537])
            await line.writer.drain()
        for at in range(len(small)):
            line.chunk(small[at : at + 1])
            await line.writer.drain()
        line.end()

    gateway = await start_gateway(await start_engine(cut))
    async with gateway.stream() as response:
        assert await response.aread() == large + small


# Requests


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings"])
async def test_a_byte_order_mark_is_dropped(start_engine: StartEngine, start_gateway: StartGateway, path: str) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, max_tokens=9)
    sent = codecs.BOM_UTF8 + json.dumps(GOOD).encode()
    for body, coding in ((sent, ""), (gzip.compress(sent), "gzip")):
        headers = {"content-type": "application/json", "content-encoding": coding}
        response = await gateway.client.post(path, content=body, headers=headers)
        assert response.status_code == 200, response.text
    for request in engine.requests:
        assert request.body.startswith(b"{")
        assert {**GOOD, "max_tokens": 9}.items() >= request.json.items()
    response = await gateway.client.post(path, content=codecs.BOM_UTF8, headers={"content-type": "application/json"})
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/models", "/v1/models"),
        ("/api/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/messages/v1/messages", "/v1/messages"),
        ("/anthropic/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/models", "/v1/models"),
        ("/v1/health", "/health"),
        ("/v1/files", ""),
    ],
)
async def test_a_wrong_base_url_is_named(
    start_engine: StartEngine, start_gateway: StartGateway, asked: str, meant: str
) -> None:
    gateway = await start_gateway(await start_engine())
    response = await gateway.client.post(asked, json=GOOD)
    assert response.status_code == 404
    error = response.json()["error"]["message"]
    assert error.endswith(f"set the client's base URL so that it asks for {meant!r}." if meant else "for those served.")


# Connections


async def test_a_client_that_closes_its_sending_side_has_left(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """TCP does not tell it from one that is gone, and nginx in front does the same; what is answered at once still comes."""
    engine = await start_engine(say_nothing)
    gateway = await start_gateway(engine)
    for path in ("/health", "/v1/models"):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\r\n".encode())
        writer.write_eof()
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK"), path
        writer.close()
    body = json.dumps(GOOD)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    await engine.reached.wait()
    writer.write_eof()
    assert await reader.read() == b""
    await asyncio.wait_for(engine.abandoned.wait(), 1)
    await until(lambda: gateway.service.admission.running == 0)
    writer.close()


# Forms


def part(disposition: str, value: str = MODEL, before: str = "") -> bytes:
    head = f"{before}Content-Disposition: form-data; {disposition}\r\n"
    file = 'Content-Disposition: form-data; name=file; filename="a.wav"\r\nContent-Type: audio/wav\r\n'
    return f"--XX\r\n{head}\r\n{value}\r\n--XX\r\n{file}\r\nRIFF\r\n--XX--\r\n".encode()


@pytest.mark.parametrize(
    "body",
    [
        part('name="model"'),
        part("name=model"),  # .NET
        part("NAME = model"),
        part("name=model", before="Content-Type: text/plain; charset=utf-8\r\n"),
        part("filename*=utf-8''a%20b; name=model"),
        part('name="mo\\del"'),
        b"\r\n" + part("name=model"),
        part("name=model").removesuffix(b"\r\n"),
    ],
)
async def test_a_forms_model_is_found_however_its_client_spells_it(
    start_engine: StartEngine, start_gateway: StartGateway, body: bytes
) -> None:
    engine = await start_engine(answer)
    gateway = await start_gateway(engine)
    headers = {"content-type": "multipart/form-data; boundary=XX"}
    post = gateway.client.post
    assert (await post("/v1/audio/transcriptions", content=body, headers=headers)).status_code == 200
    assert engine.requests[0].body == body
    wrong = body.replace(MODEL.encode(), b"other")
    response = await post("/v1/audio/transcriptions", content=wrong, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert len(engine.requests) == 1


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (part("name=model; name=file"), b"multipart/form-data; boundary=XX", "several names"),
        (
            part("name=x\r\nContent-Disposition: form-data; name=model"),
            b"multipart/form-data; boundary=XX",
            "several names",
        ),
        (part("name=model"), b"multipart/form-data; boundary=XX; boundary=YY", "one boundary"),
        (part("name=model"), b"multipart/form-data; xboundary=XX", "one boundary"),
        (part("name=model"), b"multipart/form-data; boundary=" + b"X" * 71, "at most 70"),
        (b"preamble\r\n" + part("name=model"), b"multipart/form-data; boundary=XX", "begin with"),
    ],
)
def test_an_ambiguous_form_is_refused(body: bytes, content_type: bytes, message: str) -> None:
    with pytest.raises(ApiError, match=message) as raised:
        fields(body, content_type, (b"model",))
    assert raised.value.status == 400


@pytest.mark.parametrize(
    "disposition",
    ['filename="x; name=model"; name=file', 'filename="a\\"; name=\\"model"; name=z', "xname=model", 'name="model'],
)
def test_what_only_looks_like_a_name_is_none(disposition: str) -> None:
    assert fields(part(disposition), b"multipart/form-data; boundary=XX", (b"model",)) == {}


# Metrics


async def test_no_client_adds_a_time_series(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine())

    async def scan(number: int) -> int:
        client, bearer = gateway.client, {"authorization": f"Bearer k{number}"}
        await client.get(f"/files/{number}.php")
        await client.get(f"/v1/models/{number}")
        await client.get("/v1/models", headers=bearer | {"x-request-id": str(number), "user-agent": str(number)})
        await client.request(f"X{number}", "/v1/chat/completions")
        await gateway.chat(model=f"gpt-{number}")
        return (await client.get(f"http://127.0.0.1:{gateway.metrics_port}/metrics")).text.count("\n")

    first = await scan(0)
    assert [await scan(number) for number in range(1, 10)][-1] == first
