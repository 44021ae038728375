"""Scaling from zero, with a scripted scaler."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from image.gateway.capacity.base import ScalingError
from image.gateway.capacity.factory import NoScaler
from image.gateway.telemetry import Telemetry
from image.gateway.waking import Waker
from tests.image.gateway.conftest import until


class Told:
    """A scaler that fails a given number of times, and counts its calls."""

    kind = "told"

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.calls = 0
        self.at_once = 0
        self.trouble = ""

    async def wake(self) -> None:
        self.calls += 1
        self.at_once += 1
        assert self.at_once == 1
        await asyncio.sleep(0.001)
        self.at_once -= 1
        if self.calls <= self.failures:
            raise ScalingError("no luck", "detail")

    async def check(self, since: float) -> None:
        if self.trouble:
            raise ScalingError(self.trouble, "detail")

    async def phase_ends(self, since: float) -> dict[str, float]:
        return {}


class Scene:
    def __init__(self, capacity: Told | NoScaler, log: Path, again_seconds: float = 60) -> None:
        self.log = log
        self.ready = False
        self.waiting = True
        self.telemetry = Telemetry(os.open(log, os.O_WRONLY | os.O_CREAT))
        self.waker = Waker(
            capacity,
            self.telemetry,
            ready=lambda: self.ready,
            waiting=lambda: self.waiting,
            first_backoff_seconds=0.01,
            longest_backoff_seconds=0.02,
            again_seconds=again_seconds,
            check_seconds=0.005,
            follow_seconds=0.1,
        )

    def told(self) -> str:
        self.telemetry.flush()
        return self.log.read_text()

    def become_ready(self) -> None:
        self.ready = True
        self.waker.look_again()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


async def test_one_wake_however_many_need_it(log: Path) -> None:
    capacity = Told()
    scene = Scene(capacity, log)
    for _ in range(100):
        scene.waker.need()
    await until(lambda: capacity.calls == 1)
    for _ in range(100):
        scene.waker.need()
    scene.become_ready()
    await until(lambda: not scene.waker.waking)
    assert capacity.calls == 1
    scene.ready = False
    scene.waker.need()
    await until(lambda: capacity.calls == 2)
    await scene.waker.stop()


async def test_failures_are_tried_again_and_said(log: Path) -> None:
    capacity = Told(failures=3)
    scene = Scene(capacity, log)
    scene.waker.need()
    await until(lambda: capacity.calls == 2)
    assert scene.waker.last_error == "no luck"
    await until(lambda: capacity.calls == 4 and scene.waker.last_error is None)
    scene.become_ready()
    await until(lambda: not scene.waker.waking)
    assert capacity.calls == 4


async def test_it_is_asked_again_when_nothing_comes_of_it(log: Path) -> None:
    """An idle alarm may have set to zero what the wake had set to one."""
    capacity = Told()
    scene = Scene(capacity, log, again_seconds=0.01)
    scene.waker.need()
    await until(lambda: capacity.calls >= 3)
    await scene.waker.stop()


async def test_what_keeps_it_is_said_as_long_as_it_does(log: Path) -> None:
    capacity = Told()
    scene = Scene(capacity, log)
    scene.waker.need()
    capacity.trouble = "no such instance available"
    await until(lambda: scene.waker.last_error == "no such instance available")
    capacity.trouble = ""
    await until(lambda: scene.waker.last_error is None)
    scene.become_ready()
    await until(lambda: not scene.waker.waking)
    assert scene.told().count("wake_blocked") == 1


async def test_what_nobody_waits_for_any_more_is_followed_but_not_asked_for_again(log: Path) -> None:
    capacity = Told()
    scene = Scene(capacity, log, again_seconds=0.01)
    scene.waker.need()
    await until(lambda: capacity.calls == 1)
    scene.waiting = False
    calls = capacity.calls
    await asyncio.sleep(0.03)
    assert scene.waker.waking
    scene.become_ready()
    await until(lambda: not scene.waker.waking)
    assert capacity.calls <= calls + 1
    assert scene.waker.last_cold_start is not None
    scene.ready = False
    scene.waker.need()  # and nothing comes: not for ever
    await until(lambda: not scene.waker.waking)


async def test_it_is_given_up_when_nobody_waits_any_more(log: Path) -> None:
    capacity = Told(failures=10**6)
    scene = Scene(capacity, log)
    scene.waker.need()
    await until(lambda: capacity.calls >= 2)
    scene.waiting = False
    await until(lambda: not scene.waker.waking)
    calls = capacity.calls
    await asyncio.sleep(0)
    assert capacity.calls == calls


async def test_a_capacity_that_breaks_is_told_and_can_be_asked_again(log: Path) -> None:
    class Broken(Told):
        async def wake(self) -> None:
            await super().wake()
            raise ZeroDivisionError

    capacity = Broken()
    scene = Scene(capacity, log)
    scene.waker.need()
    await until(lambda: not scene.waker.waking)
    assert "wake_broken" in scene.told()
    scene.waker.need()
    await until(lambda: capacity.calls == 2)
    await scene.waker.stop()
