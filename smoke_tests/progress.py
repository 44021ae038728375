"""One line that tells a waiting person what is going on."""

import sys
import time
from typing import TextIO


class ProgressLine:
    """A line on stderr: rewritten in place on a terminal, else printed anew every `interval_seconds`.

    `interval_seconds` is None where a log wants no progress at all.
    """

    def __init__(self, interval_seconds: float | None = 30.0, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._interval_seconds = interval_seconds
        self._last_print = time.monotonic()
        self._shown = False

    def update(self, text: str) -> None:
        """Show `text`."""
        if self._is_terminal:
            self._stream.write(f"\r\x1b[K{text}")
            self._stream.flush()
            self._shown = True
        elif self._interval_seconds is not None and time.monotonic() - self._last_print >= self._interval_seconds:
            print(text, file=self._stream, flush=True)
            self._last_print = time.monotonic()

    def close(self) -> None:
        """Take the line off the terminal."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False
