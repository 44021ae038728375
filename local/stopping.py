"""Handles Ctrl-C, SIGTERM and a closed terminal: the first signal stops, the second kills everything at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from local.processes import kill_all

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A stop signal arrived. It is not an Exception, so that no handler treats it as a failure."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def exit_code_of(stopped: Stopped) -> int:
    """The exit code that shells use for "terminated by a signal"."""
    return 128 + stopped.number


@contextlib.contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `Stopped` in the block at the first signal; at the second, kill every process and exit."""
    asked = False

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked:
            kill_all()
            os._exit(128 + number)
        asked = True
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:  # respect nohup
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
