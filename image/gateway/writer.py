"""An answer on its way to the client's connection, in place of uvicorn's `send`.

`send` writes head and body apart, a system call and a packet each, and takes every event of a stream through a
coroutine and a message. What uvicorn keeps of an answer is kept here too, for the rest of uvicorn goes by it.
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
    """The Date header of now, without its line break (RFC 9110, 6.6.1)."""
    global _date_of, _date_line
    now = int(time())
    if now != _date_of:
        _date_line = b"date: " + formatdate(now, usegmt=True).encode()
        _date_of = now
    return _date_line


class Writer:
    """Writes one answer: `head`, then `write` as often as need be, then `end`.

    Names and values of headers must be clean: they come from this package, or through llhttp's strict parser.
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
        """Whether the client takes less than it is sent: whoever writes on should await `caught_up` first."""
        return self._flow.write_paused and not self._cycle.disconnected

    async def caught_up(self) -> None:
        """Wait until the client has taken most of what it was sent, or is gone."""
        if self.behind:
            await self._flow.drain()

    def head(self, status: int, headers: list[tuple[bytes, bytes]], *, close: bool) -> None:
        """Status and headers, which go out with the first part, or by `flush`. `close`: the connection, afterwards."""
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
                close = True  # HTTP/1.0 knows no chunks: the body ends with its connection
        if close:
            cycle.keep_alive = False
        if not cycle.keep_alive:
            lines.append(b"connection: close")
        lines.append(b"\r\n")
        self._head = b"\r\n".join(lines)

    def flush(self) -> None:
        """Send the head now: its body is not there yet."""
        self._send(b"")

    def write(self, data: bytes) -> bool:
        """A part of the body; False when the client should be waited for before the next, see `caught_up`."""
        self.body_bytes += len(data)
        if self._chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._send(data)
        return not self._flow.write_paused

    def end(self, data: bytes) -> None:
        """The last part: the answer is over, and the connection is closed or takes the next request."""
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
        """Break the connection: all that is left to say where half an answer is out."""
        self.give_up()
        self._cycle.transport.abort()

    def give_up(self) -> None:
        """Nothing more is written: the client is gone."""
        self._cycle.disconnected = True

    def _send(self, data: bytes) -> None:
        if self._head:
            data = self._head + data
            self._head = b""
        if data and not self._cycle.disconnected:
            self._cycle.transport.write(data)


_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b" % (status, status.phrase.encode()) for status in HTTPStatus}
