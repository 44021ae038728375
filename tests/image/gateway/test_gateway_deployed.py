"""The promises of docs/gateway.md hold in the deployed gateway, created from the environment that each target renders rather
than from the settings' defaults."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import httpx2
import pytest

from fakes import fake_engine
from image.gateway.demand import METRICS
from image.gateway.settings import Settings
from tests.image.gateway.conftest import (
    _OF_THE_TEST,
    KEY,
    RENDERINGS,
    Cloud,
    Gateway,
    StartEngine,
    StartGateway,
    rendered_environment,
    until,
)
from tests.infra.program import run_program

# Fields that a rendering sets, and why each is not left to its default: it is decided there, or only known there.
DECIDED = {
    "model", "adapters", "media_hosts", "discovery", "capacity", "keys", "info", "host", "port", "metrics_port", "count",
    "trusted_proxies", "concurrency_per_replica", "emf_namespace", "stack",
    # The chain of timeouts, which tests/infra/test_timeouts.py walks.
    "hold_timeout_seconds", "hold_timeout_nonstream_seconds", "request_timeout_nonstream_seconds", "keep_alive_seconds",
    "drain_delay_seconds", "drain_timeout_seconds",
    "chat_page",  # of make local alone, which test_gateway_environment.py holds
    "discovery_seconds",  # a file on this machine, read more often than a name server is asked
}  # fmt: skip
EVERY_SETTING = {
    "gatewayCount": 2, "concurrencyPerReplica": 16, "mediaHosts": ["media.internal"], "loraAdapters": ["a=org/a"],
}  # fmt: skip


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("values", [{}, EVERY_SETTING], ids=["as it is", "every setting"])
def test_what_is_rendered_sets_what_it_names_and_nothing_else(rendering: str, values: dict[str, Any]) -> None:
    """A variable that turns off the default of another would do so silently in every deployment."""
    environment = rendered_environment(rendering, values)
    least = {name: environment.get(name, value) for name, value in _OF_THE_TEST.items() if "PROBE" not in name}
    environment = least | environment | {"VLLM_API_KEY": KEY}
    whole = dataclasses.asdict(Settings.from_environment(environment))
    named = {name.removeprefix("GATEWAY_").lower() for name in environment if name.startswith("GATEWAY_")}
    assert named <= DECIDED
    defaults = dataclasses.asdict(Settings(model="m", discovery=whole["discovery"]))
    assert {name for name in whole if whole[name] != defaults[name]} <= named
    for variable in named - {"model", "discovery", "keys"}:
        left = {name: value for name, value in environment.items() if name != f"GATEWAY_{variable.upper()}"}
        if variable == "stack":
            continue  # belongs to the namespace
        without = dataclasses.asdict(Settings.from_environment(left))
        assert {name for name in whole if whole[name] != without[name]} <= {variable}


async def fill(gateway: Gateway, running: int, waiting: int) -> list[asyncio.Task[httpx2.Response]]:
    """So many requests that run, and so many that wait behind them."""
    requests = [asyncio.create_task(gateway.chat()) for _ in range(running + waiting)]
    admission = gateway.service.admission
    await until(lambda: (admission.running, admission.waiting) == (running, waiting))
    return requests


async def test_a_warm_engine_has_a_short_queue(
    start_engine: StartEngine, start_gateway: StartGateway, deployed: dict[str, Any]
) -> None:
    engine = await start_engine(fake_engine.answer_when_told)
    gateway = await start_gateway(engine, **deployed)
    requests = await fill(gateway, 16, 4)
    refused = await gateway.chat()
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) > 0
    engine.go_on.set()
    assert {(await request).status_code for request in requests} == {200}


@pytest.mark.parametrize("stack_values", [{"gatewayCount": 2}])
async def test_gateways_share_the_queue_and_the_slots(
    start_engine: StartEngine, start_gateway: StartGateway, deployed: dict[str, Any], rendering: str
) -> None:
    engine = await start_engine(fake_engine.answer_when_told)
    gateway = await start_gateway(engine, **deployed)
    # This machine runs one gateway, whatever the stack says, and so does a container for both.
    slots = 16 if rendering in ("local", "standalone") else 8
    requests = await fill(gateway, slots, slots // 4)
    assert (await gateway.chat()).status_code == 429
    engine.go_on.set()
    assert {(await request).status_code for request in requests} == {200}


async def test_a_cold_engine_is_waited_for_by_256_requests(
    start_engine: StartEngine, start_gateway: StartGateway, deployed: dict[str, Any]
) -> None:
    cloud = Cloud(await start_engine())
    gateway = await start_gateway(discovery=cloud, capacity=cloud, ready=0, **deployed)
    last = asyncio.create_task(gateway.chat())
    await until(lambda: gateway.service.admission.held == 1)
    others = [gateway.service.admission.enqueue(0, "tester") for _ in range(255)]
    assert (await gateway.chat()).status_code == 429
    for ticket in others:
        gateway.service.admission.leave(ticket)
    cloud.arrive()
    assert (await last).status_code == 200


@pytest.fixture
def queue_full_alarm() -> dict[str, Any]:
    alarms = run_program("dev", alarmEmail="ops@example.com").all("MetricAlarm")
    (found,) = [alarm.inputs for alarm in alarms if alarm.name.endswith("-queue-full")]
    return found


@pytest.mark.parametrize("rendering", ["ecs"], indirect=True)
async def test_the_alarm_on_a_full_queue_can_ring(
    start_engine: StartEngine, start_gateway: StartGateway, deployed: dict[str, Any], queue_full_alarm: dict[str, Any]
) -> None:
    """The gateway's own figures, read as the alarm that the stack makes reads them."""
    alarm = queue_full_alarm
    (query,) = alarm["metricQueries"]
    assert alarm["comparisonOperator"] == "GreaterThanOrEqualToThreshold"
    combine = sum if query["metric"]["stat"] == "Sum" else max
    assert query["metric"]["stat"] in ("Sum", "Maximum")
    engine = await start_engine(fake_engine.answer_when_told)
    gateway = await start_gateway(engine, **deployed)
    report = gateway.service._demand

    def value() -> int:
        report.sample()
        line = report.line()
        report._samples.clear()
        return int(combine(line[query["metric"]["metricName"]]))

    assert query["metric"]["metricName"] in METRICS
    requests = await fill(gateway, 16, 4)
    assert value() < alarm["threshold"]
    assert (await gateway.chat()).status_code == 429
    assert value() >= alarm["threshold"]
    assert value() < alarm["threshold"]
    engine.go_on.set()
    await asyncio.gather(*requests)


async def test_the_bounds_of_a_request_are_those_of_the_page(
    start_engine: StartEngine, start_gateway: StartGateway, deployed: dict[str, Any]
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, **deployed)
    nested: Any = "x"
    for _ in range(101):
        nested = [nested]
    assert (await gateway.chat(pad=nested)).status_code == 400
    assert (await gateway.chat(pad="x" * (20 << 20))).status_code == 413
    assert (await gateway.client.get("/health", headers={"x-pad": "x" * (65 << 10)})).status_code == 431
    assert (await gateway.chat(path="/invocations")).status_code == 404
    assert (await gateway.chat(headers={"authorization": "Bearer no"})).status_code == 401
    address = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    assert (await gateway.chat(messages=[{"role": "user", "content": [address]}])).status_code == 400
    assert engine.requests == []
    settings = gateway.service.settings
    assert (settings.header_timeout_seconds, settings.body_timeout_seconds) == (20, 120)
    assert (settings.stalled_reader_seconds, settings.sse_comment_seconds) == (60, 15)
    assert (settings.request_timeout_seconds, settings.request_timeout_nonstream_seconds) == (3600, 3600)
    assert (settings.eject_after_failures, settings.max_tokens) == (5, 0)


@pytest.mark.parametrize("stack_values", [{"mediaHosts": ["media.internal"]}])
@pytest.mark.parametrize("rendering", [name for name in RENDERINGS if name != "standalone"], indirect=True)
async def test_hosts_that_the_stack_names_are_let_through(
    start_engine: StartEngine, start_gateway: StartGateway, deployed: dict[str, Any]
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, **deployed)
    for host, status in (("media.internal", 200), ("other.internal", 400)):
        address = {"type": "image_url", "image_url": {"url": f"http://{host}/a.png"}}
        assert (await gateway.chat(messages=[{"role": "user", "content": [address]}])).status_code == status


async def test_info_is_in_snake_case_wherever_it_is_deployed(
    start_engine: StartEngine, start_gateway: StartGateway, deployed: dict[str, Any], rendering: str
) -> None:
    gateway = await start_gateway(await start_engine(), **deployed)
    info = await gateway.info()
    assert not [name for name in info if name != name.lower()]
    if rendering in ("plan", "ecs", "kubernetes"):
        assert {"hub_id", "gpu_count", "max_model_len", "image_limit", "tool_call_parser", "engine_image"} <= set(info)
