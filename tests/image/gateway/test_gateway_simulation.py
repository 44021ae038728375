"""Hours and days of demand on a simulated clock: replicas stay within their limits, each cold start takes one wake, and no
request is cut off."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.gateway.telemetry import Telemetry
from tests.image.gateway.simulation import Arrival, Day, Period, Rules, alarms, poisson, simulate

HOUR = 3600.0
DAY = 24 * HOUR
RULES = Rules()


@pytest.fixture
def telemetry(tmp_path: Path) -> Telemetry:
    return Telemetry(os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT))


def office_hours(seed: int, days: int = 1) -> Iterator[Arrival]:
    """Nine to six, and a few night owls."""
    dice = random.Random(seed)  # noqa: S311
    for day in range(days):
        start = day * DAY
        yield from poisson(dice, start, start + 9 * HOUR, 0.2, 30)
        yield from poisson(dice, start + 9 * HOUR, start + 18 * HOUR, 120, 30)
        yield from poisson(dice, start + 18 * HOUR, start + DAY, 0.2, 30)


def bursts(seed: int) -> Iterator[Arrival]:
    """Every three hours, out of nothing, more than all replicas together can run at once; one of them very long."""
    dice = random.Random(seed)  # noqa: S311
    for hour in range(0, 24, 3):
        yield hour * HOUR + 100, 1500.0, 900.0
        for _ in range(200):
            yield hour * HOUR + 100 + dice.random() * 5, dice.expovariate(1 / 60), 900.0


def flapping(rules: Rules) -> Iterator[Arrival]:
    """The worst times to ask: about when the alarm acts."""
    at = 0.0
    for number in range(40):
        yield at, 20.0, 900.0
        at += rules.scale_down_seconds + (number % 20) * 15


def check(day: Day, requests: int, rules: Rules = RULES) -> None:
    assert day.cut == 0, "nobody's stream is cut off"
    assert day.answered + sum(day.refused.values()) == requests
    assert day.highest <= rules.max_replicas
    print(  # the figure, with `pytest -s`
        f"answered {day.answered} refused {dict(day.refused)} cold starts {day.cold_starts} wakes {day.raised_from_zero} "
        f"(calls {day.wake_calls}) scale-ins {day.scale_ins} (met a request {day.met_a_request}) "
        f"longest wait {day.longest_wait_seconds:.0f} s, instance hours {day.instance_seconds / 3600:.1f}, "
        f"of them idle {day.idle_seconds / 3600:.1f} = ${day.idle_usd:.2f}"
    )


def test_a_quiet_day_costs_nothing(telemetry: Telemetry) -> None:
    day = simulate(RULES, iter([(DAY, 1.0, 900.0)]), telemetry)
    check(day, 1)
    assert day.raised_from_zero == day.cold_starts == 1
    assert day.idle_seconds <= RULES.scale_down_seconds + 3 * 60


@pytest.mark.parametrize("seed", range(3))
def test_office_hours(telemetry: Telemetry, seed: int) -> None:
    requests = list(office_hours(seed))
    day = simulate(RULES, iter(requests), telemetry)
    check(day, len(requests))
    assert day.answered == len(requests)
    assert day.raised_from_zero == day.cold_starts, "at most one wake a cold start"
    assert day.longest_wait_seconds < RULES.cold_start_seconds + 60
    # Each time it falls asleep costs what the alarm waits for, and no more.
    assert day.idle_seconds <= day.instance_seconds
    night = (RULES.scale_down_seconds + 3 * 60) * day.scale_ins
    assert day.idle_seconds < night + 9 * HOUR
    assert day.idle_usd < 10


@pytest.mark.parametrize("seed", range(2))
def test_bursts_scale_out_to_the_most_and_back_to_nothing(telemetry: Telemetry, seed: int) -> None:
    requests = sorted(bursts(seed))
    day = simulate(RULES, iter(requests), telemetry)
    check(day, len(requests))
    assert day.answered == len(requests)
    assert day.highest > 1
    assert day.raised_from_zero == 8


def test_flapping_around_the_alarm_loses_nobody(telemetry: Telemetry) -> None:
    requests = list(flapping(RULES))
    day = simulate(RULES, iter(requests), telemetry)
    check(day, len(requests))
    assert day.answered == len(requests)
    assert day.raised_from_zero == day.cold_starts
    assert day.met_a_request >= 1, "the race was run: a request that came while the alarm was on its way"


def test_wakes_that_fail_are_tried_until_they_do_not(telemetry: Telemetry) -> None:
    """Throttled for a minute, then no machine for twenty; requests held for fifteen minutes get an error, later ones are served."""

    def fails(second: float) -> str | None:
        return "throttled" if second % DAY < 60 else "no machine free" if second % DAY < 1260 else None

    requests = [(float(at), 10.0, 900.0) for at in range(0, 3000, 100)]
    day = simulate(RULES, iter(requests), telemetry, fails)
    check(day, len(requests))
    assert day.refused["no machine free"] >= 4, "the reason, as long as there is one"
    assert day.refused.total() < 8
    assert set(day.refused) <= {"no machine free", "not ready"}
    assert day.cold_starts == 1
    assert day.raised_from_zero == 1
    assert day.wake_calls < 60, "with backoff"


def test_what_never_gets_ready_is_stopped(telemetry: Telemetry) -> None:
    rules = Rules(cold_start_seconds=1e9)
    day = simulate(rules, iter([(0.0, 1.0, 900.0)]), telemetry)
    check(day, 1, rules)
    assert day.refused.total() == 1
    assert day.cold_starts == 0
    assert day.instance_seconds < 900 + rules.startup_timeout_seconds + 300


def test_a_fixed_minimum_is_kept(telemetry: Telemetry) -> None:
    alarmed = alarms([Period(0, 0, 1, 1)] * 30, Rules(min_replicas=1))
    assert alarmed == (False, False)
    assert alarms([Period(0, 0, 1, 1)] * 30, RULES) == (True, False)
    assert alarms([Period(0, 0, 1, 1)] * 14, RULES) == (False, False)
    assert alarms([*[Period(0, 0, 1, 1)] * 14, Period(1, 0.1, 1, 1)], RULES) == (False, False)
    assert alarms([Period(0, 0, 0, 1)] * 29, RULES) == (False, False)
    assert alarms([Period(0, 0, 0, 1)] * 30, RULES) == (False, True)
