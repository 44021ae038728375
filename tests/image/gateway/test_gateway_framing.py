"""Where a request ends: by its own head and nothing else, however it is framed, cut into packets, and whatever it asks for."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator

import pytest

from image.gateway.edge import EdgeProtocol
from image.gateway.settings import InlineKeys
from tests.image.gateway import fake_engine
from tests.image.gateway.conftest import KEY, Gateway, StartEngine, StartGateway, until
from tests.image.gateway.fake_engine import MODEL, Line, Request

AUTHORIZED = f"host: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
GOOD = json.dumps({"model": MODEL, "prompt": "Hi"}).encode()
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
# Those that llhttp knows.
METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "PATCH",
    "COPY",
    "LOCK",
    "MKCOL",
    "MOVE",
    "PROPFIND",
    "PROPPATCH",
    "SEARCH",
    "UNLOCK",
    "BIND",
    "REBIND",
    "UNBIND",
    "ACL",
    "REPORT",
    "MKACTIVITY",
    "CHECKOUT",
    "MERGE",
    "M-SEARCH",
    "NOTIFY",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "PURGE",
    "MKCALENDAR",
    "LINK",
    "UNLINK",
    "QUERY",
]
UPGRADES = (
    "connection: upgrade\r\nupgrade: foo\r\n",
    "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n",
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    "upgrade: TLS/1.2, HTTP/1.1\r\nconnection: keep-alive\r\nconnection: upgrade\r\n",
)


def framed(body: bytes, how: str, trailers: bytes = b"") -> tuple[str, bytes]:
    """The header that frames a body, and the body as it is sent."""
    if how == "length":
        return f"content-length: {len(body)}\r\n", body
    half = len(body) // 2
    parts = (body[:half], body[half:]) if half else (body,)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
    return "transfer-encoding: chunked\r\n", chunks + b"0\r\n" + trailers + b"\r\n"


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[bytes], Iterator[bytes]]], None]:
    """Has every read of the gateway's arrive in pieces."""
    received = EdgeProtocol.data_received

    def into(pieces: Callable[[bytes], Iterator[bytes]]) -> None:
        def cut_up(self: EdgeProtocol, data: bytes) -> None:
            for piece in pieces(data):
                received(self, piece)

        monkeypatch.setattr(EdgeProtocol, "data_received", cut_up)

    return into


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


async def answers(port: int, *parts: bytes, wait_between: bool = False) -> list[tuple[int, bytes]]:
    """Status and body of each answer, of requests whose answers have a length; the last one closes the connection. With
    `wait_between` each part is sent when the one before has been answered.
    """
    found = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    left = list(parts)
    if not wait_between:
        left = [b"".join(parts)]
    writer.write(left.pop(0))
    async with asyncio.timeout(10):
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as end:
                assert end.partial == b""
                break
            if head.startswith(b"HTTP/1.1 100 "):
                continue
            length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
            body = b"" if b"bodiless" in head else await reader.readexactly(length)
            found.append((int(head.split(b" ")[1]), body))
            if left:
                writer.write(left.pop(0))
    writer.close()
    assert not left
    return found


def asked_for(found: list[tuple[int, bytes]]) -> list[bytes]:
    """The paths that answers name, all of which are unknown."""
    return [path for _, body in found for path in re.findall(rb"Unknown path '/(\w+)'", body)]


@pytest.mark.parametrize("how", ["length", "chunks"])
@pytest.mark.parametrize("arrival", ["together", "byte by byte", "body after the answer"])
async def test_an_upgrade_does_not_change_where_a_request_ends(
    start_engine: StartEngine,
    start_gateway: StartGateway,
    cut: Callable[[Callable[[bytes], Iterator[bytes]]], None],
    how: str,
    arrival: str,
) -> None:
    gateway = await start_gateway(await start_engine())
    if arrival == "byte by byte":
        cut(byte_by_byte)
    header, body = framed(SMUGGLED, how)
    for method, upgrade in itertools.product(METHODS, UPGRADES):
        head = f"{method} /first HTTP/1.1\r\nhost: x\r\n{upgrade}{header}\r\n".encode()
        if method == "HEAD":
            head = head.replace(b"HEAD", b"GET")  # whose answers can be read; the parser is the same
        found = await answers(gateway.port, head, body + LAST, wait_between=arrival == "body after the answer")
        # A chunked body that comes after its answer is not waited for: the connection ends.
        both = how == "length" or arrival != "body after the answer"
        assert asked_for(found) == [b"first", b"last"][: 1 + both], (method, upgrade)


@pytest.mark.parametrize("how", ["length", "chunks"])
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("upgrade", UPGRADES)
async def test_a_request_that_offers_an_upgrade_is_answered(
    start_engine: StartEngine, start_gateway: StartGateway, how: str, later: bool, upgrade: str
) -> None:
    """JDK's HttpClient offers h2c with every request, curl with --http2."""
    engine = await start_engine()
    gateway = await start_gateway(engine)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    header, body = framed(GOOD, how)
    for _ in range(2):
        writer.write(f"POST /v1/completions HTTP/1.1\r\n{AUTHORIZED}{upgrade}{header}\r\n".encode())
        if later:
            await until(lambda: bool(gateway.service.app.active))
        writer.write(body)
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readexactly(len(json.dumps(fake_engine.COMPLETION)))
    writer.close()
    assert [request.body for request in engine.requests] == [GOOD, GOOD]
    for request in engine.requests:
        assert not {"upgrade", "http2-settings", "transfer-encoding"} & request.headers.keys()


# As sent by OpenJDK 17.0.15 with HttpClient.newHttpClient(), and by curl 7.88.1 with --http2.
CLIENTS = {
    "JDK": "Connection: Upgrade, HTTP2-Settings\r\nContent-Length: {length}\r\nHost: 127.0.0.1:8080\r\n"
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\nUser-Agent: Java-http-client/17.0.15\r\n"
    "Authorization: Bearer {key}\r\nContent-Type: application/json\r\n\r\n",
    "curl": "Host: 127.0.0.1:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nAuthorization: Bearer {key}\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("later", [False, True])
async def test_clients_that_offer_h2c_by_default(
    start_engine: StartEngine, start_gateway: StartGateway, client: str, later: bool
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = CLIENTS[client].format(length=len(GOOD), key=KEY)
    writer.write(b"POST /v1/completions HTTP/1.1\r\n" + head.encode())
    if later:
        await until(lambda: bool(gateway.service.app.active))
    writer.write(GOOD)
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert [request.body for request in engine.requests] == [GOOD]


async def test_a_tunnel_or_http_2_ends_the_connection(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine())
    for request in (
        b"CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\ncontent-length: 5\r\n\r\n",
        b"CONNECT /first HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        found = await answers(gateway.port, request + SMUGGLED)
        assert [status for status, _ in found] == [400], request


async def test_trailers_are_no_headers(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, keys=InlineKeys(f"alice={KEY}"))
    trailers = (
        f"authorization: Bearer {KEY}\r\nx-forwarded-for: 6.6.6.6\r\ntraceparent: evil\r\ncontent-type: text/plain\r\n"
        "x-request-id: evil\r\ncontent-encoding: gzip\r\nhost: evil\r\ncontent-length: 3\r\ntransfer-encoding: gzip\r\n"
        "connection: close\r\nexpect: 100-continue\r\nx-injected: 1\r\n"
    ).encode()
    header, body = framed(GOOD, "chunks", trailers)
    unauthorized = AUTHORIZED.replace(KEY, "wrong")
    found = await answers(
        gateway.port, f"POST /v1/completions HTTP/1.1\r\n{unauthorized}{header}\r\n".encode() + body + LAST
    )
    assert [status for status, _ in found] == [401, 404]
    assert engine.requests == []
    found = await answers(
        gateway.port, f"POST /v1/completions HTTP/1.1\r\n{AUTHORIZED}{header}\r\n".encode() + body + LAST
    )
    assert [status for status, _ in found] == [200, 404]
    assert engine.requests[0].body == GOOD
    assert "evil" not in str(engine.requests[0].headers)
    assert not {"x-injected", "traceparent", "content-encoding"} & engine.requests[0].headers.keys()


@pytest.mark.parametrize("seed", range(20))
async def test_however_a_stream_of_requests_is_cut_each_is_answered_once(
    start_engine: StartEngine,
    start_gateway: StartGateway,
    cut: Callable[[Callable[[bytes], Iterator[bytes]]], None],
    seed: int,
) -> None:
    chance = random.Random(seed)  # noqa: S311

    def pieces(data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            end = at + chance.choice((1, 2, 3, 10, 100, 1000, 100_000))
            yield data[at:end]
            at = end

    async def echo(request: Request, line: Line) -> None:
        line.reply(request.json)

    engine = await start_engine(echo)
    gateway = await start_gateway(engine)
    cut(pieces)
    requests, expected = [], []
    for number in range(60):
        size = chance.choice((0, 10, 1000, 70_000))
        body = json.dumps({"model": MODEL, "n": number, "pad": "\r\n0\r\n\r\n" * (size // 7)}).encode()
        trailers = chance.choice((b"", b"a: b\r\n", b"a: b\r\nc:\r\n"))
        header, sent = framed(body, chance.choice(("length", "chunks")), trailers)
        extra = chance.choice(("", "expect: 100-continue\r\n", "connection: keep-alive\r\n", *UPGRADES))
        requests.append(f"POST /v1/completions HTTP/1.1\r\n{AUTHORIZED}{extra}{header}\r\n".encode() + sent)
        requests.append(chance.choice((b"", b"\r\n", SMUGGLED.replace(b"smuggled", b"%d" % number))))
        expected.append(number)
        if requests[-1].startswith(b"GET"):
            expected.append(number)
    found = await answers(gateway.port, *requests, LAST)
    numbers = [
        json.loads(body)["n"] if status == 200 else int(re.search(rb"'/(\w+)'", body)[1])  # type: ignore[index]
        for status, body in found[:-1]
    ]
    assert numbers == expected
    assert asked_for(found[-1:]) == [b"last"]


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


async def test_the_metrics_port_is_as_strict(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine())
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.metrics_port)
    header, body = framed(SMUGGLED, "length")
    writer.write(f"POST /first HTTP/1.1\r\nhost: x\r\n{UPGRADES[0]}{header}\r\n".encode() + body + LAST)
    async with asyncio.timeout(5):
        found = await reader.read()
    writer.close()
    assert re.findall(rb"HTTP/1.1 (\d+)", found) == [b"404", b"404"]
    assert len(re.findall(rb"(?im)^date: ", found)) == 2
