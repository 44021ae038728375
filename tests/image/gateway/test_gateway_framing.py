"""Message framing depends only on a request's own headers, for any framing, packet boundaries and content."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator

import pytest

from fakes import fake_engine
from fakes.fake_engine import MODEL, Line, Request
from image.gateway.backends import InlineKeys
from image.gateway.edge import EdgeProtocol
from tests.image.gateway.conftest import KEY, StartEngine, StartGateway, until

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
