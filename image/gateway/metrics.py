"""What Prometheus is told, on a port of its own (GATEWAY_METRICS_PORT)."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

_Collected = TypeVar("_Collected", bound=Collector)

_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


class Metrics:
    """All metrics, in a registry of their own. No label's values come from a client.

    What every request adds to is a `_Count` or a `_Durations`; what is rare is prometheus_client's own, which locks.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        self._requests = self._add(_Count("requests", "Requests answered.", "path", "status"))
        self._ttft = self._add(
            _Durations(
                "time_to_first_token_seconds", "From the request to the first byte of its answer's body.", "path"
            )
        )
        self._duration = self._add(
            _Durations("request_duration_seconds", "From the request to the end of its answer.", "path")
        )
        self._waiting = self._add(_Durations("waiting_seconds", "Waited for a slot on a replica, held or queued."))
        self._tokens = self._add(_Count("tokens", "Tokens in usage blocks of answers.", "key", "direction"))
        self.refusals = self._counter("refusals", "Answered with an error by the gateway itself.", "reason")
        self.cancellations = self._counter("cancellations", "Left by the client before the end.", "stage")
        self.retries = self._counter("retries", "Requests sent to another replica after a first one failed.")
        self.upstream_errors = self._counter("upstream_errors", "Failures of replicas.", "kind")
        self.ejections = self._counter("ejections", "Replicas left out because request after request to them failed.")
        self.wakes = self._counter("wakes", "Calls that start capacity.", "outcome")
        self.cold_start_seconds = self._histogram("cold_start_seconds", "From a wake to the first ready replica.")
        self.cold_start_phase_seconds = self._histogram(
            "cold_start_phase_seconds", "Of a cold start's phases; joined by + where nobody tells them apart.", "phase"
        )
        self.key_reload_failures = self._counter("key_reload_failures", "Key sources that could not be read again.")

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that asks for its value when it is scraped."""
        Gauge(f"gateway_{name}", text, registry=self.registry).set_function(value)

    def request(self, path: str, status: int, duration_seconds: float) -> None:
        """One request is over."""
        self._requests.values[path, status] += 1
        self._duration.observe((path,), duration_seconds)

    def waited(self, seconds: float) -> None:
        """One request waited so long for its slot."""
        self._waiting.observe((), seconds)

    def first_token(self, path: str, seconds: float) -> None:
        """One answer's first byte of body went out."""
        self._ttft.observe((path,), seconds)

    def tokens(self, key: str, direction: str, count: int) -> None:
        """Tokens of one answer; direction `in` or `out`."""
        self._tokens.values[key, direction] += count

    def text(self) -> bytes:
        """The exposition format, for one scrape."""
        return generate_latest(self.registry)

    def _add(self, collector: _Collected) -> _Collected:
        self.registry.register(collector)
        return collector

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"gateway_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"gateway_{name}", text, labels, buckets=_SECONDS, registry=self.registry)


class _Count(Collector):
    """A counter by labels; `values` is added to by the event loop alone."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self._name, self._text, self._labels = f"gateway_{name}", text, labels
        self.values: defaultdict[tuple[str | int, ...], int] = defaultdict(int)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """For a scrape."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in self.values.items():
            family.add_metric([str(label) for label in labels], value)
        yield family


class _Durations(Collector):
    """A histogram of seconds by labels, observed by the event loop alone."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self._name, self._text, self._labels = f"gateway_{name}", text, labels
        self._counts: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * (len(_SECONDS) + 1))
        self._sums: defaultdict[tuple[str, ...], float] = defaultdict(float)

    def observe(self, labels: tuple[str, ...], seconds: float) -> None:
        """Count one."""
        self._counts[labels][bisect_left(_SECONDS, seconds)] += 1
        self._sums[labels] += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For a scrape."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        bounds = [*map(str, map(float, _SECONDS)), "+Inf"]
        for labels, counts in self._counts.items():
            family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), self._sums[labels])
        yield family
