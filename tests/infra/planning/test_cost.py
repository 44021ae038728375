"""The bill: every line that AWS sends, what a wake costs, and prices that are not known."""

import json
from typing import Any

import pytest

from infra.planning import make_plan
from infra.planning.__main__ import as_json, as_table
from infra.planning.deployment import deployment_problems
from infra.planning.plan import CostPlan, ServingPlan
from infra.stack_files import load_stack
from tests.infra.program import run_program


def plan(region: str = "us-east-1", stack: str = "dev", **changes: Any) -> ServingPlan:
    return make_plan(load_stack(stack, changes), region=region)


def names(cost: CostPlan) -> set[str]:
    return {item.name for item in cost.items} | {item.name for item in cost.wake_items}


def test_the_bill_has_a_line_for_everything_that_aws_bills() -> None:
    assert names(plan(weightsThroughput="elastic", wafRequestsPerFiveMinutes=100, allowedCidrs=["10.0.0.0/8"]).cost) == {
        "GPU instances g5.xlarge", "root volumes", "gateways on Fargate", "load balancer", "load balancer capacity",
        "weights on EFS", "secrets", "metrics and alarms", "dashboard", "Cloud Map zone", "images in ECR", "logs",
        "web application firewall", "public IPv4 addresses", "NAT gateways",
        "instance until ready", "image through the NAT gateway", "weights read from EFS", "idle until scaled down (10 min)",
    }  # fmt: skip
    without = plan(dashboard=False, gatewayImage="example.com/g:1", flowLogs="none", wakesPerDay=0).cost
    assert not names(without) & {"dashboard", "images in ECR", "image through the NAT gateway"}


def test_a_month_adds_up_to_its_lines_and_includes_the_wakes() -> None:
    cost = plan(wakesPerDay=4).cost
    for hours in (0, 1, 8, 24):
        assert cost.usd_per_month(hours) == pytest.approx(sum(usd for _, usd, _ in cost.bill(hours)), abs=0.01)
    none = plan(wakesPerDay=0).cost
    wakes = 4 * 730 / 24
    assert cost.usd_per_month(8) - none.usd_per_month(8) == pytest.approx(wakes * cost.usd_per_wake, abs=0.1)
    # The instance's price during the cold start, ten idle minutes at 1.006 + disk, and 12 GB through the NAT gateway.
    assert cost.usd_per_wake == pytest.approx(1.04 * (293 + 600) / 3600 + 12 * 0.045, abs=0.02)


def test_a_stack_that_is_always_on_has_no_wakes() -> None:
    assert plan(stack="prod").cost.wake_items == ()
    cost = plan().cost
    assert cost.usd_per_month(24) == pytest.approx(730 * cost.usd_per_hour_active, abs=0.1)


def test_wakes_never_exceed_the_hours_of_a_day() -> None:
    cost = plan(wakesPerDay=288).cost
    for hours in (0, 8, 23):
        busy = hours + cost.wakes_a_day(hours) * cost.wake_seconds / 3600
        assert busy == pytest.approx(24)
    gpu = next(item for item in cost.items if item.name.startswith("GPU"))
    tails = [item for item in cost.wake_items if "NAT" not in item.name]
    a_day = 8 * gpu.usd_per_hour_active + cost.wakes_a_day(8) * sum(item.usd for item in tails)
    assert a_day < 24 * (gpu.usd_per_hour_active + 0.2)


def test_a_longer_tail_and_more_wakes_cost_more() -> None:
    base = plan().cost.usd_per_month(1)
    assert plan(wakesPerDay=8).cost.usd_per_month(1) > base
    assert plan(scaleDownMinutes=60).cost.usd_per_month(1) > base
    assert plan(dockerHubCredentialsArn="arn:aws:secretsmanager:us-east-1:123456789012:secret:ecr-pullthroughcache/x").cost.usd_per_month(1) < base  # fmt: skip


def test_every_line_says_where_its_price_is_from() -> None:
    found = plan()
    for name, _, source in found.cost.bill(8):
        assert source or name == "wakes: instance until ready", name
    text = as_table(found, "dev")
    assert "[1] AWS Price List API, Linux on-demand, us-east-1, as copied in karpenter-provider-aws, 2026-07-20" in text
    assert "[2] remembered prices of us-east-1, not looked up, 2026-11-21" in text
    assert "list price" not in text
    assert "idle, in us-east-1\n" in text
    told = json.loads(json.dumps(as_json(found)))
    assert told["cost_items"][0]["price_from"].startswith("AWS Price List API")
    assert told["usd_per_wake"] == found.cost.usd_per_wake


@pytest.mark.parametrize(
    ("region", "changes", "why"),
    [
        ("eu-central-1", {}, "price unknown in eu-central-1: these are prices of us-east-1"),
        ("us-east-1", {"capacity": "spot"}, "the Spot price changes and was not looked up: at most the on-demand price"),
        ("us-east-1", {"capacity": "capacity-block", "capacityReservationId": "cr-1", "gpu": "h100"}, "a capacity block is paid in full"),
        ("us-west-2", {"gpu": "h200", "instanceTypes": ["p5e.48xlarge"]}, "price unknown in us-west-2: these are prices of us-east-2"),
        ("us-east-1", {"capacity": "reservation", "capacityReservationId": "cr-1"}, ""),
    ],
)  # fmt: skip
def test_a_price_that_is_not_known_is_not_shown_as_one(region: str, changes: dict[str, Any], why: str) -> None:
    found = plan(region, **changes)
    assert found.cost.unknown.startswith(why)
    assert bool(found.cost.unknown) == bool(why)
    (line,) = [row for row in as_table(found, "dev").splitlines() if row.startswith("cost ")]
    assert why in line
    assert f"in {region}" in line
    assert ("at most" in line) == ("Spot" in why)


EVERYTHING: dict[str, Any] = {
    "accessLogs": True, "wafRequestsPerFiveMinutes": 100, "alarmEmail": "ops@example.com", "monthlyBudgetUsd": 100, "ttlHours": 8,
    "domain": "llm.example.com", "capacity": "spot",
}  # fmt: skip
BILLED = {
    "aws:autoscaling/group:Group": "GPU instances g5.xlarge", "aws:ec2/launchTemplate:LaunchTemplate": "root volumes",
    "aws:ec2/natGateway:NatGateway": "NAT gateways", "aws:ec2/eip:Eip": "NAT gateways", "aws:ecr/repository:Repository": "images in ECR",
    "aws:efs/fileSystem:FileSystem": "weights on EFS", "aws:lb/loadBalancer:LoadBalancer": "load balancer",
    "aws:secretsmanager/secret:Secret": "secrets", "aws:wafv2/webAcl:WebAcl": "web application firewall",
    "aws:cloudwatch/dashboard:Dashboard": "dashboard", "aws:cloudwatch/logGroup:LogGroup": "logs",
    "aws:cloudwatch/metricAlarm:MetricAlarm": "metrics and alarms", "aws:ec2/flowLog:FlowLog": "logs",
    "aws:servicediscovery/privateDnsNamespace:PrivateDnsNamespace": "Cloud Map zone",
}  # fmt: skip
# AWS bills no use of these, or less than ten cents a month of a stack: a task of minutes once a month, a call an hour, kilobytes.
FREE = (
    "aws:acm/", "aws:appautoscaling/", "aws:autoscaling/policy", "aws:autoscaling/lifecycle", "aws:budgets/", "aws:ec2/", "aws:ecr/lifecycle", "aws:ecs/", "aws:efs/",
    "aws:iam/", "aws:lambda/", "aws:lb/", "aws:route53/record", "aws:s3/", "aws:scheduler/", "aws:secretsmanager/secretVersion",
    "aws:servicediscovery/service", "aws:sns/", "aws:vpc/", "aws:wafv2/webAclAssociation", "docker-build:", "random:", "vllm",
)  # fmt: skip


def test_every_kind_of_resource_has_its_line_or_costs_nothing() -> None:
    program = run_program("dev", **EVERYTHING)
    lines = names(plan(**EVERYTHING).cost)
    for kind in program.kinds():
        assert kind in BILLED or kind.startswith(FREE), f"{kind}: does AWS bill it?"
    assert set(BILLED) <= set(program.kinds())
    assert set(BILLED.values()) <= lines


def test_weights_in_the_image_are_billed_and_timed_with_the_image() -> None:
    inside: dict[str, Any] = {
        "model": "/models/x",
        "engineImage": "docker.io/acme/vllm:1",
        "baseModel": "Qwen/Qwen3-4B",
    }
    found, hub = plan(**inside), plan(model="Qwen/Qwen3-4B")
    gigabytes = found.engine.checkpoint_gib * (1 << 30) / 1e9
    pulled = {item.name: item.usd for item in found.cost.wake_items}["image through the NAT gateway"]
    assert pulled == pytest.approx((12 + gigabytes) * 0.045)
    assert "weights on EFS" not in names(found.cost)
    assert found.cost.usd_once == 0 < hub.cost.usd_once
    assert plan(**inside, weightsThroughput="elastic").replicas.expected_cold_start_seconds == pytest.approx(
        found.replicas.expected_cold_start_seconds
    )
    large = {
        **inside,
        "gpu": "h200",
        "gpuCount": 8,
        "baseModel": "meta-llama/Llama-3.1-70B-Instruct",
        "weightsGib": 900,
    }
    settings = load_stack("dev", large)
    (problem,) = [
        line for line in deployment_problems(settings, make_plan(settings), "us-east-1") if "cold start" in line
    ]
    assert problem.endswith("Set a smaller model")  # no setting of the file system makes it faster
