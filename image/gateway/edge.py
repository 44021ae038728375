"""The client's side of a connection: one request at a time, with limits in bytes and seconds on everything it reads.

Message framing is decided here, from Content-Length or chunks only, with no state left from the previous message.
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

# Limit for pipelined requests; beyond it, reading pauses.
_MOST_PIPELINED_BYTES = 16 << 10
# If a request was answered before its body arrived, up to this much is read and discarded so that the connection can be
# reused.
_MOST_DROPPED_BYTES = 256 << 10
# Read and discarded before a connection is closed, so that a client that is still sending can read its answer.
_MOST_LINGERING_BYTES = 64 << 20

# Bytes per read: less than uvloop's 256 KB, so that no client blocks the loop for long. All connections share one buffer,
# which is emptied before the next read.
_READ_BUFFER = memoryview(bytearray(32 << 10))

_LOGGER = logging.getLogger("uvicorn.error")


class EdgeProtocol(asyncio.BufferedProtocol):
    """One client's connection. Disconnects slow clients (slowloris), floods and stalled readers, and ends the exchange of
    a client that disconnects.
    """

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
        """`refused` is called with the reason of each rejection at this level. uvicorn passes the other arguments."""
        self._settings = settings
        self._refused = refused
        self._app = config.loaded_app
        self._keep_alive_seconds = config.timeout_keep_alive
        self._server_state = server_state
        self.loop = _loop or asyncio.get_event_loop()
        self._trusted = trusted_by(settings.trusted_proxies)
        self._head = RequestHead(settings.max_header_bytes)
        self._chunks: Chunks | None = None
        self._left = 0  # bytes left of a body with Content-Length
        self._waiting = bytearray()  # pipelined
        self._lingering: int | None = None  # bytes still to discard
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._cycle: Cycle | None = None
        self.exchange: Exchange | None = None
        self.gone = False
        """The client can no longer be sent an answer."""

    def client_of(self, headers: dict[bytes, bytes]) -> str:
        """The client's address: the peer's, or the one that trusted proxies report."""
        address = self._client[0] if self._client else ""
        return believed_client(address, headers.get(b"x-forwarded-for"), self._trusted)

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected; the timeout for its first headers starts."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._flow = FlowControl(self._transport)
        self._server, self._client = get_local_addr(self._transport), get_remote_addr(self._transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        ROOM.enter()
        self._start_head_timer()

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer for the next read."""
        return _READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` were read into the buffer."""
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
        """The client disconnected."""
        self.gone = True
        self._server_state.connections.discard(self)
        ROOM.leave(self)
        if self._cycle is not None:
            self._cycle.disconnected = self._cycle.disconnected or not self._cycle.response_complete
            self._cycle.message_event.set()
            self._cycle = None  # break the reference cycle
        self._flow.resume_writing()
        for timer in (self._head_timer, self._idle_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._waiting.clear()
        self._head.reset()
        if self.exchange is not None:
            self.exchange.leave("client_left")

    def shutdown(self) -> None:
        """Called by uvicorn: close after the current answer."""
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
        """Parse headers, the body of the current request, or both."""
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
        if self._between_messages:  # that was the body of a request already answered
            self._read(data)
        else:
            self._wait(data)

    def _begin(self) -> None:
        """The headers are complete: start the request."""
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
        """Consume the bytes of the body; returns how many. Raises BadRequestError."""
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
        """Store pipelined bytes until the current request is answered."""
        self._waiting += data
        if len(self._waiting) > _MOST_PIPELINED_BYTES:
            self._flow.pause_reading()

    def _answered(self) -> None:
        """An answer is complete: close the connection or continue with the next request."""
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
        if cycle.more_body:  # at most _MOST_DROPPED_BYTES, see Cycle.answer_begins
            cycle.body.clear()
            self._start_head_timer()
        elif self._waiting:
            data, self._waiting = bytes(self._waiting), bytearray()
            self._read(data)
        else:
            self._idle()

    def _idle(self) -> None:
        """The connection is idle between two requests."""
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
        """Incomplete headers, empty lines, or the rest of a body whose request is already answered timed out."""
        self._head_timer = None
        if self._head.started:
            self._refuse(BadRequestError("The request's headers did not arrive in time.", 408, "header_timeout"))
        else:
            self._close()

    def _refuse(self, refusal: BadRequestError) -> None:
        """Answer an invalid request, unless an answer has begun; stop reading."""
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
        """Close after the client closes. Closing with unread bytes would reset the connection and lose the last answer."""
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
        """Close this idle connection, because other clients need its file descriptor."""
        self._refused("idle_connection")
        self._stop_idle_timer()
        self._close()

    # Stalled readers

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
