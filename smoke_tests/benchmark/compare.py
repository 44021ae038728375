"""Compares two records: ratios, regressions past a threshold, and differences that make the records incomparable."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Literal

from smoke_tests.benchmark.comparability import differences, load_differences, price_dates_differ
from smoke_tests.benchmark.record import Measurement, Record
from smoke_tests.benchmark.table import merged_chunks
from smoke_tests.shares import LARGEST

Verdict = Literal["better", "worse", "same", "shown"]
# The 99th percentile of fewer requests is one request.
REQUESTS_FOR_A_TAIL = 100


@dataclass(frozen=True)
class Thresholds:
    """Thresholds as fractions: with 0.1, a figure may be 10% worse.

    `max_slowdown` is for throughputs and the means and medians of times, `max_tail_slowdown` for 99th percentiles,
    `max_cost_increase` for dollars a million tokens, `max_cold_start_slowdown` for the cold start;
    `max_success_rate_drop` is in points of the rate (0.01: from 100% to 99%). Raises ValueError for one below 0 or above 10.
    """

    max_slowdown: float = 0.1
    max_tail_slowdown: float = 0.25
    max_cost_increase: float = 0.1
    max_cold_start_slowdown: float = 0.25
    max_success_rate_drop: float = 0.01

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0 <= value <= LARGEST:
                raise ValueError(f"{each.name}: {value} must be a fraction, for example 0.1 for 10%")


@dataclass(frozen=True)
class Row:
    """One figure of both records. `ratio` is new / base; `limit` is its worst accepted value, None if it is not judged."""

    load: str
    figure: str
    base: float
    new: float
    ratio: float | None
    limit: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """The result. If `incomparable` has reasons, no figure is judged and `passed` is None."""

    rows: tuple[Row, ...] = ()
    incomparable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    regressions: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool | None:
        """True if no figure exceeded its threshold, False if one did, None if no figure was judged."""
        return None if self.incomparable else not self.regressions


@dataclass(frozen=True)
class _Figure:
    name: str
    threshold: str
    higher_is_better: bool = False
    tail: bool = False


FIGURES = (
    _Figure("request_throughput", "max_slowdown", higher_is_better=True),
    _Figure("output_throughput", "max_slowdown", higher_is_better=True),
    _Figure("request_goodput", "max_slowdown", higher_is_better=True),
    _Figure("median_ttft_ms", "max_slowdown"),
    _Figure("p99_ttft_ms", "max_tail_slowdown", tail=True),
    _Figure("median_tpot_ms", "max_slowdown"),
    _Figure("median_itl_ms", "max_slowdown"),
    _Figure("p99_itl_ms", "max_tail_slowdown", tail=True),
    _Figure("median_e2el_ms", "max_slowdown"),
    _Figure("p99_e2el_ms", "max_tail_slowdown", tail=True),
)


def compare(base: Record, new: Record, thresholds: Thresholds | None = None, *, anyway: bool = False) -> Comparison:
    """Compare `new` with `base`, load by load. A pure function.

    Records with a `refuse` difference (see comparability.py), or without a load in common, are incomparable: ratios are
    returned, but no regressions. With `anyway`, regressions are returned, and these differences become notes.
    """
    limits = thresholds or Thresholds()
    pairs, notes = _common_loads(base, new)
    found = list(differences(base, new))
    same_prompts = base.workload.same_prompts is not False and new.workload.same_prompts is not False
    for one, other in pairs:
        found += load_differences(one, other, same_prompts=same_prompts)
    refused = [each.text for each in found if each.severity == "refuse"]
    incomparable = [] if anyway else refused
    notes += [each.text for each in found if each.severity == "warn"] + (refused if anyway else [])
    notes += [
        f"interrupted: the {name} record" for name, record in (("base", base), ("new", new)) if record.interrupted
    ]
    if not pairs:
        loads = [", ".join(point.load.label for point in record.measurements) or "none" for record in (base, new)]
        incomparable.append(f"no load in common: {loads[0]}; and {loads[1]}")
    skipped, why = _not_comparable_figures(base, new)
    notes += why
    rows = [row for one, other in pairs for row in _load_rows(one, other, limits) if row.figure not in skipped]
    rows += _cold_start_rows(base, new, limits)
    notes += [_few(one, other) for one, other in pairs if _has_few(one, other)]
    for pair in pairs:
        for name, point in zip(("base", "new"), pair, strict=True):
            if told := merged_chunks(point.figures):
                notes.append(f"{point.load.label}: {name} record: {told}; it is shown, not judged")
    regressions = [] if incomparable else [_sentence(row) for row in rows if row.verdict == "worse"]
    return Comparison(tuple(rows), tuple(incomparable), tuple(notes), tuple(regressions))


def as_text(comparison: Comparison, base_name: str, new_name: str) -> str:
    """Return the comparison as text."""
    lines = [f"base  {base_name}", f"new   {new_name}"]
    load = None
    for row in comparison.rows:
        if row.load != load:
            lines += ["", f"{row.load:32}{'base':>12}{'new':>12}{'ratio':>9}{'limit':>9}"]
            load = row.load
        ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
        limit = "-" if row.limit is None else f"{row.limit:.3f}"
        mark = "" if comparison.incomparable or row.verdict in ("same", "shown") else f"  {row.verdict}"
        lines.append(f"{row.figure:32}{_number(row.base):>12}{_number(row.new):>12}{ratio:>9}{limit:>9}{mark}")
    lines.append("")
    lines += [f"note: {note}" for note in comparison.notes]
    lines += [f"not comparable: {reason}" for reason in comparison.incomparable]
    lines += [f"worse: {regression}" for regression in comparison.regressions]
    verdicts = {
        None: "no figure was judged (--anyway judges incomparable records)",
        True: "nothing got worse past its limit",
    }
    lines.append(verdicts.get(comparison.passed, f"{len(comparison.regressions)} figures got worse past their limit"))
    return "\n".join(lines)


def _not_comparable_figures(base: Record, new: Record) -> tuple[set[str], list[str]]:
    """Return the figures that two records compute differently, and a note for each."""
    skipped, why = set(), []
    if base.goodput_slos_ms != new.goodput_slos_ms and base.goodput_slos_ms and new.goodput_slos_ms:
        skipped.add("request_goodput")
        why.append(f"different SLO: {base.goodput_slos_ms} and {new.goodput_slos_ms}; goodput is not compared")
    if base.prices and new.prices:
        if price_dates_differ(base, new):
            skipped |= {"usd_per_million_output_tokens", "usd_per_million_total_tokens"}
        ratios = (base.prices.output_to_input_price, new.prices.output_to_input_price)
        if ratios[0] != ratios[1]:
            skipped.add("usd_per_million_output_tokens")
            why.append(
                f"an output token counts {ratios[0]:g} and {ratios[1]:g} input tokens; its price is not compared"
            )
        hours = (base.prices.usd_per_hour_active, new.prices.usd_per_hour_active)
        if hours[0] != hours[1]:
            why.append(f"different price: ${hours[0]:g} and ${hours[1]:g} an hour")
    return skipped, why


def _load_rows(base: Measurement, new: Measurement, limits: Thresholds) -> Iterator[Row]:
    label, few = base.load.label, _has_few(base, new)
    merged = any(merged_chunks(point.figures) for point in (base, new))
    for figure in FIGURES:
        one, other = getattr(base.figures, figure.name), getattr(new.figures, figure.name)
        if one is None or other is None:
            continue
        shown = (figure.tail and few) or (merged and "itl" in figure.name)
        allowed = None if shown else float(getattr(limits, figure.threshold))
        yield _row(label, figure.name, one, other, allowed, higher_is_better=figure.higher_is_better)
    one, other = base.figures.success_rate, new.figures.success_rate
    least = one - limits.max_success_rate_drop
    verdict: Verdict = "worse" if other < least - 1e-9 else "better" if other > one else "same"
    yield Row(label, "success_rate", one, other, other / one if one else None, least / one if one else None, verdict)
    if base.cost and new.cost:
        for name in ("usd_per_million_output_tokens", "usd_per_million_total_tokens"):
            one, other = getattr(base.cost, name), getattr(new.cost, name)
            if one is not None and other is not None:
                yield _row(label, name, one, other, limits.max_cost_increase, higher_is_better=False)


def _cold_start_rows(base: Record, new: Record, limits: Thresholds) -> Iterator[Row]:
    if base.cold_start and new.cold_start:
        one, other = base.cold_start.seconds_to_first_token, new.cold_start.seconds_to_first_token
        yield _row(
            "cold start", "cold_start_seconds", one, other, limits.max_cold_start_slowdown, higher_is_better=False
        )


def _row(load: str, name: str, one: float, other: float, allowed: float | None, *, higher_is_better: bool) -> Row:
    """A figure's row. 10% worse is 1.1 times a time, and 1/1.1 of a throughput: the same work, 1.1 times as long."""
    if one == 0:
        return Row(load, name, one, other, None, None, "same" if other == 0 else "shown")
    ratio = other / one
    if allowed is None:
        return Row(load, name, one, other, ratio, None, "shown")
    limit = 1 / (1 + allowed) if higher_is_better else 1 + allowed
    slower = 1 / ratio if higher_is_better and ratio else ratio if not higher_is_better else float("inf")
    verdict: Verdict = (
        "worse" if slower > (1 + allowed) * (1 + 1e-9) else "better" if slower < 1 / (1 + allowed) else "same"
    )
    return Row(load, name, one, other, ratio, limit, verdict)


def _sentence(row: Row) -> str:
    at = "" if row.load == "cold start" else f" at {row.load}"
    limit = f", limit {row.limit:.3f}" if row.limit is not None else ""
    ratio = f" ({row.ratio:.3f} times{limit})" if row.ratio is not None else ""
    return f"{row.figure}{at}: {_number(row.base)} became {_number(row.new)}{ratio}"


def _common_loads(base: Record, new: Record) -> tuple[list[tuple[Measurement, Measurement]], list[str]]:
    ours = {point.load.label: point for point in base.measurements}
    theirs = {point.load.label: point for point in new.measurements}
    notes = [f"only in the base: {label}" for label in ours if label not in theirs]
    notes += [f"only in the new: {label}" for label in theirs if label not in ours]
    return [(point, theirs[label]) for label, point in ours.items() if label in theirs], notes


def _has_few(one: Measurement, other: Measurement) -> bool:
    return min(one.figures.completed, other.figures.completed) < REQUESTS_FOR_A_TAIL


def _few(one: Measurement, other: Measurement) -> str:
    least = min(one.figures.completed, other.figures.completed)
    return f"{one.load.label}: p99 of {least} requests is shown, not judged; judging requires {REQUESTS_FOR_A_TAIL}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
