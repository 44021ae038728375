"""Requests that are not counted: probes, preflights and pages. And cold starts that did not happen."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fakes.fake_engine import MODEL
from image.gateway.backends import InlineKeys
from tests.image.gateway.conftest import KEY, Cloud, Gateway, StartEngine, StartGateway, until

PROBES = 25
KEYS = InlineKeys(json.dumps({"tester": KEY, "litellm": {"key": "sk-probe", "health": True}}))
PREFLIGHT = {"origin": "https://app.example.com", "access-control-request-method": "POST"}
# These change with time or with the scrape itself.
_NOT_COMPARED = ("process_", "gateway_idle_seconds")


async def metrics(gateway: Gateway) -> dict[str, str]:
    """Every sample that Prometheus scrapes, by name and labels."""
    text = (await gateway.client.get(f"http://127.0.0.1:{gateway.metrics_port}/metrics")).text
    samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith(("#", *_NOT_COMPARED)))
    return {name: value for name, _, value in samples}


async def probe(gateway: Gateway) -> None:
    """What load balancers, container health checks, scrapers, browsers and tools send."""
    for path in ("/health", "/health/ready", "/health/", "//health", "/info", "/", "/favicon.ico"):
        for method in ("GET", "HEAD", "POST"):
            await gateway.client.request(method, path)
    await gateway.client.get(f"http://127.0.0.1:{gateway.metrics_port}/metrics")
    await gateway.client.options("/v1/chat/completions", headers=PREFLIGHT)
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)  # a TCP health check
    writer.close()
    await writer.wait_closed()


async def test_probes_are_in_no_metric(
    start_engine: StartEngine, start_gateway: StartGateway, deployed: dict[str, Any]
) -> None:
    settings = deployed | {"allowed_origins": (PREFLIGHT["origin"],)}
    gateway = await start_gateway(await start_engine(), **settings)
    await gateway.chat()
    before, since = await metrics(gateway), gateway.service.admission._idle_since
    for _ in range(PROBES):
        await gateway.client.get("/health")
    await probe(gateway)
    assert await metrics(gateway) == before
    assert gateway.service.admission._idle_since == since
    assert len(gateway.log()) == 1, "dashboards query the log for requests, too"
    await gateway.chat()
    assert await gateway.metric('gateway_requests_total{path="/v1/chat/completions",status="200"}') == 2


async def test_readiness_that_fails_while_draining_is_not_an_error(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(await start_engine())
    before = await metrics(gateway)
    gateway.service.app.draining = True
    assert (await gateway.client.get("/health/ready")).status_code == 503
    gateway.service.app.draining = False
    assert await metrics(gateway) == before


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "ready"])
async def test_health_checks_with_a_key_are_in_no_metric_of_requests(
    start_engine: StartEngine, start_gateway: StartGateway, cold: bool
) -> None:
    engine = await start_engine()
    cloud = Cloud(engine)
    gateway = await (
        start_gateway(discovery=cloud, capacity=cloud, keys=KEYS) if cold else start_gateway(engine, keys=KEYS)
    )
    before = await metrics(gateway)
    headers = {"authorization": "Bearer sk-probe"}
    for _ in range(3):
        assert (await gateway.chat(max_tokens=1, headers=headers)).status_code == 200
        assert (await gateway.client.get("/v1/models", headers=headers)).status_code == 200
    changed = {name for name, value in (await metrics(gateway)).items() if before.get(name) != value}
    assert {name for name in changed if not name.startswith("gateway_tokens_")} == set()
    assert bool(changed) is not cold, "the tokens that the engine wrote are usage of that key"
    assert (gateway.log(), len(gateway.log("uncounted"))) == ([], 6)
    if not cold:
        await gateway.chat(max_tokens=900, headers=headers)
        assert len(gateway.log()) == 1, "a longer request of the same key is counted"


async def test_a_probe_whose_engine_fails_is_not_an_error_rate(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    cloud = Cloud(await start_engine())
    gateway = await start_gateway(discovery=cloud, capacity=cloud, keys=KEYS)
    gateway.service.waker.last_error = "no instance available"
    before = await metrics(gateway)
    assert (await gateway.chat(max_tokens=1, headers={"authorization": "Bearer sk-probe"})).status_code == 503
    assert await metrics(gateway) == before


async def test_a_request_before_the_first_probe_is_not_a_cold_start(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """The engine is up before the gateway, as in `make local` and in every rollout of the gateway."""
    engine = await start_engine()
    cloud = Cloud(engine)
    gate = asyncio.Event()

    async def addresses() -> frozenset[tuple[str, int]]:
        await gate.wait()
        return frozenset({("127.0.0.1", engine.port)})

    cloud.addresses = addresses  # type: ignore[method-assign]
    gateway = await start_gateway(discovery=cloud, capacity=cloud, ready=0)
    first = asyncio.create_task(gateway.chat())
    await until(lambda: gateway.service.admission.held == 1)
    gate.set()
    assert (await first).status_code == 200
    await until(lambda: not gateway.service.waker.waking)
    assert cloud.wakes == 0
    assert await gateway.metric("gateway_cold_start_seconds_count") == 0
    assert gateway.service.waker.last_cold_start is None
    assert gateway.log("wake") == gateway.log("cold_start") == []


async def test_a_lost_connection_is_not_a_cold_start(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    """The only replica leaves the rotation until its next probe, which it answers."""
    engine = await start_engine()
    cloud = Cloud(engine)
    cloud.arrive()
    gateway = await start_gateway(discovery=cloud, capacity=cloud, ready=1)
    (replica,) = gateway.service.fleet.rotation
    gateway.service.fleet.suspect(replica)
    assert gateway.service.fleet.rotation == []
    assert (await gateway.chat()).status_code == 200
    await until(lambda: not gateway.service.waker.waking)
    assert cloud.wakes == 0
    assert await gateway.metric("gateway_cold_start_seconds_count") == 0


async def test_an_engine_that_is_gone_is_still_woken(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    cloud = Cloud(engine)
    cloud.here = frozenset({("127.0.0.1", 1)})  # discovered, but nothing listens
    cloud.woken = cloud.arrive
    gateway = await start_gateway(discovery=cloud, capacity=cloud, ready=0)
    assert (await gateway.chat(model=MODEL)).status_code == 200
    await until(lambda: not gateway.service.waker.waking)
    assert cloud.wakes == 1
    assert await gateway.metric("gateway_cold_start_seconds_count") == 1
