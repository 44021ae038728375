"""The client's end of a connection: uvicorn's HTTP protocol, with the deadlines and caps that it leaves to others."""

from __future__ import annotations

import asyncio
import functools
import http
import ipaddress
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from image.gateway import errors
from image.gateway.exchange import Exchange
from image.gateway.settings import Network, Settings

# Requests sent before the answers to those before them; each costs some kilobytes.
_MOST_PIPELINED = 16


@functools.cache
def _trusted_by(networks: tuple[Network, ...]) -> Callable[[str], bool]:
    """Whether an address is in one of the networks."""

    @functools.lru_cache(4096)
    def trusted(address: str) -> bool:
        return any(ipaddress.ip_address(address) in network for network in networks)

    return trusted


class EdgeProtocol(HttpToolsProtocol):
    """One client's connection. Closes what drips, floods or stalls, and ends the exchange of a client that leaves."""

    def __init__(self, settings: Settings, refused: Callable[[str], None], **uvicorn_arguments: Any) -> None:
        """`refused` is told the reason of each refusal made here, below HTTP."""
        super().__init__(**uvicorn_arguments)
        self._settings = settings
        self._refused = refused
        self._in_head = False
        self._head_bytes = self._read_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self.exchange: Exchange | None = None
        self.gone = False
        self._trusted = _trusted_by(settings.trusted_proxies)

    def client_of(self, headers: dict[bytes, bytes]) -> str:
        """The client's address: the peer's, or what proxies that are trusted say of theirs."""
        address = self.client[0] if self.client else ""
        forwarded = headers.get(b"x-forwarded-for")
        if forwarded is not None:
            for part in reversed(forwarded.decode("latin-1").split(",")):
                if not self._trusted(address):
                    break
                try:
                    address = str(ipaddress.ip_address(part.strip()))
                except ValueError:
                    break
        return address

    # A request's head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: its first request's head is due."""
        super().connection_made(transport)
        self._start_head_timer()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self.scope["gateway.connection"] = self  # type: ignore[typeddict-unknown-key]
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._in_head = False
        self._stop_head_timer()
        # What is raised here, uvicorn answers as all that is not HTTP, unless it has been refused before.
        if self._head_bytes + self._read_bytes > self._settings.max_header_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._settings.max_header_bytes:
                self._refuse_head()
                raise ValueError("headers too large")
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise ValueError("too many requests at once")
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            raise ValueError("no version, or one that is not spoken")
        super().on_headers_complete()
        self.scope["gateway.cycle"] = self.cycle  # type: ignore[typeddict-unknown-key]

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._stop_head_timer()
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._read_bytes = len(data)
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.max_header_bytes:
                self._refuse_head()
                return
        elif self.cycle is not None and not self.cycle.response_complete:
            return
        # Bytes, and no request to show for them: half a head, empty lines, or the rest of a body that was refused.
        if self._head_timer is None and not self.transport.is_closing():
            self._start_head_timer()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for what is not HTTP."""
        self._refuse(400, "The request is not valid HTTP/1.1.", "http")

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self._settings.header_timeout_seconds, self._head_too_slow)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._refuse(408, "The request's headers did not arrive in time.", "header_timeout")
        else:
            self.transport.close()

    def _refuse_head(self) -> None:
        self._refuse(431, "The request's headers are too large.", "header_too_large")

    def _refuse(self, status: int, message: str, reason: str) -> None:
        if self.transport.is_closing():
            return
        self._refused(reason)
        answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not answering:  # else it would go out in the middle of an answer
            if self.cycle is not None:
                self.cycle.disconnected = True  # no other answer may follow
            body = errors.bad_body(message, status=status).body()
            head = (
                f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()

    # A client that takes nothing, or is gone

    def pause_writing(self) -> None:
        """The client reads more slowly than the engine writes."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self._settings.stalled_reader_seconds, self._stalled)

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _stalled(self) -> None:
        if self.exchange is not None:
            self.exchange.leave("client_stalled")
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self.gone = True
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_head_timer()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        if self.exchange is not None:
            self.exchange.leave("client_left")
