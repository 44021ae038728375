"""Safeguards that run in AWS, without the user's machine: the time to live and the budget."""

import datetime
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, NoRegionError

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
    # The service first, a minute before its instances: ECS would otherwise ask the group for an instance again.
    assert (service["scheduleExpression"], instances["scheduleExpression"]) == (
        "cron(0 * * * ? *)",
        "cron(1 * * * ? *)",
    )
    for schedule in schedules.values():
        assert schedule["target"]["retryPolicy"] == {"maximumRetryAttempts": 10, "maximumEventAgeInSeconds": 1800}
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


class Account:
    """AWS as the function calls it: answers with the errors planned for an operation, and records every call."""

    def __init__(self, spent: str = "600", errors: dict[str, Exception] | None = None) -> None:
        self.spent, self.errors = spent, dict(errors or {})
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.desired = {"update_service": 1, "set_desired_capacity": 1}

    def client(self, _service: str, config: Config) -> "Account":
        assert config is not None
        return self

    def describe_budget(self, **of: str) -> dict[str, Any]:
        assert of == {"AccountId": "123456789012", "BudgetName": "b"}
        amount = {"ActualSpend": {"Amount": self.spent, "Unit": "USD"}}
        return {"Budget": {"BudgetLimit": {"Amount": "500.0", "Unit": "USD"}, "CalculatedSpend": amount}}

    def update_service(self, **to: Any) -> None:
        self._do("update_service", to)

    def set_desired_capacity(self, **to: Any) -> None:
        self._do("set_desired_capacity", to)

    def _do(self, operation: str, to: dict[str, Any]) -> None:
        self.asked.append((operation, to))
        if operation in self.errors:
            raise self.errors[operation]
        self.desired[operation] = 0


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The function's code as Lambda loads it: a single file."""
    for name, value in {
        "ACCOUNT_ID": "123456789012", "BUDGET": "b", "CLUSTER": "c", "SERVICE": "s", "GROUP": "g",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    specification = importlib.util.spec_from_file_location("alone", Path(budget_module.CODE))
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def watch(module: ModuleType, account: Account) -> dict[str, Any]:
    """The function's result in an account."""
    with mock.patch.object(module.boto3, "client", account.client):
        return dict(module.handler({}, None))


def refusal(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


ZERO = [
    ("update_service", {"cluster": "c", "service": "s", "desiredCount": 0}),
    ("set_desired_capacity", {"AutoScalingGroupName": "g", "DesiredCapacity": 0, "HonorCooldown": False}),
]


def test_within_the_budget_nothing_is_touched(switch: ModuleType) -> None:
    account = Account("499.99")
    assert watch(switch, account) == {"spent_usd": 499.99, "limit_usd": 500.0, "stopped": False}
    assert account.asked == []


def test_above_the_budget_service_and_instances_are_set_to_zero(switch: ModuleType) -> None:
    account = Account("500")
    assert watch(switch, account)["stopped"] is True
    assert account.asked == ZERO  # the service first: ECS would otherwise ask the group for an instance again


@pytest.mark.parametrize(
    "error",
    [refusal("AccessDeniedException"), refusal("ThrottlingException"), EndpointConnectionError(endpoint_url="x"), NoRegionError()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("fails", ["update_service", "set_desired_capacity"])
def test_one_failed_action_never_stops_the_other_and_the_run_still_fails(
    switch: ModuleType, error: Exception, fails: str
) -> None:
    account = Account(errors={fails: error})
    with pytest.raises(ExceptionGroup, match="1 of 2 actions failed") as raised:
        watch(switch, account)
    assert raised.value.exceptions == (error,)
    assert account.asked == ZERO
    (other,) = set(account.desired) - {fails}
    assert account.desired[other] == 0


def test_two_failed_actions_are_reported_together_and_the_next_run_completes_them(switch: ModuleType) -> None:
    account = Account(
        errors={"update_service": refusal("ServerException", "ECS"), "set_desired_capacity": refusal("Other", "group")}
    )
    with pytest.raises(ExceptionGroup, match=r"2 of 2 actions failed: .*ECS.*; .*group"):
        watch(switch, account)
    account.errors.clear()
    assert watch(switch, account)["stopped"] is True
    assert set(account.desired.values()) == {0}


def test_what_no_longer_exists_counts_as_stopped(switch: ModuleType) -> None:
    gone = ("ServiceNotFoundException", "ServiceNotActiveException", "ClusterNotFoundException")
    for code in gone:
        account = Account(errors={"update_service": refusal(code)})
        assert watch(switch, account)["stopped"] is True
        assert account.desired["set_desired_capacity"] == 0
    for message in (
        "AutoScalingGroup name not found - AutoScalingGroup 'g' not found",
        "AutoScalingGroup g is pending delete",
    ):
        assert (
            watch(switch, Account(errors={"set_desired_capacity": refusal("ValidationError", message)}))["stopped"]
            is True
        )
    with pytest.raises(ExceptionGroup, match="below min value"):
        watch(
            switch, Account(errors={"set_desired_capacity": refusal("ValidationError", "value 0 is below min value 1")})
        )


def test_the_errors_that_mean_gone_are_errors_of_the_call(switch: ModuleType) -> None:
    model = boto3.client("ecs", "us-east-1").meta.service_model.operation_model("UpdateService")
    assert set(switch.GONE) <= {shape.name for shape in model.error_shapes}


def test_throttling_is_retried_and_no_call_takes_the_time_of_the_next(switch: ModuleType, budgeted: Program) -> None:
    attempts, mode = switch.CONFIG.retries["total_max_attempts"], switch.CONFIG.retries["mode"]
    assert (attempts, mode) == (5, "standard")
    backoff = sum(2**retry for retry in range(attempts - 1))
    longest = attempts * (switch.CONFIG.connect_timeout + switch.CONFIG.read_timeout) + backoff
    assert 3 * longest <= budgeted.one("Function").inputs["timeout"]


def failure_alarms(program: Program) -> dict[str, tuple[str, str, dict[str, str]]]:
    """The alarms of the safeguards: metric and dimensions, by name."""
    found = {}
    for alarm in program.all("MetricAlarm"):
        if "metricName" in alarm.inputs:
            of = alarm.inputs
            assert (of["threshold"], of["evaluationPeriods"], of["treatMissingData"]) == (1, 1, "notBreaching")
            assert of["alarmActions"] == of["okActions"] == [arn("aws:sns/topic:Topic", "vllm-dev-alarm")]
            assert (of["statistic"], of["period"]) == ("Sum", 900)
            assert of["comparisonOperator"] == "GreaterThanOrEqualToThreshold"
            found[alarm.name.removeprefix("vllm-dev-")] = (of["namespace"], of["metricName"], of["dimensions"])
    return found


def test_a_safeguard_that_fails_is_mailed(budgeted: Program, limited: Program) -> None:
    assert failure_alarms(budgeted) == {
        "budget-failing": ("AWS/Lambda", "Errors", {"FunctionName": "vllm-dev-budget-1a2b3c4"}),
        "budget-dropped": ("AWS/Scheduler", "InvocationDroppedCount", {"ScheduleGroup": "vllm-dev-budget-1a2b3c4"}),
    }
    assert failure_alarms(limited) == {}  # without alarmEmail, nobody can be notified
    assert failure_alarms(run_program("dev", ttlHours=12, alarmEmail="ops@example.com")) == {
        "ttl-dropped": ("AWS/Scheduler", "InvocationDroppedCount", {"ScheduleGroup": "vllm-dev-ttl-1a2b3c4"})
    }
