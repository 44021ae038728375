"""Safeguards: alarms, scale-down, time to live, budget, and the tags that attribute costs."""

import re

import pytest

from smoke_tests.aws.deployed import Deployed
from smoke_tests.errors import TargetError
from smoke_tests.teardown.sweep import Sweeper

ALARMS = ("no-replica", "no-wake", "idle-instances", "errors", "queue-full", "no-gateway", "weights-slow")
# Resources that do not support tags, or that AWS creates.
UNTAGGED = ("dashboard", "DNS record", "hosted zone", "pull-through cache", "scalable target")
REQUIRED_TAGS = {"Project", "Stack", "Component", "ManagedBy"}


def _named(deployed: Deployed, suffix: str) -> str | None:
    form = re.compile(f"{re.escape(deployed.identity.prefix)}-{suffix}-[0-9a-f]{{7}}")
    return next((name for name in deployed.alarms() if form.fullmatch(name)), None)


def test_alarms_exist(deployed: Deployed) -> None:
    if not deployed.outputs.get("alarms"):
        pytest.skip("alarmEmail is not set, so that nobody asked to be told")
    missing = [suffix for suffix in ALARMS if _named(deployed, f"alarm-{suffix}") is None]
    assert not missing, f"no alarm {', '.join(missing)}, although alarmEmail is set"


def test_no_alarm_is_on(deployed: Deployed) -> None:
    on = [
        f"{name} ({alarm['StateReason']})"
        for name, alarm in deployed.alarms().items()
        # The idle alarm stops an unused stack: it does not indicate a problem.
        if alarm["StateValue"] == "ALARM" and not name.startswith(f"{deployed.identity.prefix}-scaling-idle-")
    ]
    assert not on, f"in ALARM: {'; '.join(on)}"


@pytest.mark.parametrize("which", ["idle", "stuck"])
def test_scale_down_is_armed_for_service_and_instances(deployed: Deployed, which: str) -> None:
    least, most = (
        int(deployed.outputs.get(name, default)) for name, default in (("minReplicas", 0), ("maxReplicas", 1))
    )
    if most <= least:
        pytest.skip("minReplicas is maxReplicas: there is nothing to scale down")
    name = _named(deployed, f"scaling-{which}")
    assert name, f"there is no alarm {deployed.identity.prefix}-scaling-{which}: an idle stack is never stopped"
    alarm = deployed.alarms()[name]
    assert alarm["ActionsEnabled"], f"the actions of {name} are turned off: aws cloudwatch enable-alarm-actions"
    resource = f"service/{deployed.cluster}/{deployed.outputs['engineServiceName']}"
    scaling = deployed.client("application-autoscaling")
    asked = {"ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount"}
    stops_service = {
        p["PolicyARN"] for p in scaling.describe_scaling_policies(**asked, ResourceId=resource)["ScalingPolicies"]
    }
    policies = deployed.client("autoscaling").describe_policies(AutoScalingGroupName=deployed.group_name)[
        "ScalingPolicies"
    ]
    stops_instances = {policy["PolicyARN"] for policy in policies if policy.get("Enabled", True)}
    actions = set(alarm["AlarmActions"])
    assert actions & stops_service, f"{name} does not stop the engine's service"
    assert actions & stops_instances, f"{name} does not stop the GPU instances, or its policy is disabled"
    for target in scaling.describe_scalable_targets(ServiceNamespace="ecs", ResourceIds=[resource])["ScalableTargets"]:
        suspended = target.get("SuspendedState", {})
        assert not suspended.get("DynamicScalingInSuspended"), "scaling the service in is suspended"
        assert not suspended.get("ScheduledScalingSuspended"), "scheduled scaling of the service is suspended"
    stopped = {process["ProcessName"] for process in deployed.group().get("SuspendedProcesses", ())}
    broken = sorted(stopped & {"AlarmNotification", "Terminate", "Launch"})
    assert not broken, f"processes of {deployed.group_name} are suspended: {', '.join(broken)}"


def test_time_to_live_is_armed(deployed: Deployed) -> None:
    if not deployed.outputs.get("turnsOffAt"):
        pytest.skip("ttlHours is not set")
    _scheduled(deployed, "ttl", {"service", "instances"})


def test_budget_is_watched(deployed: Deployed) -> None:
    if not deployed.outputs.get("budgetCounts"):
        pytest.skip("monthlyBudgetUsd is not set")
    account = deployed.client("sts").get_caller_identity()["Account"]
    listed = deployed.client("budgets").get_paginator("describe_budgets").paginate(AccountId=account)
    names = [budget["BudgetName"] for page in listed for budget in page["Budgets"]]
    assert any(deployed.identity.named("budget", name) for name in names), "there is no budget of the stack"
    functions = deployed.client("lambda").get_paginator("list_functions").paginate()
    ours = [
        f
        for page in functions
        for f in page["Functions"]
        if deployed.identity.named("Lambda function", f["FunctionName"])
    ]
    assert ours, "there is no function that compares spend and budget"
    _scheduled(deployed, "budget", {"budget"})


def _scheduled(deployed: Deployed, what: str, needed: set[str]) -> None:
    """Every schedule of a safeguard exists and is enabled."""
    scheduler, prefix = deployed.client("scheduler"), f"{deployed.identity.prefix}-{what}-"
    groups = [g["Name"] for g in scheduler.list_schedule_groups(NamePrefix=prefix)["ScheduleGroups"]]
    groups = [name for name in groups if deployed.identity.named("schedule group", name)]
    found = {s["Name"]: s["State"] for name in groups for s in scheduler.list_schedules(GroupName=name)["Schedules"]}
    for part in sorted(needed):
        states = [state for name, state in found.items() if f"-{part}-" in name or what == part]
        assert states, f"there is no schedule {prefix}{part}: nothing turns the stack off"
        assert states == ["ENABLED"], f"the schedule {prefix}{part} is {', '.join(states)}"


def test_tags_are_complete(deployed: Deployed) -> None:
    try:
        sweep = Sweeper(
            deployed.identity, deployed.region, deployed.session, lambda text: None, other_regions=False
        ).sweep()
    except TargetError as error:
        pytest.fail(str(error))
    assert not sweep.not_checked, f"not checked: {'; '.join(f'{one.what}: {one.reason}' for one in sweep.not_checked)}"
    bare = [
        f"{item.kind} {item.name}"
        for item in sweep.items
        if item.found_by == "name"
        and item.kind not in UNTAGGED
        and not item.name.startswith(("TargetTracking-", "/aws/ecs/"))
    ]
    assert not bare, f"without the tags Project and Stack: {', '.join(bare)}"


def test_what_the_group_launches_is_tagged(deployed: Deployed) -> None:
    passed_on = {tag["Key"] for tag in deployed.group()["Tags"] if tag.get("PropagateAtLaunch")}
    missing = sorted(REQUIRED_TAGS - passed_on)
    assert not missing, f"Auto Scaling group {deployed.group_name} does not pass on the tags {', '.join(missing)}"
    by_kind = {
        one["ResourceType"]: {t["Key"] for t in one["Tags"]}
        for one in deployed.launch_template().get("TagSpecifications", ())
    }
    for kind in ("instance", "volume"):
        lacking = sorted(REQUIRED_TAGS - by_kind.get(kind, set()))
        assert not lacking, f"the launch template gives a new {kind} no tags {', '.join(lacking)}"
