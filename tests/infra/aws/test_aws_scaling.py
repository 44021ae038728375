"""Scaling: up on demand, down when idle, service and instances together."""

from typing import Any

import pytest

from tests.infra.program import Program, Registered, arn, run_program

DIMENSIONS = {"Stack": "vllm-dev-gpu-1a2b3c4"}


@pytest.fixture
def dev() -> Program:
    return run_program("dev")


def queries(alarm: Registered) -> dict[str, Any]:
    return {q["id"]: q for q in alarm.inputs["metricQueries"]}


def test_the_service_scales_between_the_settings_bounds() -> None:
    for stack, least, most in (("dev", 0, 1), ("prod", 1, 2)):
        target = run_program(stack).one("Target").inputs
        assert (target["minCapacity"], target["maxCapacity"]) == (least, most)
        assert target["resourceId"] == f"service/vllm-{stack}-gpu-1a2b3c4/vllm-{stack}-engine-1a2b3c4"
        assert (target["serviceNamespace"], target["scalableDimension"]) == ("ecs", "ecs:service:DesiredCount")


def test_one_idle_alarm_stops_service_and_instances(dev: Program) -> None:
    alarm = dev.one("MetricAlarm", "-idle")
    assert sorted(alarm.inputs["alarmActions"]) == sorted(
        [
            arn("aws:appautoscaling/policy:Policy", "vllm-dev-scaling-service-down"),
            arn("aws:autoscaling/policy:Policy", "vllm-dev-scaling-instances-down"),
        ]
    )
    service = dev.one("aws:appautoscaling/policy:Policy", "service-down").inputs["stepScalingPolicyConfiguration"]
    assert service["adjustmentType"] == "ExactCapacity"
    assert service["stepAdjustments"] == [{"metricIntervalLowerBound": "0", "scalingAdjustment": 0}]
    group = dev.one("aws:autoscaling/policy:Policy").inputs
    assert (group["policyType"], group["adjustmentType"]) == ("StepScaling", "ExactCapacity")
    assert group["stepAdjustments"] == [{"metricIntervalLowerBound": "0", "scalingAdjustment": 0}]
    assert group["autoscalingGroupName"] == "vllm-dev-gpu-1a2b3c4"


def test_idle_means_no_demand_and_something_to_stop_for_all_of_scale_down_minutes(dev: Program) -> None:
    alarm = dev.one("MetricAlarm", "-idle")
    assert alarm.inputs["evaluationPeriods"] == alarm.inputs["datapointsToAlarm"] == 10
    assert (alarm.inputs["threshold"], alarm.inputs["comparisonOperator"]) == (1, "GreaterThanOrEqualToThreshold")
    assert alarm.inputs["treatMissingData"] == "notBreaching"
    found = queries(alarm)
    assert found["idle"]["expression"] == "IF(demand <= 0 AND ready > 0 AND instances > 0, 1, 0)"
    assert found["idle"]["returnData"] is True
    for query, name in (("demand", "Demand"), ("ready", "ReplicasReady")):
        assert found[query]["returnData"] is False
        assert found[query]["metric"] == {
            "namespace": "VllmEndpoint", "metricName": name, "stat": "Maximum", "period": 60, "dimensions": DIMENSIONS,
        }  # fmt: skip
    assert found["instances"]["metric"] == {
        "namespace": "AWS/AutoScaling",
        "metricName": "GroupDesiredCapacity",
        "stat": "Maximum",
        "period": 60,
        "dimensions": {"AutoScalingGroupName": "vllm-dev-gpu-1a2b3c4"},
    }


def test_a_load_is_not_idle_but_one_that_never_ends_is_stopped(dev: Program) -> None:
    alarm = dev.one("MetricAlarm", "-stuck")
    assert queries(alarm)["stuck"]["expression"] == "IF(demand <= 0 AND ready <= 0 AND instances > 0, 1, 0)"
    assert alarm.inputs["evaluationPeriods"] == 20  # startupTimeoutMinutes
    assert alarm.inputs["treatMissingData"] == "notBreaching"
    assert alarm.inputs["alarmActions"] == dev.one("MetricAlarm", "-idle").inputs["alarmActions"]


def test_a_stack_that_is_always_warm_shrinks_to_its_least() -> None:
    prod = run_program("prod")
    assert queries(prod.one("MetricAlarm", "-idle"))["idle"]["expression"].endswith("instances > 1, 1, 0)")
    policy = prod.one("aws:appautoscaling/policy:Policy", "service-down").inputs["stepScalingPolicyConfiguration"]
    assert policy["stepAdjustments"] == [{"metricIntervalLowerBound": "0", "scalingAdjustment": 1}]
    assert prod.one("aws:autoscaling/policy:Policy").inputs["stepAdjustments"][0]["scalingAdjustment"] == 1


def test_a_stack_of_fixed_size_has_no_alarms() -> None:
    program = run_program("prod", maxReplicas=1)
    assert program.all("MetricAlarm") == program.all("Policy") == []
    assert program.one("Target").inputs["minCapacity"] == program.one("Target").inputs["maxCapacity"] == 1


def test_above_one_replica_demand_is_followed() -> None:
    prod = run_program("prod", concurrencyPerReplica=40)
    tracking = prod.one("Policy", "-demand").inputs["targetTrackingScalingPolicyConfiguration"]
    assert tracking["targetValue"] == 30
    assert tracking["scaleOutCooldown"] >= 300  # no sooner than the last one is there
    assert tracking["scaleInCooldown"] == 600
    metrics = {m["id"]: m for m in tracking["customizedMetricSpecification"]["metrics"]}
    assert metrics["per_replica"]["expression"] == "demand * 2 / ready"  # each gateway reports its own share
    assert [i for i, m in metrics.items() if m["returnData"]] == ["per_replica"]
    for query, name, statistic in (("demand", "Demand", "Average"), ("ready", "ReplicasReady", "Maximum")):
        found = metrics[query]["metricStat"]
        assert (found["stat"], found["metric"]["metricName"]) == (statistic, name)
        assert found["metric"]["dimensions"] == [{"name": "Stack", "value": "vllm-prod-gpu-1a2b3c4"}]


def test_a_single_replica_is_not_tracked(dev: Program) -> None:
    assert [p.name for p in dev.all("aws:appautoscaling/policy:Policy")] == ["vllm-dev-scaling-service-down"]


def test_the_cooldown_may_be_longer_and_never_shorter_than_a_cold_start() -> None:
    longer = run_program("prod", scaleOutCooldownMinutes=15)
    tracking = longer.one("Policy", "-demand").inputs["targetTrackingScalingPolicyConfiguration"]
    assert tracking["scaleOutCooldown"] == 900
