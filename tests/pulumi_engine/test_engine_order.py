"""The same as tests/infra/test_order.py, seen on the engine: what the providers were asked for, and when."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.infra.needs import Graph, of_state
from tests.pulumi_engine.conftest import whole_but
from tests.pulumi_engine.scene import Scene

# What may be slow is slow: whoever does not wait for it is first.
SLOW = {
    "Route::": 2.5,
    "NatGateway::": 0.6,
    "RouteTableAssociation::": 0.8,
    "VpcEndpoint::": 0.8,
    "SecurityGroupIngressRule::": 0.8,
    "SecurityGroupEgressRule::": 0.8,
    "RolePolicy::": 0.6,
    "SecretVersion::": 0.8,
    "MountTarget::": 0.6,
    "FileSystemPolicy::": 0.8,
    "LogGroup::": 0.6,
    "ClusterCapacityProviders::": 0.4,
    "NetworkPolicy::": 0.8,
    "RoleBinding::": 0.8,
    "": 0.02,
}
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "everything": (
        "prod",
        {
            "domain": "llm.example.com",
            "wafRequestsPerFiveMinutes": 500,
            "ttlHours": 12,
            "monthlyBudgetUsd": 500,
            "alarmEmail": "ops@example.com",
            "accessLogs": True,
            "hfToken": "hf_order",
            "protect": False,
        },
    ),
    "warm-pool-without-kept-cache": ("dev", {"warmPool": 1, "fastBoot": "false", "allowedCidrs": ["203.0.113.0/24"]}),
    "kubernetes": ("dev", {"target": "kubernetes", "domain": "llm.example.com", "hfToken": "hf_order"}),
}


@pytest.mark.parametrize("name", whole_but(CONFIGURATIONS, "everything"))
def test_what_runs_is_made_after_what_it_needs_and_deleted_before_it(scene: Scene, name: str) -> None:
    stack, settings = CONFIGURATIONS[name]
    scene.init(stack, settings)
    slow = json.dumps(SLOW)
    scene.up(STANDIN_SECONDS=slow)
    graph = of_state(scene.resources())
    assert len(graph.needs()) > (8 if name == "kubernetes" else 80)
    assert wrong_order(scene, graph, "create") == []
    scene.destroy(STANDIN_SECONDS=slow)
    assert wrong_order(scene, graph, "delete") == []


def wrong_order(scene: Scene, graph: Graph, op: str) -> list[str]:
    """Every need that the order of creates, or of deletes, left unmet."""
    times = {row["urn"]: (row["started"], row["ended"]) for row in scene.operations(op)}
    found = []
    for need in graph.needs():
        runner, needed = times[need.runner.urn], times[need.needed.urn]
        first, second = (needed, runner) if op == "create" else (runner, needed)
        if first[1] > second[0]:
            found.append(f"{op}: {need}: {first[1] - second[0]:.1f} s too late")
    return found
