"""A figure has the same meaning in CloudWatch, Prometheus and /info, and names have one form."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from fakes import fake_engine
from image.gateway.service import Service
from tests.image.gateway.conftest import Cloud, Gateway, StartEngine, StartGateway, until

# CloudWatch's name -> Prometheus's samples, added up -> where it is in /info.
SAME = {
    "Demand": (("gateway_demand",), None),
    "Running": (("gateway_requests_running",), ("requests", "running")),
    "Held": (("gateway_requests_held",), ("requests", "held")),
    "Queued": (("gateway_requests_queued",), ("requests", "queued")),
    "ReplicasReady": (("gateway_replicas_ready",), ("replicas", "ready")),
    "QueueFull": (
        ('gateway_refusals_total{reason="queue_full"}', 'gateway_refusals_total{reason="queue_bytes"}'),
        None,
    ),
}


def reported(service: Service) -> dict[str, Any]:
    """What a line of embedded metrics says of this moment. The first of its two samples has what went before."""
    report = service._demand
    report._samples.clear()
    report.sample()
    report.sample()
    line = report.line()
    report._samples.clear()
    names = [metric["Name"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]]
    return {name: sum(line[name]) if name == "QueueFull" else line[name][-1] for name in names}


async def figures(gateway: Gateway, total_refused: list[int]) -> dict[str, float]:
    """Every figure, which must be the same in all places."""
    told, info = reported(gateway.service), await gateway.info()
    assert set(told) == set(SAME)
    total_refused[0] += told["QueueFull"]
    for name, (samples, place) in SAME.items():
        value = total_refused[0] if name == "QueueFull" else told[name]
        assert value == sum([await gateway.metric(sample) for sample in samples]), name
        if place:
            assert value == info[place[0]][place[1]], name
    return told


async def test_each_figure_means_the_same_everywhere(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    cloud = Cloud(await start_engine(fake_engine.answer_when_told))
    gateway = await start_gateway(
        discovery=cloud, capacity=cloud, ready=0, concurrency_per_replica=4, max_queued_requests=5,
        max_queued_per_slot=0.5, hold_timeout_nonstream_seconds=60,
    )  # fmt: skip
    refused = [0]
    assert (await figures(gateway, refused))["Demand"] == 0
    requests = [asyncio.create_task(gateway.chat()) for _ in range(5)]
    await until(lambda: gateway.service.admission.waiting == 5)
    told = await figures(gateway, refused)
    assert (told["Running"], told["Held"], told["Queued"], told["ReplicasReady"]) == (0, 5, 0, 0)
    assert (await gateway.chat()).status_code == 429
    assert (await figures(gateway, refused))["QueueFull"] == 1
    cloud.arrive()
    await until(lambda: gateway.service.admission.running == 4)
    told = await figures(gateway, refused)
    assert (told["Running"], told["Held"], told["Queued"], told["ReplicasReady"]) == (4, 0, 1, 1)
    requests.append(asyncio.create_task(gateway.chat()))
    await until(lambda: gateway.service.admission.waiting == 2)
    assert [(await gateway.chat()).status_code for _ in range(3)] == [429] * 3
    told = await figures(gateway, refused)
    assert (told["Running"], told["Held"], told["Queued"], told["QueueFull"]) == (4, 0, 2, 3)
    cloud.engines[0].go_on.set()
    assert {(await request).status_code for request in requests} == {200}
    assert (await figures(gateway, refused))["Demand"] == 0
    assert refused == [4]
    waited = [line["waiting_ms"] for line in gateway.log() if line["waiting_ms"] is not None]
    assert await gateway.metric("gateway_waiting_seconds_sum") == pytest.approx(sum(waited) / 1000, abs=0.01)


def names_in(document: Any) -> set[str]:
    """Every key of a document, at any depth."""
    if isinstance(document, list):
        return set().union(*map(names_in, document)) if document else set()
    if isinstance(document, dict):
        return set(document).union(*map(names_in, document.values()))
    return set()


async def test_every_name_in_info_is_snake_case(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    cloud = Cloud(await start_engine())
    cloud.phases = {"instance": 0.001}
    gateway = await start_gateway(discovery=cloud, capacity=cloud, ready=0)
    request = asyncio.create_task(gateway.chat())
    await until(lambda: gateway.service.admission.held == 1)
    cloud.arrive()
    await request
    await until(lambda: gateway.service.waker.last_cold_start is not None)
    info = await gateway.info()
    assert info["cold_start"]["phases"]
    odd = {name for name in names_in(info) if not re.fullmatch(r"[a-z][a-z0-9_]*", name)}
    assert not odd, json.dumps(sorted(odd))
