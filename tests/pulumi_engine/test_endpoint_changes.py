"""The line about a change's effect on users, compared with the steps that Pulumi then takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.pulumi_engine.conftest import whole_but
from tests.pulumi_engine.scene import COMPONENT, Ran, Scene, Step

INTRODUCTION = "this changes for users of the endpoint: "
NEW_TASKS = {"taskDefinition", "networkConfiguration", "loadBalancers", "desiredCount"}
# By what a line says of it.
CLASSES = {
    "a rollout without downtime": "rollout",
    "a cold start": "cold start",
    "another address": "address",
    "weights are fetched again": "weights",
    "nothing": "nothing",
}
CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "a dashboard less": ({"dashboard": False}, {"nothing"}),
    "other alarms": ({"maxReplicas": 2}, {"nothing"}),
    "two gateways": ({"gatewayCount": 2}, {"rollout"}),
    "shorter context": ({"maxModelLen": 8192}, {"cold start"}),
    "networks let in": ({"allowedCidrs": ["203.0.113.0/24"]}, {"address"}),
    "a key of one's own": (
        {"kmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"},
        {"weights", "cold start"},
    ),
}


def lines(ran: Ran) -> list[str]:
    """The lines for users of the endpoint; each line once, even if the CLI shows it repeatedly."""
    told = [event["diagnosticEvent"]["message"] for event in ran.events if "diagnosticEvent" in event]
    return [text.strip() for text in told if INTRODUCTION in text]


def claimed(ran: Ran) -> set[str]:
    """The classes that the one line names."""
    (line,) = lines(ran)
    return {name for text, name in CLASSES.items() if text in line.removeprefix(INTRODUCTION)}


def happened(steps: Iterable[Step]) -> set[str]:
    """The classes by what the engine did, whatever was said."""
    found = set()
    for step in steps:
        kind = step.type.rpartition(":")[2]
        rolls = kind == "Service" and step.op == "update" and bool(NEW_TASKS & set(step.changed))
        if kind == "LoadBalancer" and step.op in ("create", "create-replacement"):
            found.add("address")
        elif kind == "FileSystem" and step.op in ("create", "create-replacement"):
            found.add("weights")
        elif rolls:
            found.add("cold start" if step.name.endswith("-engine") else "rollout")
    # The worst is what matters: a rollout beside it is not worth a word.
    return (found - {"rollout"} if len(found) > 1 else found) or {"nothing"}


@pytest.mark.parametrize("name", whole_but(CHANGES, "shorter context", "networks let in"))
def test_one_line_at_preview_says_what_up_then_does(dev: Scene, name: str) -> None:
    settings, classes = CHANGES[name]
    for key, value in settings.items():
        dev.set(key, value)
    preview = dev.run("preview")
    assert claimed(preview) == classes
    up = dev.up()
    assert claimed(up) == classes
    assert happened(up.steps) == classes
    again = dev.run("preview")
    assert (again.unchanged, lines(again)) == (True, [])


def test_minutes_and_dollars_are_named_where_weights_are_fetched(dev: Scene) -> None:
    dev.set("model", "Qwen/Qwen3-8B")
    dev.set("gpu", "l4")
    (line,) = lines(dev.run("preview"))
    assert "weights are fetched: Qwen/Qwen3-8B (about 3 minutes and $" in line
    assert "Qwen/Qwen3-4B-Instruct-2507 is no longer served; clients send Qwen/Qwen3-8B" in line
    assert "a cold start (about " in line


@pytest.mark.whole_matrix
def test_a_deploy_that_failed_half_way_is_named_again(dev: Scene) -> None:
    dev.set("servedModelName", "small")
    fault = '[{"op": "update", "urn": "ecs/service:Service::vllm-dev-engine", "message": "refused"}]'
    dev.up(ok=False, STANDIN_FAIL=fault)
    (line,) = lines(dev.run("preview"))
    assert "another model name: Qwen/Qwen3-4B-Instruct-2507 is no longer served; clients send small" in line


@pytest.mark.whole_matrix
def test_the_first_deploy_says_nothing(scene: Scene) -> None:
    scene.init("dev")
    assert lines(scene.run("preview")) == []
    assert lines(scene.up()) == []


ELSEWHERE: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "target": ({"target": "kubernetes"}, {}),
    "aws:region": ({"aws:region": "eu-west-1"}, {}),
    "vpcId": ({"vpcId": "vpc-1", "subnetIds": ["subnet-a", "subnet-b"]}, {}),
    "account": ({}, {"STANDIN_ACCOUNT": "210987654321"}),
}


@pytest.mark.parametrize("key", whole_but(ELSEWHERE, "target", "vpcId"))
def test_a_deployed_stack_moves_nowhere(dev: Scene, key: str) -> None:
    settings, environment = ELSEWHERE[key]
    for name, value in settings.items():
        dev.set(name, value)
    before, done = sorted((r["urn"], r.get("id")) for r in dev.resources()), len(dev.operations())
    for refused in (dev.run("preview", ok=False, **environment), dev.up(ok=False, **environment)):
        said = [text for text in refused.diagnostics if f"{key}: this stack was deployed with" in text]
        assert len(said) == 1
        assert "Deploy a second stack (pulumi stack init NAME)" in said[0]
        assert {step.type for step in refused.steps} <= {f"{COMPONENT}OnKubernetes"}
    kept = [(r["urn"], r.get("id")) for r in dev.resources() if r["type"] != f"{COMPONENT}OnKubernetes"]
    assert sorted(kept) == before
    assert len(dev.operations()) == done
