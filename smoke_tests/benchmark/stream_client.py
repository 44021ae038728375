"""A small HTTP/1.1 client that timestamps each part of a body on arrival.

An asyncio.Protocol around a parser in C: one connection, one request at a time. With all of the benchmark
around it, a request of 64 chunks costs 1.6 ms of CPU, half of vllm bench's and a twelfth of GuideLLM's
(docs/benchmarks/client), so that one core keeps up with any single replica.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import httptools

from infra.web_address import AddressError, WebAddress, basic, parse, proxy_for
from smoke_tests.errors import TargetError

HTTP_OK = 200


@dataclass
class Response:
    """The head of an answer, and `broken`: the reason if it is incomplete, else empty.

    `location` is where a redirect leads, `encoding` the Content-Encoding; both are empty if the head has none.
    """

    status: int = 0
    content_type: str = ""
    location: str = ""
    encoding: str = ""
    broken: str = ""


class Connection(asyncio.Protocol):
    """One kept-alive connection. Use `Endpoint.connect` to get one."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._response = Response()
        self._on_body: Callable[[bytes, float], object] | None = None
        self._finished: asyncio.Future[None] | None = None
        self._now = 0.0
        self.requests = 0

    @property
    def usable(self) -> bool:
        """Whether another request can be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    async def request(self, message: bytes, on_body: Callable[[bytes, float], object]) -> Response:
        """Send a whole request and return when the answer has ended.

        `on_body` is called with each piece of the body and the `time.perf_counter()` of its arrival.
        """
        assert self._transport is not None
        self._response, self._on_body = Response(), on_body
        self._parser = httptools.HttpResponseParser(self)
        self._finished = asyncio.get_running_loop().create_future()
        self.requests += 1
        self._transport.write(message)
        await self._finished
        return self._response

    def close(self) -> None:
        """Close it immediately, even during a request."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self._now = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._finish(f"bad HTTP: {error}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._finish(f"connection lost: {exc}" if exc else "connection closed by the server")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' callbacks."""
        text = value.decode("latin-1")
        match name.lower():
            case b"content-type":
                self._response.content_type = text.lower()
            case b"location":
                self._response.location = text
            case b"content-encoding":
                self._response.encoding = text

    def on_headers_complete(self) -> None:
        """Part of httptools' callbacks."""
        self._response.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Part of httptools' callbacks."""
        if self._on_body is not None:
            self._on_body(body, self._now)

    def on_message_complete(self) -> None:
        """Part of httptools' callbacks."""
        if self._response.status < HTTP_OK:  # 100 Continue, 103 Early Hints: the answer follows
            self._response = Response()
            return
        keep_alive = self._parser.should_keep_alive()
        self._finish("")
        if not keep_alive:
            self.close()

    def _finish(self, broken: str) -> None:
        if self._finished is not None and not self._finished.done():
            self._response.broken = broken
            self._finished.set_result(None)


class Endpoint:
    """Where requests go: resolved once from a base URL, with the credentials in one prepared head.

    An endpoint on this machine is reached directly, another one through the proxy that the environment names for it.
    Raises TargetError if that proxy cannot be used. `proxy` is its URL, without password; empty if no proxy is used.
    """

    def __init__(self, base_url: str, api_key: str | None, user: str = "") -> None:
        try:
            self._address = parse(base_url)
            self._proxy = proxy_for(self._address)
        except AddressError as error:
            raise TargetError(str(error)) from None
        if self._proxy is not None and self._proxy.secure:
            raise TargetError(f"cannot use the proxy {self._proxy.url}: the benchmark supports http:// proxies only")
        self._tls = ssl.create_default_context() if self._address.secure else None
        given = basic(user) if user else f"Bearer {api_key}" if api_key else ""
        authorization = f"Authorization: {given}\r\n" if given else ""
        self._prefix = self._address.path
        if self._proxy is not None and self._tls is None:
            self._prefix = self._address.url
            authorization += self._proxy_authorization
        self._head = (
            f"Host: {self._address.host_header}\r\n{authorization}Content-Type: application/json\r\n"
            "Accept: text/event-stream\r\nAccept-Encoding: identity\r\nUser-Agent: vllm-endpoint-benchmark\r\n"
        )

    @property
    def proxy(self) -> str:
        """The proxy's URL, without user name and password; empty without a proxy."""
        return self._proxy.url if self._proxy else ""

    @property
    def _proxy_authorization(self) -> str:
        given = self._proxy.authorization if self._proxy else ""
        return f"Proxy-Authorization: {given}\r\n" if given else ""

    def message(self, path: str, body: bytes) -> bytes:
        """Return a POST request, ready to be sent."""
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        return head.encode("latin-1") + body

    def json_message(self, path: str, body: dict[str, Any]) -> bytes:
        """Return a POST request of `body` as JSON."""
        return self.message(path, json.dumps(body).encode())

    async def connect(self) -> Connection:
        """Open a connection. Raises OSError (ssl.SSLError among them)."""
        loop = asyncio.get_running_loop()
        if self._proxy is not None and self._tls is not None:
            return await self._tunnel(self._proxy, self._tls)
        place = self._proxy or self._address
        _, connection = await loop.create_connection(Connection, place.host, place.port, ssl=self._tls)
        return connection

    async def _tunnel(self, proxy: WebAddress, tls: ssl.SSLContext) -> Connection:
        """Open a connection through a proxy with CONNECT."""
        loop = asyncio.get_running_loop()
        plain, reply = await loop.create_connection(_ConnectReply, proxy.host, proxy.port)
        try:
            host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
            head = f"{host}:{self._address.port} HTTP/1.1\r\nHost: {host}:{self._address.port}\r\n"
            plain.write(f"CONNECT {head}{self._proxy_authorization}\r\n".encode("latin-1"))
            status = await reply.status
            if status.split(" ")[1:2] != ["200"]:
                raise OSError(f"the proxy {proxy.url} answered CONNECT with {status!r}")
            connection = Connection()
            plain.set_protocol(connection)
            secure = await loop.start_tls(plain, connection, tls, server_hostname=self._address.host)
        except BaseException:
            plain.abort()
            raise
        assert secure is not None
        connection.connection_made(secure)
        return connection


class _ConnectReply(asyncio.Protocol):
    """Waits for the head of a proxy's answer to CONNECT. `status` is its first line, or a text that reports that none arrived."""

    def __init__(self) -> None:
        self.status: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._head = b""

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self._head += data
        if b"\r\n\r\n" in self._head and not self.status.done():
            self.status.set_result(self._head.partition(b"\r\n")[0].decode("latin-1"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        if not self.status.done():
            self.status.set_result("a closed connection")
