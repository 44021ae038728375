"""Five states of an endpoint, as Prometheus scrapes them: the real gateway's metrics and an engine's with vLLM's names."""

from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from image.gateway.metrics import Metrics
from tests.image.monitoring.prometheus import STEP_SECONDS, Scrapes

SCRAPES = 28  # seven minutes, so that the longest interval of a ratio is full
CHAT = "/v1/chat/completions"
REQUESTS = 30  # by each gateway between two scrapes: two a second
TOKENS = 100  # by each request, in and out


@dataclass
class GatewayReplica:
    """A gateway: its metrics as it exposes them, and the values of its gauges."""

    ready: int = 1
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        for name in ("requests_running", "requests_held", "requests_queued", "demand"):
            self.metrics.watch(name, name, lambda: 0)
        self.metrics.watch("replicas_ready", "replicas_ready", lambda: self.ready)

    def answer(self, count: int, status: int = 200) -> None:
        """Answer requests."""
        for _ in range(count):
            self.metrics.request(CHAT, status, 2.0)
            if status == 200:
                self.metrics.waited(0.01)
                self.metrics.first_token(CHAT, 0.2)
            else:
                self.metrics.refusals.labels("not_ready").inc()
                self.metrics.upstream_errors.labels("connect").inc()


class EngineReplica:
    """The metrics that the dashboard reads of vLLM."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._cache = Gauge("vllm:kv_cache_usage_perc", "x", registry=registry)
        self._running = Gauge("vllm:num_requests_running", "x", registry=registry)
        Gauge("vllm:num_requests_waiting", "x", registry=registry)
        Counter("vllm:num_preemptions", "x", registry=registry)
        names = ("prompt_tokens", "generation_tokens", "prefix_cache_queries", "prefix_cache_hits")
        self._counters = {name: Counter(f"vllm:{name}", "x", registry=registry) for name in names}
        self._between = Histogram("vllm:inter_token_latency_seconds", "x", buckets=(0.01, 0.02, 1), registry=registry)

    def answer(self, count: int) -> None:
        """Answer requests; half of their prompts are in the prefix cache."""
        self._cache.set(0.25)
        self._running.set(4)
        for name, counter in self._counters.items():
            counter.inc(count * TOKENS * (0.5 if name == "prefix_cache_hits" else 1))
        for _ in range(count):
            self._between.observe(0.015)

    def text(self) -> bytes:
        """The metrics in the exposition format."""
        return generate_latest(self._registry)


class Endpoint:
    """Gateways and engines by instance, which a state changes from scrape to scrape."""

    def __init__(self, gateways: int, engines: int) -> None:
        self.gateways = {str(number): GatewayReplica(ready=engines) for number in range(gateways)}
        self.engines = {str(number): EngineReplica() for number in range(engines)}
        self.scrapes = Scrapes()

    def serve(self) -> None:
        """The requests between two scrapes: each gateway sends its own to the engines in equal parts."""
        for gateway in self.gateways.values():
            gateway.answer(REQUESTS)
        for engine in self.engines.values():
            engine.answer(REQUESTS * len(self.gateways) // len(self.engines))

    def scrape(self) -> None:
        """Scrape all."""
        gateways = {("gateway", name): one.metrics.text for name, one in self.gateways.items()}
        self.scrapes.scrape(gateways | {("engine", name): one.text for name, one in self.engines.items()})


def idle() -> Scrapes:
    """Scaled to zero, and no request ever came."""
    endpoint = Endpoint(gateways=1, engines=0)
    for _ in range(SCRAPES):
        endpoint.scrape()
    return endpoint.scrapes


def good() -> Scrapes:
    """Two requests a second, all answered."""
    endpoint = Endpoint(gateways=1, engines=1)
    for _ in range(SCRAPES):
        endpoint.serve()
        endpoint.scrape()
    return endpoint.scrapes


def failing() -> Scrapes:
    """A new gateway, which never found an engine: the first errors arrive after some minutes, all between two scrapes."""
    endpoint = Endpoint(gateways=1, engines=0)
    for number in range(SCRAPES):
        if number == SCRAPES - 3:
            endpoint.gateways["0"].answer(REQUESTS, 503)
        endpoint.scrape()
    return endpoint.scrapes


def restarted() -> Scrapes:
    """Gateway and engine start again under traffic, with their counters at zero."""
    endpoint = Endpoint(gateways=1, engines=1)
    for number in range(SCRAPES):
        if number == SCRAPES - 2:
            endpoint.gateways["0"], endpoint.engines["0"] = GatewayReplica(), EngineReplica()
        endpoint.serve()
        endpoint.scrape()
    return endpoint.scrapes


def one_gone() -> Scrapes:
    """One of two gateways and one of two engines are gone, and the others serve on."""
    endpoint = Endpoint(gateways=2, engines=2)
    for number in range(SCRAPES):
        if number == SCRAPES // 2:
            del endpoint.gateways["1"], endpoint.engines["1"]
            endpoint.gateways["0"].ready = 1
        endpoint.serve()
        endpoint.scrape()
    return endpoint.scrapes


STATES: dict[str, Callable[[], Scrapes]] = {
    "idle": idle, "good": good, "failing": failing, "restarted": restarted, "one gone": one_gone,
}  # fmt: skip
PER_SECOND = REQUESTS / STEP_SECONDS
