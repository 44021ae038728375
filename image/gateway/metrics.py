"""What Prometheus is told, on a port of its own (GATEWAY_METRICS_PORT)."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


class Metrics:
    """All metrics, in a registry of their own. No label's values come from a client."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._paths: dict[tuple[str, int], Counter] = {}
        self._ttft: dict[str, Histogram] = {}
        self._duration: dict[str, Histogram] = {}
        self._tokens: dict[tuple[str, str], Counter] = {}
        ProcessCollector(registry=self.registry)

        self._requests = self._counter("requests", "Requests answered.", "path", "status")
        self._ttft_seconds = self._histogram(
            "time_to_first_token_seconds", "From the request to the first byte of its answer's body.", "path"
        )
        self._duration_seconds = self._histogram(
            "request_duration_seconds", "From the request to the end of its answer.", "path"
        )
        self.queue_seconds = self._histogram("queue_seconds", "Waited for a slot on a replica, held or queued.")
        self._token_count = self._counter("tokens", "Tokens in usage blocks of answers.", "key", "direction")
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
        counter = self._paths.get((path, status))
        if counter is None:  # resolved once: labels() costs more than inc()
            counter = self._paths[path, status] = self._requests.labels(path, str(status))
            self._duration.setdefault(path, self._duration_seconds.labels(path))
        counter.inc()
        self._duration[path].observe(duration_seconds)

    def first_token(self, path: str, seconds: float) -> None:
        """One answer's first byte of body went out."""
        child = self._ttft.get(path)
        if child is None:
            child = self._ttft[path] = self._ttft_seconds.labels(path)
        child.observe(seconds)

    def tokens(self, key: str, direction: str, count: int) -> None:
        """Tokens of one answer; direction `in` or `out`."""
        child = self._tokens.get((key, direction))
        if child is None:
            child = self._tokens[key, direction] = self._token_count.labels(key, direction)
        child.inc(count)

    def text(self) -> bytes:
        """The exposition format, for one scrape."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"gateway_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"gateway_{name}", text, labels, buckets=_SECONDS, registry=self.registry)
