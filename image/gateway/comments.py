"""Comments in an event stream that is silent, so that no hop in between takes it for dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

# A block of its own, as vLLM's --sse-keep-alive-interval sends: a parser that splits the stream at empty lines would otherwise
# find a comment in front of an event, and drop both. The space is for parsers that expect "key: value" in every line.
COMMENT = b": waiting for the engine\n\n"


class Answer(Protocol):
    """What comments need of the exchange whose silences they fill."""

    loop: asyncio.AbstractEventLoop

    @property
    def bytes_out(self) -> int:
        """How many bytes have been sent."""

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
        """Sends a part of the body."""


class Comments:
    """Sends a comment line whenever so many seconds have passed without a byte, until `stop`.

    An event stream takes one between two events only; while `inside_event` is set, none is sent. Events themselves cost
    nothing here: a timer looks twice in each interval whether bytes have gone out since.
    """

    __slots__ = ("_bytes_out", "_exchange", "_seconds", "_timer", "inside_event")

    def __init__(self, exchange: Answer, seconds: float) -> None:
        """The first one is due after `seconds`; where nothing has been answered by then, it begins the answer."""
        self._exchange = exchange
        self._seconds = seconds
        self._bytes_out = exchange.bytes_out
        self._timer: asyncio.TimerHandle | None = exchange.loop.call_later(seconds, self._look)
        self.inside_event = False

    def stop(self) -> None:
        """No comment is sent from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        exchange = self._exchange
        if exchange.over:
            self._timer = None
            return
        self._timer = exchange.loop.call_later(self._seconds / 2, self._look)
        # A client that is behind has bytes enough on their way to it.
        if exchange.bytes_out == self._bytes_out and not self.inside_event and not exchange.behind:
            if not exchange.answered:
                exchange.start_held_events()
            exchange.part(COMMENT)
        self._bytes_out = exchange.bytes_out
