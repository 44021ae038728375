"""A small HTTP/1.1 client for replicas: keep-alive connections, one exchange at a time, streaming.

General-purpose clients use two to ten times as much CPU as everything else that the gateway does for a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any, cast

import httptools

from image.gateway.backends import Address

# vLLM (uvicorn) closes connections that are idle for 5 s; a request sent just before that would be reset.
_IDLE_SECONDS = 3.0
# If the replica closed an idle connection just as the request was sent, the reset arrives within a round trip. A later
# reset means that the engine failed while it processed the request.
_CROSSING_SECONDS = 0.1
# Above this many unread bytes, reading from the replica pauses.
_HIGH_WATER_BYTES = 64 << 10
# Limit of consecutive bytes that are not body: headers, chunk framing, trailers.
_MOST_OVERHEAD_BYTES = 256 << 10
_LAST_CHUNK = b"0\r\n\r\n"
# Bodies up to this size are sent in the same packet as the headers.
_JOIN_BYTES = 64 << 10


class UpstreamError(Exception):
    """A replica failed. `kind`: "connect" (no connection), "reset" (connection lost), "protocol" (invalid HTTP)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Connection(asyncio.Protocol):
    """One connection to a replica: `send`, then `head`, then `read` until it returns b"", then `Pool.release`.

    `pass_on` replaces `read` if the parts need not wake the reader.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._parser: httptools.HttpResponseParser | None = None
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], bool] | None = None
        self._failure: UpstreamError | None = None
        self._parts: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._in_exchange = False
        self._framed = False
        self._heard = False
        self._chunked = False
        self._last_of_body = b""
        self._overhead_bytes = 0
        self._head_complete = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.reusable = False
        self.idle_since = self.asked_at = 0.0

    def send(self, head: bytes, body: bytes) -> None:
        """Send a request."""
        assert self._transport is not None
        self.asked_at = monotonic()
        self._in_exchange = True
        self._framed = self._head_complete = self.complete = self.reusable = self._heard = self._chunked = False
        self._last_of_body = b""
        self._overhead_bytes = 0
        self.headers = []
        self._parser = httptools.HttpResponseParser(
            self
        )  # a new parser, so that no bytes of one answer count as the next
        if len(body) < _JOIN_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    async def head(self) -> None:
        """Wait for `status` and `headers`; raises UpstreamError."""
        while not self._head_complete:
            await self._wait()

    async def read(self) -> bytes:
        """The bytes of the body received since the last call, b"" at the end; raises UpstreamError."""
        while not self._parts:
            if self.complete:
                return b""
            await self._wait()
        return self._take()

    async def pass_on(self, sink: Callable[[bytes], bool]) -> None:
        """Pass the body's bytes to `sink` as they arrive, until it returns False or the answer is complete. The last bytes
        are left for `read`. Raises UpstreamError.
        """
        if self._parts and not self.complete and not sink(self._take()):
            return
        if not self.complete:
            self._sink = sink
            try:
                await self._wait()
            finally:
                self._sink = None

    def _take(self) -> bytes:
        """The bytes received and not yet read."""
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        self._buffered = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    @property
    def waiting(self) -> bool:
        """Whether `read` would return at once."""
        return bool(self._parts) or self.complete

    def usable(self) -> bool:
        """Whether a request may still be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def drained(self) -> bool:
        """Whether the answer is complete and all of it has been read."""
        return self.complete and not self._parts

    def rest(self) -> None:
        """Mark the exchange as over, so that the connection can be reused."""
        self._in_exchange = False
        self.idle_since = monotonic()

    def close(self) -> None:
        """Close at once, at any stage: to the replica, the client disconnected."""
        self._in_exchange = False
        self._pool.forget(self)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def crossed(self) -> bool:
        """Whether a reset now can mean that the replica closed an idle connection while the request was in flight: it
        follows at once, and no byte was received.
        """
        return not self._heard and not self.was_working()

    def was_working(self) -> bool:
        """Whether the replica has had the request long enough to have started processing it."""
        return monotonic() - self.asked_at >= _CROSSING_SECONDS

    async def _wait(self) -> None:
        # Bytes received before a failure are returned first: raise only if the caller would have to wait.
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is established."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        _set_options(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        if not self._awaits_bytes():  # no request is in progress
            self.close()
            return
        assert self._parser is not None
        self._heard = True
        self._overhead_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if self._overhead_bytes > _MOST_OVERHEAD_BYTES:
                raise httptools.HttpParserError("a head or trailers without an end")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._failure = UpstreamError("protocol", f"not HTTP: {error}")
            self.close()
        if self.complete:
            self.reusable = self.reusable and self._ends_with_answer(data)
            self._last_of_body = b""
        if self._sink is None or self.complete or self._failure is not None:
            self._wake()
        elif self._parts and not self._sink(self._take()):
            self._sink = None
            self._wake()

    def _awaits_bytes(self) -> bool:
        return self._in_exchange and not self.complete

    def _ends_with_answer(self, data: bytes) -> bool:
        """Whether the read that completed the answer has no bytes after it, which would be undefined."""
        if self._chunked:
            return data.endswith(_LAST_CHUNK) or len(data) < len(_LAST_CHUNK)
        return data.endswith(self._last_of_body or b"\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection closed: an incomplete answer stays incomplete."""
        self._transport = None
        self._pool.forget(self)
        if not self.complete and self._failure is None:
            if exc is None and self._head_complete and not self._framed:
                self.complete = True  # a body without a length ends with its connection
            else:
                self._failure = UpstreamError("reset", str(exc) if exc else "closed the connection")
        self._wake()

    # httptools

    def on_message_begin(self) -> None:
        """An answer begins, or unexpected bytes after one."""
        if self.complete:
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer."""
        if self._head_complete:  # a trailer, or bytes after the answer
            return
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
            self._chunked = name == b"transfer-encoding"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The headers are complete, unless the response is an interim one."""
        if self._head_complete:
            return
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue and similar: the final response follows
            self.headers = []
            return
        self.status = status
        self._framed = self._framed or status in (204, 304)
        self._head_complete = True

    def on_body(self, body: bytes) -> None:
        """Bytes of the answer's body, with chunking removed."""
        if self.complete:
            return
        self._overhead_bytes = 0
        self._last_of_body = body
        self._parts.append(body)
        self._buffered += len(body)
        if self._buffered > _HIGH_WATER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is complete."""
        if self._head_complete and not self.complete:
            assert self._parser is not None
            self.reusable = self._parser.should_keep_alive()
            self.complete = True


def _set_options(sock: Any) -> None:
    """Enable TCP keep-alive with a timeout of 30 s, because a host that vanishes (a spot instance) sends no reset. Limit the
    receive buffer, because otherwise a read can be as large as the kernel's buffer.
    """
    with contextlib.suppress(OSError):  # it may be closed already, which is detected elsewhere
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HIGH_WATER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class Pool:
    """The idle connections to one replica, and a factory for new ones."""

    def __init__(self, address: Address, connect_timeout_seconds: float) -> None:
        self.address = address
        host, port = address
        self.host_header = f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode()
        self._connect_timeout_seconds = connect_timeout_seconds
        self._idle: list[Connection] = []
        self._reaper: asyncio.TimerHandle | None = None

    def take(self) -> Connection | None:
        """An idle connection that is still usable, or None."""
        oldest = monotonic() - _IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest and connection.usable():
                return connection
            connection.close()
        return None

    async def connect(self) -> Connection:
        """A new connection; raises UpstreamError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                _, connection = await loop.create_connection(lambda: Connection(self), *self.address)
        except TimeoutError:
            raise UpstreamError("connect", f"no connection within {self._connect_timeout_seconds:g} s") from None
        except OSError as error:
            raise UpstreamError("connect", error.strerror or str(error)) from None
        return connection

    def release(self, connection: Connection) -> None:
        """Return a connection to the pool if its exchange is over, else close it."""
        if connection.drained() and connection.reusable and connection.usable():
            connection.rest()
            self._idle.append(connection)
            if self._reaper is None:
                self._reaper = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._reap)
        else:
            connection.close()

    def _reap(self) -> None:
        """Close connections that were idle for too long, such as those of a burst."""
        oldest = monotonic() - _IDLE_SECONDS
        for connection in [c for c in self._idle if c.idle_since <= oldest]:
            connection.close()
        self._reaper = None
        if self._idle:  # the longest-idle one is first
            seconds = self._idle[0].idle_since - oldest
            self._reaper = asyncio.get_running_loop().call_later(seconds, self._reap)

    def forget(self, connection: Connection) -> None:
        """Remove a closed connection."""
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def close(self) -> None:
        """Close every idle connection."""
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        while self._idle:
            self._idle.pop().close()
