"""Simulates days of demand in seconds: the gateway's own waker and admission on a simulated clock, with a model of AWS.

The model follows infra/aws/scaling.py: two alarms over periods of a minute that set service and group to minReplicas,
and target tracking on demand per ready replica. Instances start after a delay, or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from image.gateway.admission import Admission
from image.gateway.backends import FixedDiscovery
from image.gateway.capacity.base import ScalingError
from image.gateway.errors import ApiError
from image.gateway.fleet import Replica
from image.gateway.settings import Settings
from image.gateway.telemetry import Telemetry
from image.gateway.waking import Waker

PERIOD_SECONDS = 60
USD_PER_HOUR = 1.006  # g5.xlarge, on demand, us-east-1


class _Jump(selectors.SelectSelector):
    """Instead of waiting, the clock moves."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everything waits, and nothing will happen"
        self.now += max(timeout, 0.0)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock advances only while all tasks wait, and then at once."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


@dataclass(frozen=True)
class Rules:
    """The numbers of a plan that scaling goes by."""

    min_replicas: int = 0
    max_replicas: int = 3
    scale_down_seconds: int = 900
    startup_timeout_seconds: int = 1800
    scale_out_cooldown_seconds: int = 300
    target_demand_per_replica: int = 12
    concurrency_per_replica: int = 16
    cold_start_seconds: float = 240
    drain_seconds: float = 600
    report_seconds: float = 60
    """From the end of a period to the alarm's action on it."""


@dataclass(frozen=True)
class Period:
    """What the metrics say of one minute: the highest of each, and the average of demand."""

    demand: int
    average: float
    ready: int
    instances: int


def alarms(periods: Sequence[Period], rules: Rules) -> tuple[bool, bool]:
    """Whether `idle` and `stuck` are in alarm after these periods (infra/aws/scaling.py)."""

    def all_of_last(seconds: int, breaches: Callable[[Period], bool]) -> bool:
        count = seconds // PERIOD_SECONDS
        return len(periods) >= count and all(breaches(period) for period in periods[-count:])

    least = rules.min_replicas
    idle = all_of_last(rules.scale_down_seconds, lambda p: p.demand <= 0 and p.ready > 0 and p.instances > least)
    stuck = all_of_last(
        max(rules.startup_timeout_seconds, rules.scale_down_seconds),
        lambda p: p.demand <= 0 and p.ready <= 0 and p.instances > least,
    )
    return idle, stuck


def tracked(periods: Sequence[Period], desired: int, rules: Rules) -> int:
    """What target tracking sets: out after 3 minutes above the target, in after 15 below nine tenths of it."""

    def per_replica(period: Period) -> float | None:
        return period.average / period.ready if period.ready else None  # no data while nothing is ready

    for count, low, high in (
        (3, rules.target_demand_per_replica, math.inf),
        (15, -1, 0.9 * rules.target_demand_per_replica),
    ):
        values = [per_replica(period) for period in periods[-count:]]
        if len(values) == count and all(value is not None and low < value < high for value in values):
            last = values[-1] or 0.0
            wanted = math.ceil(last * periods[-1].ready / rules.target_demand_per_replica)
            wanted = min(max(wanted, rules.min_replicas), rules.max_replicas)
            return max(wanted, desired) if count == 3 else min(wanted, desired)
    return desired


@dataclass
class Day:
    """The results of a trace."""

    answered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    longest_wait_seconds: float = 0.0
    wake_calls: int = 0
    raised_from_zero: int = 0
    cold_starts: int = 0
    scale_ins: int = 0
    met_a_request: int = 0
    highest: int = 0
    instance_seconds: float = 0.0
    idle_seconds: float = 0.0

    @property
    def idle_usd(self) -> float:
        """The cost of instances while there was no demand."""
        return self.idle_seconds / 3600 * USD_PER_HOUR


class World:
    """The gateway's waker and admission, the service and the group, and the clients of one trace."""

    kind = "simulated"

    def __init__(self, rules: Rules, telemetry: Telemetry, fails: Callable[[float], str | None]) -> None:
        """`fails`: why the platform starts nothing at that second, if so."""
        self.rules = rules
        self.day = Day()
        self._fails = fails
        self.desired = rules.min_replicas
        self.rotation: list[Replica] = []
        self._coming: list[asyncio.Task[None]] = []
        self._numbers = iter(range(1, 1 << 30))
        settings = Settings(
            model="m",
            discovery=FixedDiscovery(()),
            concurrency_per_replica=rules.concurrency_per_replica,
            max_queued_requests=10_000,
        )
        self.settings = settings
        self.waker = Waker(
            self, telemetry, ready=lambda: bool(self.rotation), waiting=lambda: self.admission.waiting > 0
        )
        self.admission = Admission(settings, lambda: self.rotation, self.waker.need)

    # The platform, as the gateway's capacity

    async def wake(self) -> None:
        self.day.wake_calls += 1
        await asyncio.sleep(0.2)
        if (reason := self._fails(asyncio.get_running_loop().time())) == "throttled":
            raise ScalingError(reason, reason)
        if self.desired == 0:
            self.day.raised_from_zero += 1
            self._set(1)

    async def check(self, since: float) -> None:
        if reason := self._fails(asyncio.get_running_loop().time()):
            raise ScalingError(reason, reason)

    async def phase_ends(self, since: float) -> dict[str, float]:
        return {}

    @property
    def instances(self) -> int:
        return self.desired

    def _set(self, desired: int) -> None:
        assert 0 <= self.rules.min_replicas <= desired <= self.rules.max_replicas
        self.desired = desired
        self.day.highest = max(self.day.highest, desired)
        self._coming = [task for task in self._coming if not task.done()]
        while len(self.rotation) + len(self._coming) < desired:
            self._coming.append(asyncio.get_running_loop().create_task(self._start()))
        while len(self.rotation) + len(self._coming) > desired:
            if self._coming:
                self._coming.pop().cancel()
            else:
                self._stop(min(self.rotation, key=lambda replica: replica.outstanding))

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        while self._fails(loop.time()) is not None:  # noqa: ASYNC110 - the model's weather tells nobody
            await asyncio.sleep(15)
        await asyncio.sleep(self.rules.cold_start_seconds)
        self._coming.remove(asyncio.current_task())  # type: ignore[arg-type]
        self.day.cold_starts += 1
        self.rotation = [*self.rotation, Replica(("10.0.0.1", next(self._numbers)), 1)]
        self.waker.look_again()
        self.admission.dispatch()

    def _stop(self, replica: Replica) -> None:
        """Out of rotation; what runs on it has `drain_seconds` to end."""
        self.rotation = [other for other in self.rotation if other is not replica]
        replica.leaving = True
        replica.ejected = False
        self._drained_by[replica] = asyncio.get_running_loop().time() + self.rules.drain_seconds

    _drained_by: dict[Replica, float]

    async def autoscale(self) -> None:
        """Every minute: what the metrics of the minutes before say."""
        loop = asyncio.get_running_loop()
        self._drained_by = {}
        periods: list[Period] = []
        last_out = -math.inf
        self.admission.take_peak()
        while True:
            demand, samples = 0, []
            ready = instances = 0
            for _ in range(6):
                await asyncio.sleep(PERIOD_SECONDS / 6)
                peak = self.admission.take_peak()
                demand = max(demand, peak)
                samples.append(peak)
                ready, instances = max(ready, len(self.rotation)), max(instances, self.instances)
                self.day.instance_seconds += self.instances * PERIOD_SECONDS / 6
                if not peak:
                    self.day.idle_seconds += self.instances * PERIOD_SECONDS / 6
            periods = [*periods[-120:], Period(demand, sum(samples) / 6, ready, instances)]
            loop.call_later(self.rules.report_seconds, self._act, tuple(periods))
            wanted = tracked(periods, self.desired, self.rules)
            if wanted > self.desired and loop.time() - last_out >= self.rules.scale_out_cooldown_seconds and ready:
                last_out = loop.time()
                self._set(wanted)
            elif wanted < self.desired and loop.time() - last_out >= self.rules.scale_down_seconds and wanted > 0:
                self._scale_in(wanted)

    def _act(self, periods: tuple[Period, ...]) -> None:
        idle, stuck = alarms(periods, self.rules)
        if (idle or stuck) and self.desired > self.rules.min_replicas:
            assert stuck or not self._coming or self.rotation, "a scale-in under a load"
            self._scale_in(self.rules.min_replicas)

    def _scale_in(self, desired: int) -> None:
        self.day.scale_ins += 1
        if desired == 0:
            self.day.met_a_request += self.admission.demand > 0
        self._set(desired)

    # Clients

    async def request(self, seconds: float, patience: float) -> None:
        """One request that takes an engine so long, and whose client waits so long for its turn."""
        loop = asyncio.get_running_loop()
        day, began = self.day, loop.time()
        replica = self.admission.try_take()
        if replica is None:
            try:
                ticket = self.admission.enqueue(1000)
            except ApiError as error:
                day.refused[error.reason] += 1
                return
            try:
                async with asyncio.timeout(patience):
                    replica = await ticket.slot
            except TimeoutError:
                self.admission.leave(ticket)
                day.refused[self.waker.last_error or "not ready"] += 1
                return
        day.longest_wait_seconds = max(day.longest_wait_seconds, loop.time() - began)
        await asyncio.sleep(seconds)
        if loop.time() > self._drained_by.get(replica, math.inf):
            day.cut += 1
        else:
            day.answered += 1
        self.admission.release(replica)


Arrival = tuple[float, float, float]
"""When a request comes, how long it takes an engine, how long its client waits."""


def simulate(
    rules: Rules,
    trace: Iterator[Arrival],
    telemetry: Telemetry,
    fails: Callable[[float], str | None] = lambda second: None,
) -> Day:
    """Run a trace to its end, and on until all is idle again."""

    async def main() -> Day:
        world = World(rules, telemetry, fails)
        loop = asyncio.get_running_loop()
        background = [loop.create_task(world.autoscale())]
        await asyncio.sleep(0)
        requests = set()
        for when, seconds, patience in trace:
            await asyncio.sleep(max(when - loop.time(), 0))
            task = loop.create_task(world.request(seconds, patience))
            requests.add(task)
            task.add_done_callback(requests.discard)
        while requests:
            await asyncio.wait(requests)
        await asyncio.sleep(rules.startup_timeout_seconds + rules.scale_down_seconds + 600)
        assert world.admission.demand == 0
        assert world.desired == rules.min_replicas, "what nobody uses is stopped"
        await world.waker.stop()
        for task in [*background, *world._coming]:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await background[0]
        return world.day

    return run(main())


def run(main: Coroutine[Any, Any, Day]) -> Day:
    """On a simulated clock."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)


def poisson(dice: random.Random, first: float, last: float, per_hour: float, seconds: float) -> Iterator[Arrival]:
    """Requests at random, of exponential lengths."""
    at = first
    while (at := at + dice.expovariate(per_hour / 3600)) < last:
        yield at, dice.expovariate(1 / seconds), 900.0
