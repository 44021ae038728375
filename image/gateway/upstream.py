"""A small HTTP/1.1 client for a replica: keep-alive connections, one exchange at a time, bytes as they come.

General clients cost two to ten times the CPU of everything else the gateway does for a request.
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

# vLLM (uvicorn) closes a connection idle for 5 s; one that is used a moment before that would be reset.
_IDLE_SECONDS = 3.0
# The reset of a connection that was closed while the request was on its way takes a round trip. What takes longer is an
# engine that broke down with the request.
_CROSSING_SECONDS = 0.1
# Above this much unread, the replica is made to wait.
_HIGH_WATER_BYTES = 64 << 10
# A head, the framing of chunks, trailers: what may come in a row without a byte of the body.
_MOST_OVERHEAD_BYTES = 256 << 10
_LAST_CHUNK = b"0\r\n\r\n"
# Small bodies ride in the packet of their head.
_JOIN_BYTES = 64 << 10


class UpstreamError(Exception):
    """A replica failed. `kind`: "connect" (it got nothing), "reset" (it went away), "protocol" (it made no sense)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Connection(asyncio.Protocol):
    """One connection to a replica. `send`, then `head`, then `read` until it gives b"", then `Pool.release`.

    `pass_on` takes the place of `read` where each part need not wake its reader.
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
        """Begin an exchange: write a request."""
        assert self._transport is not None
        self.asked_at = monotonic()
        self._in_exchange = True
        self._framed = self._head_complete = self.complete = self.reusable = self._heard = self._chunked = False
        self._last_of_body = b""
        self._overhead_bytes = 0
        self.headers = []
        self._parser = httptools.HttpResponseParser(self)  # what one answer leaves behind is not taken for the next
        if len(body) < _JOIN_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    async def head(self) -> None:
        """Wait until `status` and `headers` are there; raises UpstreamError."""
        while not self._head_complete:
            await self._wait()

    async def read(self) -> bytes:
        """The body's bytes that have come since the last call, b"" at its end; raises UpstreamError."""
        while not self._parts:
            if self.complete:
                return b""
            await self._wait()
        return self._take()

    async def pass_on(self, sink: Callable[[bytes], bool]) -> None:
        """Hand the body's bytes to `sink` as they come, until it returns False or the answer is complete, when those that
        came last are left to `read`; raises UpstreamError.
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
        """What has come and not been taken."""
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
        """The exchange is over; the connection may serve another."""
        self._in_exchange = False
        self.idle_since = monotonic()

    def close(self) -> None:
        """Close at once, in the middle of whatever it is: the replica sees a client that went away."""
        self._in_exchange = False
        self._pool.forget(self)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def crossed(self) -> bool:
        """Whether a reset that is noticed now can be an idle connection's, whose close the request crossed on its way:
        it follows at once, and not a byte has come.
        """
        return not self._heard and not self.was_working()

    def was_working(self) -> bool:
        """Whether the replica has had the request for so long that it has begun to work on it."""
        return monotonic() - self.asked_at >= _CROSSING_SECONDS

    async def _wait(self) -> None:
        # What came before a failure is handed out first: only who would have to wait is told.
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
        """The loop has connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        _set_options(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        if not self._awaits_bytes():  # nobody asked for them
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
        """Whether the read in which an answer ended holds nothing behind it: what that would be nobody knows."""
        if self._chunked:
            return data.endswith(_LAST_CHUNK) or len(data) < len(_LAST_CHUNK)
        return data.endswith(self._last_of_body or b"\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """No more bytes: what is not complete now never will be."""
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
        """The beginning of an answer, or of what comes behind one."""
        if self.complete:
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer."""
        if self._head_complete:  # a trailer, or bytes behind the answer
            return
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
            self._chunked = name == b"transfer-encoding"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The answer's head is there, unless it is an interim one."""
        if self._head_complete:
            return
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue and the like: the answer proper follows
            self.headers = []
            return
        self.status = status
        self._framed = self._framed or status in (204, 304)
        self._head_complete = True

    def on_body(self, body: bytes) -> None:
        """Bytes of the answer's body, free of any chunking."""
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
        """The answer is whole."""
        if self._head_complete and not self.complete:
            assert self._parser is not None
            self.reusable = self._parser.should_keep_alive()
            self.complete = True


def _set_options(sock: Any) -> None:
    """A host that vanishes (a spot instance) sends no reset: have the kernel ask, and give up after 30 s. And read no
    more at once than can be sent on: left to itself, a read grows to what the kernel's buffer does.
    """
    with contextlib.suppress(OSError):  # it may be gone already, which is noticed anyway
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HIGH_WATER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class Pool:
    """The connections to one replica that nobody uses, and the making of new ones."""

    def __init__(self, address: Address, connect_timeout_seconds: float) -> None:
        self.address = address
        host, port = address
        self.host_header = f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode()
        self._connect_timeout_seconds = connect_timeout_seconds
        self._idle: list[Connection] = []
        self._reaper: asyncio.TimerHandle | None = None

    def take(self) -> Connection | None:
        """An idle connection that is still good."""
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
        """Give back a connection: kept when its exchange is over, else closed at once."""
        if connection.drained() and connection.reusable and connection.usable():
            connection.rest()
            self._idle.append(connection)
            if self._reaper is None:
                self._reaper = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._reap)
        else:
            connection.close()

    def _reap(self) -> None:
        """Close what has not been used for long: a burst's connections are not kept for ever."""
        oldest = monotonic() - _IDLE_SECONDS
        for connection in [c for c in self._idle if c.idle_since <= oldest]:
            connection.close()
        self._reaper = None
        if self._idle:  # the one that has been idle for longest is the first
            seconds = self._idle[0].idle_since - oldest
            self._reaper = asyncio.get_running_loop().call_later(seconds, self._reap)

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def close(self) -> None:
        """Close every idle connection."""
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        while self._idle:
            self._idle.pop().close()
