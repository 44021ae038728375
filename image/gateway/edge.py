"""The client's end of a connection: one request at a time, with a bound in bytes and seconds on everything that is read.

Where a message ends is decided here, by its Content-Length or its chunks, and by nothing that is left of the message before.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Callable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from image.gateway import errors
from image.gateway.chunks import Chunks
from image.gateway.cycle import Cycle
from image.gateway.exchange import Exchange, new_request_id
from image.gateway.forwarded import believed_client, trusted_by
from image.gateway.open_files import ROOM
from image.gateway.request_head import BadRequestError, RequestHead
from image.gateway.settings import Settings
from image.gateway.writer import date_line

# Of requests sent before the answers to those before them; then no more is read.
_MOST_PIPELINED_BYTES = 16 << 10
# The rest of a body that was answered before it was read: up to this size it is read and dropped, and the connection kept.
_MOST_DROPPED_BYTES = 256 << 10
# Read and dropped before a connection is closed, so that a client that still sends can read its answer.
_MOST_LINGERING_BYTES = 64 << 20

# What is read at once: less than uvloop's own 256 KB, so that no client has the loop for long. One buffer serves all
# connections, for it is empty again before the next one is read.
_READ_BUFFER = memoryview(bytearray(32 << 10))

_LOGGER = logging.getLogger("uvicorn.error")


class EdgeProtocol(asyncio.BufferedProtocol):
    """One client's connection. Closes what drips, floods or stalls, and ends the exchange of a client that leaves."""

    def __init__(
        self,
        settings: Settings,
        refused: Callable[[str], None],
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`refused` is called with the reason of each refusal made here, below HTTP. The rest comes from uvicorn."""
        self._settings = settings
        self._refused = refused
        self._app = config.loaded_app
        self._keep_alive_seconds = config.timeout_keep_alive
        self._server_state = server_state
        self.loop = _loop or asyncio.get_event_loop()
        self._trusted = trusted_by(settings.trusted_proxies)
        self._head = RequestHead(settings.max_header_bytes)
        self._chunks: Chunks | None = None
        self._left = 0  # of a body with a length
        self._waiting = bytearray()  # pipelined
        self._lingering: int | None = None  # bytes that are still dropped
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._cycle: Cycle | None = None
        self.exchange: Exchange | None = None
        self.gone = False
        """No answer can be sent any more."""

    def client_of(self, headers: dict[bytes, bytes]) -> str:
        """The client's address: the peer's, or what proxies that are trusted say of theirs."""
        address = self._client[0] if self._client else ""
        return believed_client(address, headers.get(b"x-forwarded-for"), self._trusted)

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected: its first request's head is due."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._flow = FlowControl(self._transport)
        self._server, self._client = get_local_addr(self._transport), get_remote_addr(self._transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        ROOM.enter()
        self._start_head_timer()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes are to be read to."""
        return _READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have been read."""
        self.data_received(bytes(_READ_BUFFER[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._stop_idle_timer()
        if self._lingering is not None:
            self._lingering -= len(data)
            if self._lingering < 0:
                self._transport.abort()
        elif self._between_messages or self._in_body:
            self._read(data)
        else:
            self._wait(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self.gone = True
        self._server_state.connections.discard(self)
        ROOM.leave(self)
        if self._cycle is not None:
            self._cycle.disconnected = self._cycle.disconnected or not self._cycle.response_complete
            self._cycle.message_event.set()
            self._cycle = None  # each would keep the other until the garbage collector comes by
        self._flow.resume_writing()
        for timer in (self._head_timer, self._idle_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._waiting.clear()
        self._head.reset()
        if self.exchange is not None:
            self.exchange.leave("client_left")

    def shutdown(self) -> None:
        """Called by uvicorn: close, after the answer that is being sent."""
        if self._cycle is None or self._cycle.response_complete or self._lingering is not None:
            self._transport.close()
        else:
            self._cycle.keep_alive = False

    # Messages

    @property
    def _between_messages(self) -> bool:
        return self._cycle is None or (self._cycle.response_complete and not self._cycle.more_body)

    @property
    def _in_body(self) -> bool:
        return self._cycle is not None and self._cycle.more_body

    def _read(self, data: bytes) -> None:
        """Read a head, or the body of the request whose head has been read, or both."""
        try:
            if self._between_messages:
                data = data[self._head.feed(data) :]
                if not self._head.complete:
                    if self._head_timer is None:
                        self._start_head_timer()
                    return
                self._begin()
            if self._in_body:
                data = data[self._read_body(data) :]
        except BadRequestError as refusal:
            self._refuse(refusal)
            return
        if not data:
            return
        if self._between_messages:  # the body of a request that had been answered before
            self._read(data)
        else:
            self._wait(data)

    def _begin(self) -> None:
        """A head is complete: its request is answered from now on."""
        self._stop_head_timer()
        self._stop_idle_timer()
        head = self._head
        self._left = head.length
        self._chunks = Chunks() if head.chunked else None
        more_body = head.chunked or head.length > 0
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "method": head.method,
            "root_path": "",
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "headers": head.headers,
            "gateway.connection": self,
        }
        cycle = self._cycle = Cycle(
            scope=scope,  # type: ignore[arg-type]
            transport=self._transport,
            flow=self._flow,
            logger=_LOGGER,
            access_logger=_LOGGER,
            access_log=False,
            default_headers=self._server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue and more_body,
            keep_alive=head.keep_alive,
            on_response=self._answered,
        )
        cycle.more_body = more_body
        cycle.rest_can_be_dropped = not head.chunked and head.length <= _MOST_DROPPED_BYTES
        if not more_body:
            cycle.message_event.set()
        scope["gateway.cycle"] = cycle
        head.reset()
        task = self.loop.create_task(cycle.run_asgi(self._app))
        task.add_done_callback(self._server_state.tasks.discard)
        self._server_state.tasks.add(task)

    def _read_body(self, data: bytes) -> int:
        """Take what belongs to the body; returns how many bytes that was. Raises BadRequestError."""
        cycle = self._cycle
        assert cycle is not None
        if self._chunks is not None:
            size = self._chunks.feed(data, cycle.body)
            cycle.more_body = not self._chunks.complete
        else:
            size = min(len(data), self._left)
            self._left -= size
            cycle.more_body = self._left > 0
            if not cycle.response_complete:
                cycle.body += data if size == len(data) else data[:size]
        if cycle.response_complete:
            if not cycle.more_body:
                self._idle()
        else:
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self._flow.pause_reading()
            cycle.message_event.set()
        return size

    def _wait(self, data: bytes) -> None:
        """Keep what comes behind a request until that is answered."""
        self._waiting += data
        if len(self._waiting) > _MOST_PIPELINED_BYTES:
            self._flow.pause_reading()

    def _answered(self) -> None:
        """An answer is over: close, or go on with the next request."""
        self._server_state.total_requests += 1
        cycle = self._cycle
        assert cycle is not None
        if self._transport.is_closing() or self._lingering is not None:
            return
        if not cycle.keep_alive:
            if cycle.more_body or self._waiting:
                self._linger()
            else:
                self._close()
            return
        self._flow.resume_reading()
        if cycle.more_body:  # no more than _MOST_DROPPED_BYTES of it, see Cycle.answer_begins
            cycle.body.clear()
            self._start_head_timer()
        elif self._waiting:
            data, self._waiting = bytes(self._waiting), bytearray()
            self._read(data)
        else:
            self._idle()

    def _idle(self) -> None:
        """A message and its answer are over, and no other has come."""
        self._stop_head_timer()
        self._idle_timer = self.loop.call_later(self._keep_alive_seconds, self._close)
        ROOM.idle(self)

    # Ends

    def _stop_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
            ROOM.busy(self)

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self._settings.header_timeout_seconds, self._head_too_slow)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        """Half a head, empty lines, or the rest of a body whose request has been answered."""
        self._head_timer = None
        if self._head.started:
            self._refuse(BadRequestError("The request's headers did not arrive in time.", 408, "header_timeout"))
        else:
            self._close()

    def _refuse(self, refusal: BadRequestError) -> None:
        """Answer what is not HTTP, unless an answer is on its way; nothing is read any more."""
        if self._transport.is_closing():
            return
        self._refused(refusal.reason)
        cycle = self._cycle
        if self._between_messages or (cycle is not None and not cycle.response_started):
            body = errors.bad_body(refusal.message, status=refusal.status).body()
            head = (
                f"HTTP/1.1 {refusal.status} {http.HTTPStatus(refusal.status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nx-request-id: {new_request_id()}\r\nconnection: close\r\n"
            )
            self._transport.write(head.encode() + date_line() + b"\r\n\r\n" + body)
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self.gone = True
        if self.exchange is not None:
            self.exchange.leave(refusal.reason)
        self._linger()

    def _linger(self) -> None:
        """Close when the client has: a connection closed with bytes unread is reset, and its last answer lost."""
        self._lingering = _MOST_LINGERING_BYTES
        self._waiting.clear()
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(self._settings.header_timeout_seconds, self._close)
        self._flow.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _close(self) -> None:
        if self._transport.is_closing():
            return
        self._transport.close()
        if self._transport.get_write_buffer_size() and self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self._settings.stalled_reader_seconds, self._transport.abort)

    def close_idle(self) -> None:
        """Close, between two requests: others need the room."""
        self._refused("idle_connection")
        self._stop_idle_timer()
        self._close()

    # A client that takes nothing

    def pause_writing(self) -> None:
        """The client reads more slowly than the engine writes."""
        self._flow.pause_writing()
        self._stall_timer = self.loop.call_later(self._settings.stalled_reader_seconds, self._stalled)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._flow.resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _stalled(self) -> None:
        if self.exchange is not None:
            self.exchange.leave("client_stalled")
        self._transport.abort()
