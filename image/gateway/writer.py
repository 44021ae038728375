"""Writes an answer to the client's connection, instead of uvicorn's `send`.

`send` writes headers and body separately, with a system call and a packet each, and passes every event of a stream through
a coroutine and a message. The writer also updates uvicorn's own state of the answer, which the rest of uvicorn depends on.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from image.gateway.cycle import Cycle

_date_of = 0
_date_line = b""


def date_line() -> bytes:
    """The current Date header, without a line break (RFC 9110, 6.6.1)."""
    global _date_of, _date_line
    now = int(time())
    if now != _date_of:
        _date_line = b"date: " + formatdate(now, usegmt=True).encode()
        _date_of = now
    return _date_line


class Writer:
    """Writes one answer: `head`, then `write` any number of times, then `end`.

    Header names and values are not validated: they come from this package or from llhttp's strict parser.
    """

    __slots__ = ("_bodiless", "_chunked", "_cycle", "_flow", "_head", "body_bytes")

    def __init__(self, cycle: Cycle) -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self.body_bytes = 0
        self._head = b""
        self._chunked = self._bodiless = False

    @property
    def behind(self) -> bool:
        """Whether the client reads too slowly; await `caught_up` before writing more."""
        return self._flow.write_paused and not self._cycle.disconnected

    async def caught_up(self) -> None:
        """Wait until the client has read most of what was sent, or has disconnected."""
        if self.behind:
            await self._flow.drain()

    def head(self, status: int, headers: list[tuple[bytes, bytes]], *, close: bool) -> None:
        """Set status and headers, sent with the first part or by `flush`. `close`: close the connection afterwards."""
        cycle = self._cycle
        cycle.answer_begins()
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        self._bodiless = cycle.scope["method"] == "HEAD" or status in (204, 304)
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status, date_line()]
        framed = self._bodiless
        for name, value in headers:
            framed = framed or name == b"content-length"
            lines.append(name + b": " + value)
        if not framed:
            if cycle.scope["http_version"] == "1.1":
                self._chunked = True
                lines.append(b"transfer-encoding: chunked")
            else:
                close = True  # HTTP/1.0 has no chunks: closing the connection ends the body
        if close:
            cycle.keep_alive = False
        if not cycle.keep_alive:
            lines.append(b"connection: close")
        lines.append(b"\r\n")
        self._head = b"\r\n".join(lines)

    def flush(self) -> None:
        """Send the headers now, before the body."""
        self._send(b"")

    def write(self, data: bytes) -> bool:
        """Write a part of the body; returns False if `caught_up` should be awaited before the next."""
        self.body_bytes += len(data)
        if self._chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._send(data)
        return not self._flow.write_paused

    def end(self, data: bytes) -> None:
        """Write the last part; afterwards, the connection is closed or serves the next request."""
        self.body_bytes += len(data)
        if self._bodiless:
            data = b""
        elif self._chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        self._send(data)
        cycle = self._cycle
        if not cycle.disconnected:
            cycle.response_complete = True
            cycle.message_event.set()
            cycle.on_response()

    def abort(self) -> None:
        """Abort the connection, the only way to signal that a partly sent answer is incomplete."""
        self.give_up()
        self._cycle.transport.abort()

    def give_up(self) -> None:
        """The client disconnected: write nothing more."""
        self._cycle.disconnected = True

    def _send(self, data: bytes) -> None:
        if self._head:
            data = self._head + data
            self._head = b""
        if data and not self._cycle.disconnected:
            self._cycle.transport.write(data)


_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b" % (status, status.phrase.encode()) for status in HTTPStatus}
