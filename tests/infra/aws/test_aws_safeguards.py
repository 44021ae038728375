"""Safeguards that run in AWS, without the user's machine: the time to live and the budget."""

import datetime
import importlib.util
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from infra.aws import budget as budget_module
from infra.aws.time_to_live import end_of_life
from tests.infra.program import Program, arn, run_program

SERVICE = arn("aws:ecs/service:Service", "vllm-dev-engine")
GROUP = arn("aws:autoscaling/group:Group", "vllm-dev-gpu")
NAME = "vllm-dev-gpu-1a2b3c4"  # of cluster and group
UTC = datetime.UTC


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_stack_lives_at_least_as_long_as_asked_and_ends_at_a_full_hour() -> None:
    assert end_of_life(at("2026-11-21 10:20"), 2) == at("2026-11-21 13:00")
    assert end_of_life(at("2026-11-21 10:00"), 2) == at("2026-11-21 12:00")
    assert end_of_life(at("2026-12-31 23:59"), 1) == at("2027-01-01 01:00")
    east = datetime.datetime(2026, 11, 21, 12, 20, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    assert end_of_life(east, 2) == at("2026-11-21 13:00")


@pytest.fixture
def limited() -> Program:
    return run_program("dev", ttlHours=12)


def test_when_the_time_is_over_service_and_instances_are_set_to_zero_every_hour(limited: Program) -> None:
    schedules = {s.name.rpartition("-")[2]: s.inputs for s in limited.all("Schedule") if "-ttl-" in s.name}
    service, instances = schedules["service"], schedules["instances"]
    assert service["target"]["arn"] == "arn:aws:scheduler:::aws-sdk:ecs:updateService"
    assert json.loads(service["target"]["input"]) == {
        "Cluster": NAME,
        "Service": "vllm-dev-engine-1a2b3c4",
        "DesiredCount": 0,
    }
    assert instances["target"]["arn"] == "arn:aws:scheduler:::aws-sdk:autoscaling:setDesiredCapacity"
    assert json.loads(instances["target"]["input"]) == {
        "AutoScalingGroupName": NAME,
        "DesiredCapacity": 0,
        "HonorCooldown": False,
    }
    for schedule in schedules.values():
        assert schedule["scheduleExpression"] == "cron(0 * * * ? *)"
        assert schedule["scheduleExpressionTimezone"] == "UTC"
        assert schedule["flexibleTimeWindow"] == {"mode": "OFF"}
        starts = datetime.datetime.fromisoformat(schedule["startDate"])
        assert starts.minute == starts.second == 0
        left = starts - datetime.datetime.now(UTC)
        assert datetime.timedelta(hours=11, minutes=50) < left <= datetime.timedelta(hours=13)
        assert schedule["target"]["roleArn"] == arn("aws:iam/role:Role", "vllm-dev-ttl")
    assert f"{starts:%Y-%m-%d %H:%M} UTC" in limited.outputs["turnsOffAt"]


def test_the_scheduler_may_do_nothing_else(limited: Program) -> None:
    statements = {s["Action"][0]: s["Resource"] for s in limited.one("RolePolicy", "-ttl").document()["Statement"]}
    assert statements == {"ecs:UpdateService": [SERVICE], "autoscaling:SetDesiredCapacity": [GROUP]}
    (trust,) = limited.one("Role", "-ttl").document("assumeRolePolicy")["Statement"]
    assert trust["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_a_stack_without_safeguards_has_none() -> None:
    program = run_program("dev")
    assert [s.name for s in program.all("Schedule")] == ["vllm-dev-fetch"]
    assert program.all("Budget") == program.all("Function") == []
    assert "turnsOffAt" not in program.outputs


@pytest.fixture
def budgeted() -> Program:
    return run_program("dev", monthlyBudgetUsd=500, alarmEmail="ops@example.com")


def test_the_budget_counts_the_stack_alone_and_mails_three_times(budgeted: Program) -> None:
    budget = budgeted.one("Budget").inputs
    assert (budget["limitAmount"], budget["limitUnit"], budget["timeUnit"]) == ("500", "USD", "MONTHLY")
    assert budget["costFilters"] == [{"name": "TagKeyValue", "values": ["user:Stack$dev"]}]
    for percent, notification in zip((50, 80, 100), budget["notifications"], strict=True):
        assert notification == {
            "comparisonOperator": "GREATER_THAN",
            "notificationType": "ACTUAL",
            "threshold": percent,
            "thresholdType": "PERCENTAGE",
            "subscriberEmailAddresses": ["ops@example.com"],
        }
    assert "cost-allocation-tags" in budgeted.outputs["budgetCounts"]


def test_spend_is_compared_every_quarter_of_an_hour(budgeted: Program) -> None:
    schedule = budgeted.one("Schedule", "-budget").inputs
    function = budgeted.one("Function")
    assert schedule["scheduleExpression"] == "rate(15 minutes)"
    assert schedule["target"]["arn"] == arn(function.type, function.name)
    assert function.inputs["handler"] == "budget_watch.handler"
    assert function.inputs["environment"]["variables"] == {
        "ACCOUNT_ID": "123456789012",
        "BUDGET": "vllm-dev-budget-1a2b3c4",
        "CLUSTER": NAME,
        "SERVICE": "vllm-dev-engine-1a2b3c4",
        "GROUP": NAME,
    }
    statements = {
        s["Sid"]: (s["Action"], s["Resource"]) for s in budgeted.one("RolePolicy", "-switch").document()["Statement"]
    }
    assert statements["ReadBudget"] == (
        ["budgets:ViewBudget"],
        ["arn:aws:budgets::123456789012:budget/vllm-dev-budget-1a2b3c4"],
    )
    assert statements["StopService"] == (["ecs:UpdateService"], [SERVICE])
    assert statements["StopInstances"] == (["autoscaling:SetDesiredCapacity"], [GROUP])
    (look,) = budgeted.one("RolePolicy", "-watch").document()["Statement"]
    assert (look["Action"], look["Resource"]) == (["lambda:InvokeFunction"], [schedule["target"]["arn"]])
    logs = budgeted.one("LogGroup", "-budget-logs")
    assert (function.inputs["loggingConfig"]["logGroup"], logs.inputs["retentionInDays"]) == (logs.outputs["name"], 30)


def watch(monkeypatch: pytest.MonkeyPatch, spent: str) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """Runs the function as Lambda would, as a single file; returns its result and its calls to AWS."""
    asked: list[tuple[str, dict[str, Any]]] = []

    class Client:
        def describe_budget(self, **of: str) -> dict[str, Any]:
            assert of == {"AccountId": "123456789012", "BudgetName": "b"}
            amount = {"ActualSpend": {"Amount": spent, "Unit": "USD"}}
            return {"Budget": {"BudgetLimit": {"Amount": "500.0", "Unit": "USD"}, "CalculatedSpend": amount}}

        def update_service(self, **to: Any) -> None:
            asked.append(("update_service", to))

        def set_desired_capacity(self, **to: Any) -> None:
            asked.append(("set_desired_capacity", to))

    for name, value in {
        "ACCOUNT_ID": "123456789012", "BUDGET": "b", "CLUSTER": "c", "SERVICE": "s", "GROUP": "g",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    specification = importlib.util.spec_from_file_location("alone", Path(budget_module.CODE))
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    with mock.patch.object(module.boto3, "client", return_value=Client()):
        return module.handler({}, None), asked


def test_within_the_budget_nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, asked = watch(monkeypatch, "499.99")
    assert answer == {"spent_usd": 499.99, "limit_usd": 500.0, "stopped": False}
    assert asked == []


def test_above_the_budget_service_and_instances_are_set_to_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, asked = watch(monkeypatch, "500")
    assert answer["stopped"] is True
    assert asked == [
        ("update_service", {"cluster": "c", "service": "s", "desiredCount": 0}),
        ("set_desired_capacity", {"AutoScalingGroupName": "g", "DesiredCapacity": 0, "HonorCooldown": False}),
    ]
