"""Counts the bytes of a download in several threads, and logs the progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from image.engine.memory import GIB

TELL_EVERY_SECONDS = 10.0


class Progress:
    """Counts the bytes downloaded by all threads and logs the progress while the block runs.

    Args:
        name: of the model.
        needed: bytes to download.
        tell: logs a line.
    """

    def __init__(self, name: str, needed: int, tell: Callable[[str], None]) -> None:
        self.fetched = 0
        self._name, self._needed, self._tell = name, needed, tell
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self._thread.join()

    def add(self, count: int) -> None:
        """Add downloaded bytes."""
        with self._lock:
            self.fetched += count

    def stop(self) -> None:
        """Make all threads stop."""
        self._over.set()

    @property
    def stopped(self) -> bool:
        """Whether the threads should stop."""
        return self._over.is_set()

    def pause(self, seconds: float) -> None:
        """Wait, unless the download was stopped."""
        self._over.wait(seconds)

    def summary(self) -> str:
        """The bytes downloaded, the time and the rate."""
        seconds = max(time.monotonic() - self._began, 0.001)
        return f"{self.fetched / GIB:.2f} GiB in {seconds:.0f} s, {self.fetched / 2**20 / seconds:.0f} MiB/s"

    def _run(self) -> None:
        while not self._over.wait(TELL_EVERY_SECONDS):
            rate = self.fetched / (time.monotonic() - self._began)
            left = f", about {max(0.0, self._needed - self.fetched) / rate:.0f} s left" if rate else ""
            self._tell(f"weights: {self._name}: {self.fetched / GIB:.2f} of {self._needed / GIB:.2f} GiB{left}")
