"""Scaling from zero: one wake at a time, retried while requests are held; reports failure reasons and the ledger."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from image.gateway import ledger
from image.gateway.capacity.base import EngineScaler, ScalingError
from image.gateway.telemetry import Telemetry


class Waker:
    """Starts the engine while requests are held. `last_error` is the reason why it does not start, worded for clients."""

    def __init__(
        self,
        capacity: EngineScaler,
        telemetry: Telemetry,
        *,
        ready: Callable[[], bool],
        waiting: Callable[[], bool],
        settled: Callable[[], bool] = lambda: True,
        settle_seconds: float = 5.0,
        first_backoff_seconds: float = 1.0,
        longest_backoff_seconds: float = 60.0,
        again_seconds: float = 60.0,
        check_seconds: float = 15.0,
        follow_seconds: float = 1800.0,
    ) -> None:
        self._capacity = capacity
        self._telemetry = telemetry
        self._ready = ready
        self._waiting = waiting
        self._settled = settled
        self._settle_seconds = settle_seconds
        self._first_backoff_seconds = first_backoff_seconds
        self._longest_backoff_seconds = longest_backoff_seconds
        self._again_seconds = again_seconds
        self._check_seconds = check_seconds
        self._follow_seconds = follow_seconds
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.last_error: str | None = None
        self.last_cold_start: dict[str, Any] | None = None
        """The newest cold start's ledger."""

    @property
    def waking(self) -> bool:
        """Whether a wake is in progress."""
        return self._task is not None

    def need(self) -> None:
        """A request is held and no replica is ready. Starts a wake unless one is in progress."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._over)

    def look_again(self) -> None:
        """The rotation changed: re-check what a wake is waiting for."""
        self._changed.set()

    async def stop(self) -> None:
        """Cancel a wake in progress."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _over(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._telemetry.event("wake_broken", level="error", error=repr(error))
        elif not task.cancelled() and self._waiting() and not self._ready():
            self.need()  # not ready any more, because the replica was lost while the ledger was written

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        began, wall_clock = loop.time(), time.time()
        backoff = self._first_backoff_seconds
        # A gateway that has just started or lost a connection may not have probed a running engine yet.
        await self._until(lambda: self._ready() or self._settled(), self._settle_seconds)
        if self._ready():
            self.last_error = None
            return
        self._telemetry.event("wake", capacity=self._capacity.kind)
        while not self._ready():
            try:
                await self._capacity.wake()
            except ScalingError as error:
                self.last_error = str(error)
                self._telemetry.metrics.wakes.labels("failed").inc()
                self._telemetry.event("wake_failed", level="error", error=error.detail, again_in_seconds=backoff)
                # Jitter, so that several gateways do not retry at the same moment.
                await self._until_ready(backoff * random.uniform(0.8, 1.2))  # noqa: S311
                backoff = min(backoff * 2, self._longest_backoff_seconds)
                followed_until = 0.0
            else:
                self._telemetry.metrics.wakes.labels("ok").inc()
                backoff = self._first_backoff_seconds
                followed_until = began + self._follow_seconds
                # Call wake again later: an idle alarm may have scaled to zero at the same moment.
                await self._watch(wall_clock)
            # If no request waits any more, the engine still starts: follow it for the ledger, but do not call wake again.
            while not self._ready() and not self._waiting() and loop.time() < followed_until:
                await self._watch(wall_clock)
            if not self._waiting():
                break
        if self._ready():
            self.last_error = None
            seconds = loop.time() - began
            self._telemetry.metrics.cold_start_seconds.observe(seconds)
            self._telemetry.event("wake_over", seconds=round(seconds, 3))
            await self._write_ledger(wall_clock, wall_clock + seconds)
        else:
            self._telemetry.event("wake_given_up", reason="no request is waiting any more")

    async def _watch(self, since: float) -> None:
        """Wait for a ready replica, and check meanwhile why it does not start."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._again_seconds
        while not self._ready() and (left := until - loop.time()) > 0:
            await self._until_ready(min(self._check_seconds, left))
            if self._ready():
                return
            try:
                await self._capacity.check(since)
            except ScalingError as error:
                if self.last_error != str(error):
                    self._telemetry.metrics.wakes.labels("blocked").inc()
                    self._telemetry.event("wake_blocked", level="error", error=error.detail)
                self.last_error = str(error)
            else:
                self.last_error = None

    async def _write_ledger(self, began: float, ready: float) -> None:
        try:
            ends = await self._capacity.phase_ends(began)
        except ScalingError as error:
            self._telemetry.event("phases_unknown", level="error", error=error.detail)
            ends = {}
        found = ledger.entries(began, ready, ends, self._capacity.kind)
        for entry in found:
            self._telemetry.metrics.cold_start_phase_seconds.labels(entry.phase).observe(entry.seconds)
        phases = ledger.as_json(found)
        self.last_cold_start = {"began": round(began, 3), "seconds": round(ready - began, 3), "phases": phases}
        self._telemetry.event("cold_start", **self.last_cold_start)

    async def _until_ready(self, seconds: float) -> None:
        """Wait for a ready replica, at most `seconds`."""
        await self._until(self._ready, seconds)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return
