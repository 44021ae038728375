"""The plots that lay records over one another: throughput, first token, cost."""

import math
from collections.abc import Sequence
from typing import Any

from smoke_tests.benchmark.cost import DailyPattern, cost
from smoke_tests.benchmark.record import Measurement, Record
from smoke_tests.benchmark.report.chart import Chart, as_time, as_usd, known
from smoke_tests.benchmark.report.plot import LINES, Axis, Plot, Point, axis, short

HOURS = tuple(hour / 2 for hour in range(1, 49))


def throughput_against_latency(records: Sequence[tuple[str, Record]]) -> Chart | None:
    """Every load of every record: how much comes out, and how long a request takes then."""
    found = [(name, [point for point in record.measurements if point.figures.completed]) for name, record in records]
    points = [point for _, each in found for point in each]
    if not points:
        return None
    x = axis([point.figures.output_throughput for point in points], "output tokens a second")
    y = axis([known(point.figures.p99_e2el_ms) for point in points], "whole answer, ms")
    plot, rows, several = Plot(x, y), [], len(records) > 1
    for series, (name, each) in enumerate(found):
        ordered = sorted(each, key=lambda point: point.figures.output_throughput)
        for figure, dashed in (("median_e2el_ms", False), ("p99_e2el_ms", True)):
            plot.line([_at(point, figure) for point in ordered], series, dashed=dashed)
        for point in ordered:
            told, load = point.figures, point.load.label
            plot.dot(
                *_at(point, "median_e2el_ms"),
                series,
                f"{load}: {told.output_throughput:,.0f} tokens/s, median {as_time(told.median_e2el_ms)}",
            )
            plot.dot(
                *_at(point, "p99_e2el_ms"),
                series,
                f"{load}: {told.output_throughput:,.0f} tokens/s, p99 {as_time(told.p99_e2el_ms)}",
            )
            # The last load names its record, so that equal colours and curves on one another are told apart.
            last = point is ordered[-1]
            words = f"{series + 1}: {load}" if several and last else load
            plot.label(*_at(point, "p99_e2el_ms"), words, required=last)
            rows.append(
                (name, load, short(told.output_throughput), as_time(told.median_e2el_ms), as_time(told.p99_e2el_ms))
            )
    best = max(points, key=lambda point: point.figures.output_throughput)
    says = (
        f"Most came out at {best.load.label}: {best.figures.output_throughput:,.0f} output tokens a second, half of the answers within "
        f"{as_time(best.figures.median_e2el_ms)}. Solid: median. Dashed: 99th percentile. Down and to the right is better."
    )
    return Chart(
        "throughput", "Throughput against latency", says, plot.svg("throughput", "Throughput against latency", says),
        _legend(found), ("record", "load", "output tokens/s", "median", "p99"), tuple(rows),
    )  # fmt: skip


def ttft_distribution(records: Sequence[tuple[str, Record]]) -> Chart | None:
    """What share of the requests had their first token after how long, for each load (one record) or each record."""
    several = len(records) > 1
    curves: list[tuple[str, list[float]]] = []
    numbers: list[int] = []  # of each curve's record
    for number, (name, record) in enumerate(records, 1):
        measured = [point for point in record.measurements if point.figures.completed]
        chosen = measured[-1:] if several else _spread(measured, LINES)
        numbers += [number] * len(chosen)
        curves += [
            (
                f"{name}, {point.load.label}" if several else point.load.label,
                sorted(time for time in point.samples.ttft_ms if time is not None),
            )
            for point in chosen
        ]
    if not curves:
        return None
    every = [time for _, times in curves for time in times]
    wide = max(every) > 8 * max(min(every), 0.1)
    near = max(every) < 3 * min(every)  # else the room from zero on would be empty
    x = axis(every, "time to first token, ms" + (" (log scale)" if wide else ""), log=wide, zero=not near)
    plot = Plot(x, Axis(0.0, 1.0, "share of requests", format=lambda share: f"{share:.0%}"))
    for series, (_, times) in enumerate(curves):
        stairs = [(times[0], 0.0), *((time, (place + 1) / len(times)) for place, time in _thinned(times))]
        plot.steps([*stairs, (x.high, 1.0)], series)
        if several:
            plot.label(times[len(times) // 2], 0.5, str(numbers[series]), required=True)
    says = (
        "How many requests had their first token within so many milliseconds. A steep line far to the left is better."
    )
    rows = tuple(
        (
            name,
            len(times),
            *(as_time(times[min(len(times) - 1, int(len(times) * share))]) for share in (0.5, 0.9, 0.99)),
        )
        for name, times in curves
    )
    return Chart(
        "ttft", "Time to first token", says, plot.svg("ttft", "Distribution of the time to first token", says),
        tuple(enumerate(name for name, _ in curves)), ("load", "requests", "50% within", "90% within", "99% within"), rows,
    )  # fmt: skip


def cost_against_utilisation(records: Sequence[tuple[str, Record]]) -> Chart | None:
    """What a million output tokens cost by the hours a day in which the best measured load comes."""
    curves: list[tuple[int, bool, list[Point]]] = []
    several = len(records) > 1
    marks: list[tuple[float, float, int, str]] = []
    rows: list[tuple[Any, ...]] = []
    for series, (name, record) in enumerate(records):
        measured = [point for point in record.measurements if point.cost and point.figures.total_output_tokens]
        if not measured or record.prices is None:
            continue
        point = max(measured, key=lambda each: each.figures.output_throughput)
        for prices, kind, dashed in (
            (record.prices, "to zero when idle", False),
            (record.prices.model_copy(update={"usd_per_hour_idle": None}), "always on", True),
        ):
            if not dashed and (
                prices.usd_per_hour_idle is None or prices.usd_per_hour_idle >= prices.usd_per_hour_active
            ):
                continue
            line = []
            for hours in HOURS:
                told = cost(point.figures, prices, point.replicas, DailyPattern(((0.0, hours),)))
                if told and told.with_idle_hours and told.with_idle_hours.usd_per_million_output_tokens is not None:
                    line.append((hours, told.with_idle_hours.usd_per_million_output_tokens))
            curves.append((series, dashed, line))
            rows += [
                (name, kind, f"{hours:g} h", f"{hours / 24:.0%}", as_usd(usd))
                for hours, usd in line
                if hours in (1, 4, 8, 12, 24)
            ]
        day = point.cost.with_idle_hours if point.cost else None
        if day and day.usd_per_million_output_tokens is not None:
            usd = day.usd_per_million_output_tokens
            marks.append((day.busy_hours, usd, series, f"{series + 1 if several else day.pattern}: {as_usd(usd)}"))
    values = [usd for *_, line in curves for _, usd in line if usd > 0]
    if not values:
        return None
    y = axis(values, "$ per million output tokens (log)", log=True)
    y = Axis(y.low, y.high, y.title, log=True, format=as_usd)
    x = Axis(0.0, 24.0, "busy hours a day (24 is full utilisation)", at=tuple(range(0, 25, 4)))
    plot = Plot(x, y)
    for series, dashed, line in curves:
        plot.line(line, series, dashed=dashed)
    for hours, usd, series, words in marks:
        plot.dot(hours, usd, series, words)
    for hours, usd, _, words in marks:
        plot.label(hours, usd, words, required=True)
    says = (
        "An idle hour is paid by the tokens of the busy ones. Solid: the stack goes to zero when idle, its scale-down tail and cold "
        "start included. Dashed: it is always on."
    )
    legend = tuple((series, name) for series, (name, _) in enumerate(records)) if several else ()
    head = ("record", "stack", "busy a day", "utilisation", "$ per million output tokens")
    return Chart(
        "cost",
        "Cost against utilisation",
        says,
        plot.svg("cost", "Cost against utilisation", says),
        legend,
        head,
        tuple(rows),
    )


def _spread(points: list[Measurement], most: int) -> list[Measurement]:
    """Return at most so many of them, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[round(number * (len(points) - 1) / (most - 1))] for number in range(most)]


def _thinned(times: list[float]) -> list[tuple[int, float]]:
    every = math.ceil(len(times) / 400)
    return [(place, time) for place, time in enumerate(times) if place % every == 0 or place == len(times) - 1]


def _at(point: Measurement, figure: str) -> Point:
    return point.figures.output_throughput, known(getattr(point.figures, figure))


def _legend(found: Sequence[tuple[str, list[Measurement]]]) -> tuple[tuple[int, str], ...]:
    return tuple((series, name) for series, (name, _) in enumerate(found)) if len(found) > 1 else ()
