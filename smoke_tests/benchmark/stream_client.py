"""A small HTTP/1.1 client that stamps every piece of a body the moment it arrives.

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
from urllib.parse import urlsplit

import httptools


@dataclass
class Response:
    """The head of an answer, and `broken`: why it was cut short, empty where it was not."""

    status: int = 0
    content_type: str = ""
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
        """Close it at once, whatever is under way."""
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
        if name.lower() == b"content-type":
            self._response.content_type = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Part of httptools' callbacks."""
        self._response.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Part of httptools' callbacks."""
        if self._on_body is not None:
            self._on_body(body, self._now)

    def on_message_complete(self) -> None:
        """Part of httptools' callbacks."""
        keep_alive = self._parser.should_keep_alive()
        self._finish("")
        if not keep_alive:
            self.close()

    def _finish(self, broken: str) -> None:
        if self._finished is not None and not self._finished.done():
            self._response.broken = broken
            self._finished.set_result(None)


class Endpoint:
    """Where requests go: resolved once from a base URL, with the key kept in one prepared head."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        parts = urlsplit(base_url)
        assert parts.hostname is not None
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        authorization = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._head = (
            f"Host: {parts.netloc}\r\n{authorization}Content-Type: application/json\r\n"
            "Accept: text/event-stream\r\nUser-Agent: vllm-endpoint-benchmark\r\n"
        )

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
        _, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        return connection
