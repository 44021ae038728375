"""The line about a change's effect on the endpoint's users, from the endpoint before and after and Pulumi's steps."""

from __future__ import annotations

import dataclasses

import pytest

from infra.changes import endpoint_of, estimate_of
from infra.changes.effects import Endpoint, Estimate, Step, describe
from infra.changes.place import moved
from infra.planning import make_plan
from infra.settings_problems import parse_settings

BEFORE = Endpoint(
    scheme="http",
    host="",
    port=80,
    models=("small", "adapter"),
    clients=("10.0.0.0/8", "203.0.113.7/32"),
    weights=("acme/small",),
    file_system="",
)
ESTIMATE = Estimate(cold_start_minutes=5, fetch_minutes=9, fetch_usd=1.234, restarts_all=True, keeps=False)
ENGINE = Step("update", "Service", "vllm-dev-engine", frozenset({"taskDefinition"}))
GATEWAY = Step("update", "Service", "vllm-dev-gateway", frozenset({"taskDefinition"}))
BALANCER = Step("create", "LoadBalancer", "vllm-dev-pub")
COLD = "a cold start (about 5 minutes; requests are held meanwhile)"


def said(*steps: Step, estimate: Estimate = ESTIMATE, before: Endpoint = BEFORE, **after: object) -> str:
    line, hurts = describe(before, dataclasses.replace(before, **after), steps, estimate)  # type: ignore[arg-type]
    text = line.removeprefix("this changes for users of the endpoint: ")
    assert hurts == (text not in ("", "nothing", "a rollout without downtime"))
    return text


def test_an_unchanged_stack_says_nothing() -> None:
    assert said() == ""


def test_what_serves_nobody_changes_nothing() -> None:
    assert said(Step("update", "MetricAlarm", "vllm-dev-alarm")) == "nothing"
    assert said(Step("update", "Service", "vllm-dev-engine", frozenset({"tags"}))) == "nothing"
    assert said(parts="one resource less") == "nothing"


def test_a_gateway_and_one_of_several_replicas_roll_out_without_loss() -> None:
    assert said(GATEWAY) == "a rollout without downtime"
    assert (
        said(ENGINE, GATEWAY, estimate=dataclasses.replace(ESTIMATE, restarts_all=False))
        == "a rollout without downtime"
    )
    deployment = Step("update", "Deployment", "gateway", frozenset({"spec"}))
    assert said(deployment) == "a rollout without downtime"


@pytest.mark.parametrize(
    "step",
    [
        ENGINE,
        Step("create", "Service", "vllm-dev-engine"),
        Step("update", "Service", "vllm-dev-engine", frozenset({"networkConfiguration"})),
        Step("update", "Deployment", "engine", frozenset({"spec"})),
        Step("create", "AccessPoint", "vllm-dev-weights-models"),
        Step("create", "MountTarget", "vllm-dev-weights-0"),
    ],
    ids=lambda step: f"{step.op} {step.type}",
)
def test_the_only_replica_starts_cold(step: Step) -> None:
    assert said(step, GATEWAY) == COLD


def test_a_new_load_balancer_is_another_address_unless_a_domain_follows_it() -> None:
    assert said(BALANCER) == "another address: the load balancer is replaced, and its DNS name changes"
    named = dataclasses.replace(BEFORE, host="llm.example.com", scheme="https", port=443)
    assert said(BALANCER, before=named).startswith("another load balancer behind llm.example.com")
    assert said(BALANCER, host="llm.example.com", scheme="https", port=443) == (
        "another address: https://llm.example.com instead of http://LOAD-BALANCER"
    )
    assert said(port=8080) == "another address: http://LOAD-BALANCER:8080 instead of http://LOAD-BALANCER"


def test_weights_that_are_fetched_are_named_with_minutes_and_dollars() -> None:
    assert said(Step("create", "FileSystem", "vllm-dev-weights"), ENGINE) == (
        f"all weights are fetched again, to a new file system (about 9 minutes and $1.23); {COLD}"
    )
    kept = said(Step("create", "FileSystem", "vllm-dev-weights"), estimate=dataclasses.replace(ESTIMATE, keeps=True))
    assert "the old file system is retained, and billed until you delete it" in kept
    assert said(ENGINE, weights=("acme/large",)).startswith(
        "weights are fetched: acme/large (about 9 minutes and $1.23)"
    )
    assert said(ENGINE, weights=()) == COLD


def test_moving_to_an_adopted_file_system_says_what_becomes_of_the_own_one() -> None:
    there = said(ENGINE, file_system="fs-0123456789abcdef0")
    assert there.startswith("weights are read from fs-0123456789abcdef0 (missing ones are fetched:")
    assert "the stack's own file system is deleted, with the weights on it" in there
    adopted = dataclasses.replace(BEFORE, file_system="fs-0123456789abcdef0")
    back = said(Step("create", "FileSystem", "vllm-dev-weights"), before=adopted, file_system="")
    assert "fs-0123456789abcdef0 is not changed" in back


def test_clients_that_lose_access_are_named() -> None:
    assert said(clients=("10.0.0.0/8",)) == "203.0.113.7/32 can no longer connect"
    assert said(clients=("0.0.0.0/0",)) == "nothing"
    assert said(models=("small",)) == "another model name: adapter is no longer served; clients send small"
    version = Step("create", "SecretVersion", "vllm-dev-secret-api-keys")
    assert said(version) == "the API keys: keys no longer listed are rejected"
    assert said(Step("create", "SecretVersion", "vllm-dev-secret-hub-token")) == "nothing"


def test_the_record_of_an_endpoint_survives_the_state_and_older_ones_are_read() -> None:
    settings = parse_settings(
        {"model": "Qwen/Qwen3-8B", "gpu": "l4", "loraAdapters": ["sql=acme/sql", "own=/models/own"], "apiKeys": "sk-1"}
    )
    plan = make_plan(settings, region="us-east-1")
    endpoint = endpoint_of(settings, plan)
    assert endpoint.models == ("Qwen/Qwen3-8B", "sql", "own")
    assert endpoint.weights == ("Qwen/Qwen3-8B", "acme/sql"), "a folder is fetched from nowhere"
    assert Endpoint.of(endpoint.record()) == endpoint
    assert "sk-1" not in str(endpoint.record())
    assert Endpoint.of({}).models == ()
    estimate = estimate_of(settings, plan, restarts_all=True)
    assert 2 <= estimate.fetch_minutes <= 5  # 15 GiB at 100 MiB/s
    assert estimate.fetch_usd > plan.cost.usd_per_cold_start


def test_a_stack_stays_where_it_is() -> None:
    home = {"target": "ecs", "account": "1", "aws:region": "us-east-1", "vpcId": ""}
    assert moved(home, home) == []
    assert moved(home, {"target": "kubernetes"})[0].startswith(
        "target: this stack was deployed with ecs, found kubernetes;"
    )
    elsewhere = moved(home, {"target": "ecs", "account": "2", "aws:region": "eu-west-1", "vpcId": "vpc-1"})
    assert [line.partition(": this stack")[0] for line in elsewhere] == ["account", "aws:region", "vpcId"]
    assert all("pulumi stack init NAME" in line and "or " in line for line in elsewhere)
    assert moved({}, home) == [], "a stack of an older version has no record"
