from __future__ import annotations

import pytest

from image.gateway.capacity.base import ScalingError
from image.gateway.ledger import Entry, entries
from tests.image.gateway.conftest import Cloud, StartEngine, StartGateway, until


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ({}, [Entry("instance+image+weights+compile+ready", 100, "health")]),
        (
            {"instance": 1040, "image": 1060},
            [Entry("instance", 40, "ecs"), Entry("image", 20, "ecs"), Entry("weights+compile+ready", 40, "health")],
        ),
        (
            {"weights": 1050, "compile": 1090},
            [
                Entry("instance+image+weights", 50, "ecs"),
                Entry("compile", 40, "ecs"),
                Entry("ready", 10, "health"),
            ],
        ),
        # Clocks that differ make no time.
        (
            {"instance": 990, "image": 1200},
            [Entry("instance", 0, "ecs"), Entry("image", 100, "ecs"), Entry("weights+compile+ready", 0, "health")],
        ),
    ],
)
def test_nothing_is_made_up_and_nothing_is_left_out(ends: dict[str, float], expected: list[Entry]) -> None:
    found = entries(1000, 1100, ends, "ecs")
    assert found == expected
    assert sum(entry.seconds for entry in found) == 100


async def test_a_cold_start_is_told_by_phase(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    cloud = Cloud(await start_engine())
    cloud.phases = {"instance": 0.01, "image": 0.02}
    gateway = await start_gateway(discovery=cloud, capacity=cloud)
    assert (await gateway.info())["cold_start"] is None
    cloud.woken = cloud.arrive
    assert (await gateway.chat()).status_code == 200
    await until(lambda: not gateway.service.waker.waking)
    told = (await gateway.info())["cold_start"]
    assert [entry["phase"] for entry in told["phases"]] == ["instance", "image", "weights+compile+ready"]
    assert [entry["source"] for entry in told["phases"]] == ["cloud", "cloud", "health"]
    assert sum(entry["seconds"] for entry in told["phases"]) == pytest.approx(told["seconds"], abs=0.01)
    assert gateway.log("cold_start")[0]["seconds"] == told["seconds"]
    assert await gateway.metric('gateway_cold_start_phase_seconds_count{phase="image"}') == 1


async def test_a_platform_that_does_not_tell_leaves_one_phase(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    cloud = Cloud(await start_engine())
    cloud.unknown_phases = ScalingError("not allowed", "AccessDenied: ecs:ListTasks")
    gateway = await start_gateway(discovery=cloud, capacity=cloud)
    cloud.woken = cloud.arrive
    assert (await gateway.chat()).status_code == 200
    await until(lambda: not gateway.service.waker.waking)
    assert len((await gateway.info())["cold_start"]["phases"]) == 1
    assert "ListTasks" in gateway.log("phases_unknown")[0]["error"]


async def test_what_keeps_a_wake_is_told_to_those_who_wait(start_gateway: StartGateway) -> None:
    cloud = Cloud()
    cloud.trouble = ScalingError(
        "the cloud provider has no such instance available", "InsufficientInstanceCapacity in 1a"
    )
    gateway = await start_gateway(discovery=cloud, capacity=cloud, hold_timeout_nonstream_seconds=0.3)
    gateway.service.waker._check_seconds = 0.05
    response = await gateway.chat()
    assert response.status_code == 503
    assert "no such instance available" in response.json()["error"]["message"]
    assert "1a" not in response.text
    assert (await gateway.info())["wake_error"] == "the cloud provider has no such instance available"
    assert "1a" in gateway.log("wake_blocked")[0]["error"]
    assert await gateway.metric('gateway_wakes_total{outcome="blocked"}') == 1
    assert cloud.wakes == 1
