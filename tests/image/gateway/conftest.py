"""A gateway and fake engines in the test's own event loop, on free ports of 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import httpx2
import pytest
import uvloop

from benchmarks.gateway.running import loopback_settings, port_of
from benchmarks.gateway.running import until as until
from fakes.fake_engine import MODEL, Behaviour, FakeEngine
from image.engine.standalone import gateway_environment
from image.gateway.backends import Address, InlineKeys
from image.gateway.capacity.base import EngineScaler, ScalingError
from image.gateway.discovery import Discovery
from image.gateway.errors import ApiError
from image.gateway.keys import KeyRing
from image.gateway.service import Service
from image.gateway.settings import Settings
from image.gateway.telemetry import Telemetry
from infra.planning import make_plan
from infra.stack_files import load_stack
from local import gateway as local_gateway
from tests.infra.kubernetes.rendering import render
from tests.infra.planning.plans import no_hub
from tests.infra.program import run_program

if TYPE_CHECKING:
    from image.gateway.tracing import Tracer

KEY = "sk-test-Zx9"
# Nothing here speaks TLS; a context for each client would cost more than the test.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def pytest_asyncio_loop_factories(
    config: object, item: object
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


class StartEngine(Protocol):
    async def __call__(self, behaviour: Behaviour | None = None) -> FakeEngine: ...


@pytest.fixture
async def start_engine() -> AsyncIterator[StartEngine]:
    engines = []

    async def start(behaviour: Behaviour | None = None) -> FakeEngine:
        engines.append(await FakeEngine(behaviour).start())
        return engines[-1]

    yield start
    for engine in engines:
        await engine.stop()


class Cloud:
    """Discovery and capacity in one: replicas that are there once they have been woken."""

    kind = "cloud"

    def __init__(self, *engines: FakeEngine) -> None:
        self.engines = engines
        self.wakes = 0
        self.failures: list[ScalingError] = []
        self.trouble: ScalingError | None = None
        self.phases: dict[str, float] = {}
        self.unknown_phases: ScalingError | None = None
        self.woken: Callable[[], None] = lambda: None
        self.here: frozenset[Address] = frozenset()

    async def addresses(self) -> frozenset[Address]:
        return self.here

    async def wake(self) -> None:
        self.wakes += 1
        if self.failures:
            raise self.failures.pop(0)
        self.woken()

    async def check(self, since: float) -> None:
        if self.trouble is not None:
            raise self.trouble

    async def phase_ends(self, since: float) -> dict[str, float]:
        if self.unknown_phases is not None:
            raise self.unknown_phases
        return {phase: since + seconds for phase, seconds in self.phases.items()}

    def arrive(self) -> None:
        self.here = frozenset(("127.0.0.1", engine.port) for engine in self.engines)


class Gateway:
    """A running gateway, with its log and metrics."""

    def __init__(self, service: Service, log: int) -> None:
        self.service = service
        self.port = port_of(service)
        self.metrics_port = service.sockets[1].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx2.AsyncClient(
            base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=20, trust_env=False, verify=TLS
        )
        self._log = log

    async def chat(self, *, path: str = "/v1/chat/completions", headers: Any = None, **body: Any) -> httpx2.Response:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]} | body
        return await self.client.post(path, json=body, headers=headers)

    def stream(self, **body: Any) -> contextlib.AbstractAsyncContextManager[httpx2.Response]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True} | body
        return self.client.stream("POST", "/v1/chat/completions", json=body)

    async def info(self) -> dict[str, Any]:
        document: dict[str, Any] = (await self.client.get("/info")).json()
        return document

    async def metric(self, sample: str) -> float:
        """The value of a scraped sample, given with its labels; 0 if it does not exist."""
        response = await self.client.get(f"http://127.0.0.1:{self.metrics_port}/metrics")
        for line in response.text.splitlines():
            if line.startswith(sample + " "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def log_text(self) -> str:
        self.service.telemetry.flush()
        return os.pread(self._log, 1 << 20, 0).decode()

    def log(self, event: str = "request") -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.log_text().splitlines()) if line.get("event") == event]

    async def ready(self, count: int = 1) -> None:
        await until(lambda: len(self.service.fleet.rotation) == count)


def name_of(ring: KeyRing, authorization: bytes | None) -> str | None:
    """The name of the key in an Authorization header; None if it is rejected."""
    try:
        return ring.authenticate([] if authorization is None else [(b"authorization", authorization)]).name
    except ApiError:
        return None


def rendered_environment(rendering: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The gateway's environment as a target deploys it, for the dev stack with some settings changed. Do not call it in an
    event loop, because Pulumi runs its own.
    """
    return dict(_rendered_environment(rendering, json.dumps(values, sort_keys=True)))


@functools.cache
def _rendered_environment(rendering: str, text: str) -> dict[str, str]:
    values = json.loads(text)
    if rendering == "ecs":
        config = {f"vllm-endpoint:{key}": value for key, value in values.items()}
        return run_program("dev", **config).one("TaskDefinition", "gateway").environment()
    if rendering == "kubernetes":
        return render(**values).environment("gateway")
    plan = make_plan(load_stack("dev", values), fetch=no_hub)
    if rendering == "local":
        told = local_gateway.environment(plan, 8000, 9090, "http://127.0.0.1:1", {"model": plan.served_model_name})
        return {name: value for name, value in told.items() if name.startswith("GATEWAY_")}
    if rendering == "standalone":
        return gateway_environment({"VLLM_API_KEY": KEY}, plan.served_model_name, 8000)
    return dict(plan.gateway.environment)


RENDERINGS = ("plan", "ecs", "kubernetes", "local", "standalone")
"""Where a plan is rendered. Only the first three hold a load balancer's and a cluster's settings."""


@pytest.fixture(params=RENDERINGS)
def rendering(request: pytest.FixtureRequest) -> str:
    """Each place where a gateway's environment is rendered."""
    return str(request.param)


# Values that must differ between a test and a deployment: addresses, keys, and discovery intervals. No limits.
_OF_THE_TEST = {
    "GATEWAY_MODEL": MODEL,
    "GATEWAY_HOST": "127.0.0.1",
    "GATEWAY_KEYS": "env:TEST_KEYS",
    "TEST_KEYS": f"tester={KEY}",
    "GATEWAY_DISCOVERY": "fixed:http://127.0.0.1:1",
    "GATEWAY_CAPACITY": "fixed",
    "GATEWAY_PROBE_SECONDS": "0.05",
    "GATEWAY_DISCOVERY_SECONDS": "0.05",
}


@pytest.fixture
def stack_values() -> dict[str, Any]:
    """Settings changed in the stack file; tests override them with `parametrize`."""
    return {}


@pytest.fixture
def deployed(rendering: str, stack_values: dict[str, Any]) -> dict[str, Any]:
    """Arguments for `start_gateway` that create the gateway as a target deploys it, without defaults of the tests."""
    environment = rendered_environment(rendering, stack_values) | _OF_THE_TEST
    environment = {name: value for name, value in environment.items() if name not in ("VLLM_API_KEY", "PYTHONPATH")}
    settings = Settings.from_environment(environment)
    told = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    for name in ("discovery", "capacity", "port", "metrics_port"):  # the fixture's own
        del told[name]
    told["drain_delay_seconds"] = (
        0.0  # no load balancer has to notice the end of a test; test_timeouts.py walks the real one
    )
    return told


class StartGateway(Protocol):
    def __call__(
        self,
        *engines: FakeEngine,
        discovery: Discovery | None = None,
        capacity: EngineScaler | None = None,
        tracer: Tracer | None = None,
        ready: int | None = None,
        **settings: Any,
    ) -> Awaitable[Gateway]: ...


@pytest.fixture
async def start_gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StartGateway]:
    """Starts a gateway in front of some engines, and waits until all of them are in rotation."""
    running: list[tuple[Gateway, asyncio.Task[None], int]] = []

    async def start(
        *engines: FakeEngine,
        discovery: Discovery | None = None,
        capacity: EngineScaler | None = None,
        tracer: Tracer | None = None,
        ready: int | None = None,
        **settings: Any,
    ) -> Gateway:
        defaults = {"keys": InlineKeys(f"tester={KEY}"), "probe_seconds": 0.05, "discovery_seconds": 0.05}
        model = settings.pop("model", MODEL)
        made = loopback_settings(model, [engine.port for engine in engines], **(defaults | settings))
        path = tmp_path_factory.mktemp("gateway") / "log"
        log = os.open(path, os.O_RDWR | os.O_CREAT)
        service = Service(made, discovery=discovery, capacity=capacity, telemetry=Telemetry(log), tracer=tracer)
        gateway = Gateway(service, log)
        running.append((gateway, asyncio.create_task(service.run()), log))
        await gateway.ready(len(engines) if ready is None else ready)
        return gateway

    yield start
    for gateway, task, log in running:
        await gateway.client.aclose()
        if not task.done():
            gateway.service.app.abort_all()
            gateway.service.stop()
        await task
        os.close(log)
