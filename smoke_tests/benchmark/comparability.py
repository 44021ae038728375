"""Differences that make two runs incomparable, with their severity.

A `refuse` difference makes every ratio meaningless: nothing is judged. A `warn` difference is named, and the figures are
judged. A value that one record lacks is "unknown", which never equals a known value.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from smoke_tests.benchmark.record import Measurement, Part, Record

Severity = Literal["refuse", "warn"]
# Differences up to these are noise: of the cached share in points, of the received length as a fraction.
CACHED_SHARE_POINTS = 0.05
LENGTH_TOLERANCE = 0.02
SHORT_ANSWERS = 0.01
LOAD_SIZE_RATIO = 2.0

REFUSED = {
    "deployment": ("model", "model_revision", "gpu", "gpu_count", "instance_type", "runs_on", "stand_in"),
    "workload": (
        "api", "prompt_tokens", "output_tokens", "dataset", "shared_prefix_tokens", "shared_prefixes", "ignore_eos",
        "temperature", "seed", "same_prompts",
    ),
}  # fmt: skip
# A difference in one of these is usually the subject of the comparison, or has little effect.
WARNED = {
    "deployment": (
        "engine_version", "engine_arguments", "engine_image", "max_model_len", "concurrency_per_replica",
        "gateway_version", "region", "config_hash",
    ),
    "tool": ("machine", "platform", "version"),
}  # fmt: skip
NAMES = {
    "machine": "client machine", "platform": "client platform", "version": "benchmark version",
    "temperature": "sampling temperature", "same_prompts": "prompts (same in every run)",
}  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """A difference between two runs, as one line of text."""

    severity: Severity
    text: str


def differences(base: Record, new: Record) -> Iterator[Difference]:
    """Yield what differs between two records besides their figures."""
    kinds: tuple[tuple[Severity, dict[str, tuple[str, ...]]], ...] = (("refuse", REFUSED), ("warn", WARNED))
    for severity, parts in kinds:
        for part, names in parts.items():
            for name in names:
                found = _difference(name, getattr(base, part), getattr(new, part), severity)
                if found is not None:
                    yield found
    if (dates := [_priced_on(record) for record in (base, new)])[0] != dates[1]:
        yield Difference("warn", f"different price date: {dates[0]} and {dates[1]}; costs are not compared")


def load_differences(base: Measurement, new: Measurement, *, same_prompts: bool) -> Iterator[Difference]:
    """Yield what differs between two measurements of the same load; `same_prompts` if both runs sent the same ones."""
    at = base.load.label
    one, other = base.load, new.load
    if one.warmup_requests != other.warmup_requests:
        yield Difference(
            "refuse", f"{at}: different warm-up: {one.warmup_requests} and {other.warmup_requests} requests"
        )
    if base.replicas != new.replicas:
        known = base.replicas is not None and new.replicas is not None
        shown = " and ".join("unknown" if each is None else str(each) for each in (base.replicas, new.replicas))
        yield Difference("refuse" if known else "warn", f"{at}: different number of ready replicas: {shown}")
    yield from _load_size(base, new)
    yield from _cached(base, new, same_prompts=same_prompts)
    yield from _lengths(base, new)
    for name, point in (("base", base), ("new", new)):
        if point.figures.client_errors:
            text = f"{point.figures.client_errors} requests failed on the client machine, so the load was not reached"
            yield Difference("refuse", f"{at}: {text} ({name} record)")
        if point.client.warning:
            yield Difference("warn", f"{at}: {name} record: {point.client.warning}")


def price_dates_differ(base: Record, new: Record) -> bool:
    """Return whether the prices are of two dates, so that costs cannot be compared."""
    return _priced_on(base) != _priced_on(new)


def _priced_on(record: Record) -> str:
    return (record.prices.priced_on or "unknown") if record.prices else "no prices"


def _difference(name: str, base: Part, new: Part, severity: Severity) -> Difference | None:
    one, other = getattr(base, name), getattr(new, name)
    if name == "same_prompts" and (one is None or other is None):
        return Difference("refuse", "prompts: unknown whether new in every run, an earlier version wrote the record")
    if one == other:
        return None
    # A data file is either used or not; any other missing value is unknown and may be equal.
    unknown = name not in ("dataset", "prompt_tokens", "output_tokens") and (one is None or other is None)
    title = NAMES.get(name, name.replace("_", " "))
    words = f"different {title}: {_shown(one, unknown)} and {_shown(other, unknown)}"
    return Difference("warn" if unknown else severity, words)


def _shown(value: object, unknown: bool) -> str:
    if value is None and unknown:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(str(part) for part in value) or "none"
    return str(getattr(value, "name", value))


def _load_size(base: Measurement, new: Measurement) -> Iterator[Difference]:
    for name, unit in (("requests", "requests"), ("duration_seconds", "s")):
        one, other = getattr(base.load, name), getattr(new.load, name)
        if one == other:
            continue
        if one is None or other is None:
            yield Difference("refuse", f"{base.load.label}: one load ends after --requests, the other after --duration")
            return
        severity: Severity = "refuse" if max(one, other) > LOAD_SIZE_RATIO * min(one, other) else "warn"
        yield Difference(severity, f"{base.load.label}: different size of the load: {one:g} and {other:g} {unit}")


def _cached(base: Measurement, new: Measurement, *, same_prompts: bool) -> Iterator[Difference]:
    shares = [_cached_share(point) for point in (base, new)]
    shown = " and ".join("unknown" if share is None else f"{share:.1%}" for share in shares)
    text = f"{base.load.label}: cached share of the prompt tokens: {shown}"
    if None in shares:
        if same_prompts:
            why = "the prompts are the same in both runs, so a prefix cache may have held them"
            yield Difference("refuse", f"{text}; {why}")
        else:
            yield Difference("warn", text)
    elif abs((shares[0] or 0.0) - (shares[1] or 0.0)) > CACHED_SHARE_POINTS:
        yield Difference("refuse", text)


def _cached_share(point: Measurement) -> float | None:
    cached = point.figures.cached_prompt_tokens
    return None if cached is None else cached / max(1, point.figures.total_input_tokens)


def _lengths(base: Measurement, new: Measurement) -> Iterator[Difference]:
    at = base.load.label
    means = [point.figures.total_output_tokens / max(1, point.figures.completed) for point in (base, new)]
    for name, point in (("base", base), ("new", new)):
        told = point.figures
        if told.wanted_output_tokens is None:
            text = f"{at}: {name} record: requested answer length unknown, an earlier version wrote the record"
            yield Difference("refuse", text)
        elif told.short_answers:
            each = max(1, told.completed)
            lengths = (
                f"{told.total_output_tokens / each:.1f} of {told.wanted_output_tokens / each:.1f} requested tokens"
            )
            text = (
                f"{at}: {name} record: {told.short_answers} of {told.completed} answers are short: {lengths} on average"
            )
            few = told.total_output_tokens >= (1 - SHORT_ANSWERS) * told.wanted_output_tokens
            yield Difference("warn" if few else "refuse", text)
    if (
        not any(point.figures.short_answers for point in (base, new))
        and all(means)
        and max(means) > (1 + LENGTH_TOLERANCE) * min(means)
    ):
        yield Difference("refuse", f"{at}: different received answer length: {means[0]:.1f} and {means[1]:.1f} tokens")
