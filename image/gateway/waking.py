"""From zero: one wake at a time, tried again while requests wait, and what became of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from image.gateway.capacity import Capacity, CapacityError
from image.gateway.telling import Telling


class Waker:
    """Wakes capacity while it is wanted. `last_error` is the reason the last try failed, in words for clients."""

    def __init__(
        self,
        capacity: Capacity,
        telling: Telling,
        *,
        ready: Callable[[], bool],
        waiting: Callable[[], bool],
        first_backoff_seconds: float = 1.0,
        longest_backoff_seconds: float = 60.0,
        again_seconds: float = 60.0,
    ) -> None:
        self._capacity = capacity
        self._telling = telling
        self._ready = ready
        self._waiting = waiting
        self._first_backoff_seconds = first_backoff_seconds
        self._longest_backoff_seconds = longest_backoff_seconds
        self._again_seconds = again_seconds
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.last_error: str | None = None

    @property
    def waking(self) -> bool:
        """Whether a wake is under way."""
        return self._task is not None

    def need(self) -> None:
        """A request waits and no replica is ready. Starts a wake unless one is under way."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._over)

    def look_again(self) -> None:
        """A replica became ready: what a wake waits for."""
        self._changed.set()

    async def stop(self) -> None:
        """Give up a wake under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _over(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._telling.event("wake_broken", level="error", error=repr(error))

    async def _run(self) -> None:
        started = asyncio.get_running_loop().time()
        backoff = self._first_backoff_seconds
        self._telling.event("wake", capacity=self._capacity.kind)
        while not self._ready():
            try:
                await self._capacity.wake()
            except CapacityError as error:
                self.last_error = str(error)
                self._telling.metrics.wakes.labels("failed").inc()
                self._telling.event("wake_failed", level="error", error=error.detail, again_in_seconds=backoff)
                # Several gateways must not come back at the same moment.
                pause = backoff * random.uniform(0.8, 1.2)  # noqa: S311
                backoff = min(backoff * 2, self._longest_backoff_seconds)
            else:
                self.last_error = None
                self._telling.metrics.wakes.labels("ok").inc()
                # Once more after a while: an idle alarm may have set it to zero at the same moment.
                pause, backoff = self._again_seconds, self._first_backoff_seconds
            await self._until_ready(pause)
            if not self._waiting():
                break
        if self._ready():
            seconds = asyncio.get_running_loop().time() - started
            self.last_error = None
            self._telling.metrics.cold_start_seconds.observe(seconds)
            self._telling.event("wake_over", seconds=round(seconds, 3))
        else:
            self._telling.event("wake_given_up", reason="nobody waits any more")

    async def _until_ready(self, seconds: float) -> None:
        """Wait so long at most for a ready replica."""
        try:
            async with asyncio.timeout(seconds):
                while not self._ready():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return
