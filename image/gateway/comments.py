"""Comments in an idle event stream, so that proxies do not close it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

# A separate block, as vLLM's --sse-keep-alive-interval sends: a parser that splits the stream at empty lines would otherwise
# find a comment before an event and drop both. The space is for parsers that expect "key: value" in every line.
COMMENT = b": waiting for the engine\n\n"


class Answer(Protocol):
    """What the comments need from their exchange."""

    loop: asyncio.AbstractEventLoop

    @property
    def bytes_out(self) -> int:
        """Number of bytes sent."""

    @property
    def over(self) -> bool:
        """Whether the answer has ended."""

    @property
    def behind(self) -> bool:
        """Whether the client reads too slowly."""

    @property
    def answered(self) -> bool:
        """Whether the answer has begun."""

    def start_held_events(self) -> None:
        """Begin an event stream."""

    @property
    def part(self) -> Callable[[bytes], bool]:
        """Send a part of the body."""


class Comments:
    """Sends a comment line after each interval without any bytes, until `stop`.

    A comment is valid only between two events: while `inside_event` is set, none is sent. Events cost nothing here: a
    timer checks twice per interval whether bytes were sent.
    """

    __slots__ = ("_bytes_out", "_exchange", "_seconds", "_timer", "inside_event")

    def __init__(self, exchange: Answer, seconds: float) -> None:
        """The first comment is due after `seconds`. If the answer has not begun by then, the comment begins it."""
        self._exchange = exchange
        self._seconds = seconds
        self._bytes_out = exchange.bytes_out
        self._timer: asyncio.TimerHandle | None = exchange.loop.call_later(seconds, self._look)
        self.inside_event = False

    def stop(self) -> None:
        """Send no more comments."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        exchange = self._exchange
        if exchange.over:
            self._timer = None
            return
        self._timer = exchange.loop.call_later(self._seconds / 2, self._look)
        # A slow client still has bytes in flight.
        if exchange.bytes_out == self._bytes_out and not self.inside_event and not exchange.behind:
            if not exchange.answered:
                exchange.start_held_events()
            exchange.part(COMMENT)
        self._bytes_out = exchange.bytes_out
