"""Shows the current phase of a start and its duration: one updating line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from local.make_names import by_make

HEARTBEAT_SECONDS = 15.0
REFRESH_SECONDS = 0.2


class Progress:
    """Successive phases, each timed.

    Args:
        stream: the output.
        started: the start time on ``clock``; the second stage passes the first one's.
        clock: returns seconds.
    """

    def __init__(
        self, stream: TextIO = sys.stdout, started: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self.started = clock() if started is None else started
        self.seconds: dict[str, float] = {}
        self._phase = ""
        self._detail = ""
        self._phase_started = self._last_shown = 0.0

    def phase(self, name: str, detail: str = "") -> None:
        """Begin a phase and end the previous one. The current phase continues."""
        if name == self._phase:
            self.detail(detail)
            return
        self.end()
        self._phase, self._detail = name, detail
        self._phase_started = self._clock()
        self._show()

    def detail(self, text: str) -> None:
        """Set what the phase is doing now; it is shown at the next update."""
        self._detail = text or self._detail
        self.tick()

    def tick(self) -> None:
        """Show the phase again if an update is due; call it often while waiting."""
        due = REFRESH_SECONDS if self._terminal else HEARTBEAT_SECONDS
        if self._phase and self._clock() - self._last_shown >= due:
            self._show()

    def end(self, detail: str = "") -> None:
        """End the phase."""
        if self._phase:
            seconds = self._clock() - self._phase_started
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + seconds
            self._write(f"{self._stamp()} {self._phase:<8} done in {seconds:.0f} s{detail and ': ' + detail}")
            self._phase = ""

    def fail(self, reason: str) -> None:
        """End the phase with the reason of its failure."""
        where = f"{self._phase}: " if self._phase and not reason.startswith(f"{self._phase}:") else ""
        self._phase = ""
        self._write(f"error: {where}{by_make(reason)}")

    def say(self, text: str) -> None:
        """Print a permanent line."""
        self._write(text)

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self.started

    def _stamp(self) -> str:
        minutes, seconds = divmod(int(self.elapsed()), 60)
        return f"[{minutes}:{seconds:02d}]"

    def _show(self) -> None:
        self._last_shown = self._clock()
        seconds = self._clock() - self._phase_started
        counting = f" ({seconds:.0f} s)" if seconds >= 1 else ""
        line = f"{self._stamp()} {self._phase:<8} {self._detail}{counting}"
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{line[:width]}")
            self._stream.flush()
        else:
            self._write(line)

    def _write(self, line: str) -> None:
        self._stream.write(f"\r\x1b[K{line}\n" if self._terminal else f"{line}\n")
        self._stream.flush()
