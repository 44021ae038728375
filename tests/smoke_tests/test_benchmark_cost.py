"""Dollars a million tokens, by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoke_tests.benchmark.cost import DailyPattern, cost, parse_pattern
from smoke_tests.benchmark.deployment import prices
from smoke_tests.benchmark.record import Cost, Figures, Prices
from smoke_tests.errors import TargetError
from smoke_tests.target import Target
from tests.smoke_tests.benchmark_records import figures

# 1,000 tokens a second: 3.6 million an hour.
FIGURES = Figures.model_validate(figures(duration=10.0, total_input_tokens=6_000, total_output_tokens=4_000))
OUTPUTS = {
    "usdPerHourActive": 1.2, "usdPerHourIdle": 0.2, "usdPerColdStart": 0.5, "scaleDownMinutes": 30, "minReplicas": 0,
    "usdPerHourReplica": 1.0, "pricedOn": "2026-11-21",
}  # fmt: skip


def priced(**changes: Any) -> Prices:
    base: dict[str, Any] = {"usd_per_hour_active": 7.2, "source": "test", "output_to_input_price": 4.0}
    return Prices(**(base | changes))


def known(figures: Figures, prices: Prices, replicas: int | None = None, pattern: DailyPattern | None = None) -> Cost:
    found = cost(figures, prices, replicas, pattern)
    assert found is not None
    return found


def test_the_prices_of_input_and_output_pay_the_hour_once() -> None:
    told = known(FIGURES, priced())
    assert told.usd_per_million_total_tokens == pytest.approx(2.0)
    # $0.02 for 6,000 tokens in and 4,000 out at four times: 22,000 shares.
    assert told.usd_per_million_input_tokens == pytest.approx(0.02 / 22_000 * 1e6)
    assert told.usd_per_million_output_tokens == pytest.approx(4 * 0.02 / 22_000 * 1e6)
    assert told.with_idle_hours is None
    assert cost(FIGURES, None, 1, None) is None


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.1, 20), st.floats(0.01, 100))
def test_the_bill_is_paid_once_whatever_the_ratio(inputs: int, outputs: int, ratio: float, usd: float) -> None:
    told = known(
        FIGURES.model_copy(update={"total_input_tokens": inputs, "total_output_tokens": outputs}),
        priced(usd_per_hour_active=usd, output_to_input_price=ratio),
    )
    if inputs + outputs == 0:
        assert told.usd_per_million_output_tokens is None
        return
    assert told.usd_per_million_input_tokens is not None
    assert told.usd_per_million_output_tokens is not None
    paid = (inputs * told.usd_per_million_input_tokens + outputs * told.usd_per_million_output_tokens) / 1e6
    assert paid == pytest.approx(usd * 10 / 3600)


@pytest.mark.parametrize(
    ("text", "busy", "active", "cold_starts"),
    [
        ("8", 8, 8.5, 1),
        ("24", 24, 24, 0),
        ("23.8", 23.8, 24, 0),
        ("9-12,13-18", 8, 9, 2),
        # A lunch shorter than the half hour until it scales down stays up, and so does a midnight.
        ("9-12,12.25-18", 8.75, 9.5, 1),
        ("0-2,12-13,23.75-24", 3.25, 4.25, 2),
    ],
)
def test_a_day_has_tails_and_cold_starts(text: str, busy: float, active: float, cold_starts: int) -> None:
    pattern = parse_pattern(text)
    assert pattern.busy_hours == pytest.approx(busy)
    assert pattern.day(0.5) == pytest.approx((active, cold_starts))


@pytest.mark.parametrize("text", ["", "0", "25", "8h", "9-8", "8-8", "9-12,11-13", "20-30", "-1", "9-12;13-18"])
def test_what_is_no_pattern_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is not a daily pattern; give hours a day such as 8"):
        parse_pattern(text)


def test_idle_hours_are_paid_by_the_tokens_of_the_busy_ones() -> None:
    day = known(
        FIGURES,
        priced(usd_per_hour_idle=0.2, usd_per_cold_start=0.5, scale_down_seconds=1800),
        pattern=parse_pattern("8"),
    ).with_idle_hours
    assert day is not None
    assert (day.busy_hours, day.active_hours, day.idle_hours, day.cold_starts) == (8, 8.5, 15.5, 1)
    assert day.usd_per_day == pytest.approx(8.5 * 7.2 + 15.5 * 0.2 + 0.5)
    assert day.usd_per_million_total_tokens == pytest.approx(day.usd_per_day / (8 * 3.6))


@pytest.mark.parametrize("idle", [None, 7.2])
def test_what_never_scales_down_is_paid_all_day(idle: float | None) -> None:
    given = priced(usd_per_hour_idle=idle, usd_per_cold_start=0.5)
    day = known(FIGURES, given, pattern=parse_pattern("6")).with_idle_hours
    assert day is not None
    assert day.usd_per_day == pytest.approx(24 * 7.2)
    assert day.cold_starts == 0


def test_further_replicas_are_paid() -> None:
    given = priced(usd_per_hour_replica=1.0, replicas_in_active=2)
    assert [known(FIGURES, given, replicas).usd_per_hour for replicas in (None, 1, 2, 5)] == [7.2, 7.2, 7.2, 10.2]


def test_prices_are_the_stacks_unless_given() -> None:
    target = Target("http://a", stack="dev", usd_per_hour=1.2, outputs=OUTPUTS)
    told = prices(target, {"usd_per_hour_active": None, "usd_per_hour_idle": 0.3}, 4.0)
    assert told is not None
    assert (told.usd_per_hour_active, told.usd_per_hour_idle, told.usd_per_cold_start) == (1.2, 0.3, 0.5)
    assert (told.scale_down_seconds, told.usd_per_hour_replica, told.replicas_in_active) == (1800, 1.0, 1)
    assert told.source == "the outputs of stack dev"
    assert prices(Target("http://a"), {"usd_per_hour_active": None}, 4.0) is None
    with pytest.raises(TargetError, match="give --usd-per-hour, too"):
        prices(Target("http://a"), {"usd_per_hour_active": None, "usd_per_hour_idle": 1.0}, 4.0)
