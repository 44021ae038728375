"""Prometheus metrics, served on a separate port (GATEWAY_METRICS_PORT)."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, product
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

_Collected = TypeVar("_Collected", bound=Collector)

# Exposed as 0 from the start: Prometheus counts no increase for the first value of a series, so that a series which
# appears with its first errors would never show them.
_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
_STATUSES = (200, 400, 401, 429, 500, 502, 503, 504)
_REFUSALS = (
    "body", "body_timeout", "body_too_large", "busy", "content_encoding", "draining", "engine", "engine_died",
    "engine_protocol", "engine_refused", "internal", "key", "key_concurrency", "key_conflict", "key_expired",
    "key_requests_per_minute", "key_tokens_per_minute", "method", "model", "not_ready", "origin", "path", "queue_bytes",
    "queue_full", "request_timeout",
)  # fmt: skip
_STAGES = ("receiving", "waiting", "connecting", "asked", "answering")
_UPSTREAM_ERRORS = ("connect", "reset", "protocol", "status_5xx")
_WAKES = ("ok", "failed", "blocked")
_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


class Metrics:
    """All metrics, in a separate registry. Label values never come from clients.

    Metrics updated by every request are `_Count` or `_Durations`; rare ones use prometheus_client's types, which lock.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        self._requests = self._add(
            _Count("requests", "Requests answered. Probes and preflights are not counted.", "path", "status")
        )
        self._ttft = self._add(
            _Durations(
                "time_to_first_token_seconds", "Time from the request to the first byte of the response body.", "path"
            )
        )
        self._duration = self._add(
            _Durations("request_duration_seconds", "Time from the request to the end of its response.", "path")
        )
        self._waiting = self._add(
            _Durations("waiting_seconds", "Time that a request waited for a slot on a replica, held or queued.")
        )
        self._tokens = self._add(_Count("tokens", "Tokens, from the usage blocks of responses.", "key", "direction"))
        self.refusals = self._counter("refusals", "Requests that the gateway itself answered with an error.", "reason")
        self.cancellations = self._counter(
            "cancellations", "Requests whose client disconnected before the end.", "stage"
        )
        self.retries = self._counter("retries", "Requests sent again after a replica failed.")
        self.upstream_errors = self._counter("upstream_errors", "Failed requests to replicas.", "kind")
        self.ejections = self._counter("ejections", "Replicas ejected after repeated failed requests.")
        self.wakes = self._counter("wakes", "Calls that start the engine.", "outcome")
        self.cold_start_seconds = self._histogram("cold_start_seconds", "Time from a wake to the first ready replica.")
        self.cold_start_phase_seconds = self._histogram(
            "cold_start_phase_seconds",
            "Duration of each phase of a cold start; phases that cannot be separated are joined by +.",
            "phase",
        )
        self.key_reload_failures = self._counter("key_reload_failures", "Failed reloads of the API keys.")
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        self._requests.start_at_zero(product(_PATHS, _STATUSES))
        self._duration.start_at_zero((path,) for path in _PATHS)
        for counter, values in (
            (self.refusals, _REFUSALS), (self.cancellations, _STAGES), (self.upstream_errors, _UPSTREAM_ERRORS),
            (self.wakes, _WAKES),
        ):  # fmt: skip
            for value in values:
                counter.labels(value)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is read at each scrape."""
        Gauge(f"gateway_{name}", text, registry=self.registry).set_function(value)

    def request(self, path: str, status: int, duration_seconds: float) -> None:
        """Count one finished request."""
        self._requests.values[path, status] += 1
        self._duration.observe((path,), duration_seconds)

    def waited(self, seconds: float) -> None:
        """Record how long a request waited for its slot."""
        self._waiting.observe((), seconds)

    def first_token(self, path: str, seconds: float) -> None:
        """Record the time to the first byte of a response body."""
        self._ttft.observe((path,), seconds)

    def tokens(self, key: str, direction: str, count: int) -> None:
        """Count tokens of one response; direction `in` or `out`."""
        self._tokens.values[key, direction] += count

    def text(self) -> bytes:
        """The metrics in the exposition format."""
        return generate_latest(self.registry)

    def _add(self, collector: _Collected) -> _Collected:
        self.registry.register(collector)
        return collector

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"gateway_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"gateway_{name}", text, labels, buckets=_SECONDS, registry=self.registry)


class _Count(Collector):
    """A counter by labels; only the event loop may change `values`."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self._name, self._text, self._labels = f"gateway_{name}", text, labels
        self.values: defaultdict[tuple[str | int, ...], int] = defaultdict(int)

    def start_at_zero(self, labels: Iterable[tuple[str | int, ...]]) -> None:
        """Expose these series before anything is counted."""
        self.values.update(dict.fromkeys(labels, 0))

    def collect(self) -> Iterator[CounterMetricFamily]:
        """For a scrape."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in self.values.items():
            family.add_metric([str(label) for label in labels], value)
        yield family


class _Durations(Collector):
    """A histogram of seconds by labels; only the event loop may call `observe`."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self._name, self._text, self._labels = f"gateway_{name}", text, labels
        self._counts: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * (len(_SECONDS) + 1))
        self._sums: defaultdict[tuple[str, ...], float] = defaultdict(float)

    def start_at_zero(self, labels: Iterable[tuple[str, ...]]) -> None:
        """Expose these series before anything is observed."""
        for one in labels:
            _ = self._counts[one], self._sums[one]

    def observe(self, labels: tuple[str, ...], seconds: float) -> None:
        """Record one duration."""
        self._counts[labels][bisect_left(_SECONDS, seconds)] += 1
        self._sums[labels] += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For a scrape."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        bounds = [*map(str, map(float, _SECONDS)), "+Inf"]
        for labels, counts in self._counts.items():
            family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), self._sums[labels])
        yield family
