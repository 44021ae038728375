"""The checks of a stack on AWS, tested: a sound stack passes all of them, and each fault fails the check that names it."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.ecs.models import ecs_backends

from smoke_tests.aws import test_aws_guards as guards
from smoke_tests.aws import test_aws_services as services
from smoke_tests.aws import test_aws_weights as weights
from smoke_tests.aws.deployed import Deployed, on_aws
from smoke_tests.conformance import Conformance, run_conformance
from smoke_tests.target import Target
from tests.smoke_tests.aws.sound import Sound

Fault = Callable[[Sound], contextlib.AbstractContextManager[None]]
Check = Callable[[Deployed], None]
FOLDER = Path(services.__file__).parent
QUIETLY = ("-q", "-o", "timeout=0", "-p", "no:unraisableexception")


def outcomes(target: Target, folder: Path) -> dict[str, str]:
    report = folder / "report.json"
    run_conformance(Conformance(target), files=("aws",), report=report, pytest_arguments=QUIETLY)
    return {test["name"]: test["outcome"] for test in json.loads(report.read_text())["tests"]}


def test_a_sound_stack_passes_every_check(sound: Sound, tmp_path: Path) -> None:
    found = outcomes(Target("http://lb.example", stack="dev", outputs=sound.outputs), tmp_path)
    assert set(found.values()) == {"passed"}
    assert len(found) == 16


def test_nothing_is_collected_for_what_is_no_stack_on_aws(sound: Sound, tmp_path: Path) -> None:
    local = Target("http://127.0.0.1:8000")
    cluster = Target("http://gateway.vllm", stack="dev", outputs={"endpoint": "http://gateway.vllm", "region": "x"})
    assert not on_aws(local)
    assert not on_aws(cluster)
    assert outcomes(local, tmp_path) == {}


def test_guards_that_nobody_asked_for_are_not_missed(sound: Sound, tmp_path: Path) -> None:
    unset = {"alarms": False, "turnsOffAt": None, "budgetCounts": None, "minReplicas": 1}
    found = outcomes(Target("http://lb.example", stack="dev", outputs={**sound.outputs, **unset}), tmp_path)
    assert sorted(name for name, outcome in found.items() if outcome == "skipped") == [
        "test_alarms_exist", "test_budget_is_watched", "test_scale_down_is_armed_for_service_and_instances[idle]",
        "test_scale_down_is_armed_for_service_and_instances[stuck]", "test_time_to_live_is_armed",
    ]  # fmt: skip


@contextlib.contextmanager
def the_service_is(sound: Sound, field: str, value: Any) -> Iterator[None]:
    """Whatever is asked of moto's services runs at once; a service that does not is made by hand."""
    backend = ecs_backends["123456789012"]["us-east-1"]
    (service,) = [one for one in backend.services.values() if one.name == sound.name("engine")]
    holder = service.deployments[0] if field == "rolloutState" else vars(service)
    kept, holder[field] = holder[field], value
    yield
    holder[field] = kept


@contextlib.contextmanager
def an_instance_is_of_another_gpu(sound: Sound) -> Iterator[None]:
    ec2 = sound.client("ec2")
    made = ec2.run_instances(ImageId="ami-12c6146b", InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1)["Instances"][0]
    host = sound.join(made["InstanceId"])
    yield
    sound.client("ecs").deregister_container_instance(cluster=sound.name("gpu"), containerInstance=host, force=True)
    ec2.terminate_instances(InstanceIds=[made["InstanceId"]])


@contextlib.contextmanager
def engine_runs(sound: Sound, definition: str) -> Iterator[None]:
    service = {"cluster": sound.name("gpu"), "service": sound.name("engine")}
    before = sound.client("ecs").describe_services(cluster=service["cluster"], services=[service["service"]])
    sound.client("ecs").update_service(**service, taskDefinition=definition)
    yield
    sound.client("ecs").update_service(**service, taskDefinition=before["services"][0]["taskDefinition"])


@contextlib.contextmanager
def the_engine_is_open(sound: Sound, **to: Any) -> Iterator[None]:
    rule = {"GroupId": sound.group, "IpPermissions": [{"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8000, **to}]}
    sound.client("ec2").authorize_security_group_ingress(**rule)
    yield
    sound.client("ec2").revoke_security_group_ingress(**rule)


@contextlib.contextmanager
def the_file_system_is_not_encrypted(sound: Sound) -> Iterator[None]:
    plain = sound.client("efs").create_file_system(CreationToken="p", Encrypted=False, **sound.tagging())[
        "FileSystemId"
    ]
    kept, sound.outputs["weightsFileSystemId"] = sound.outputs["weightsFileSystemId"], plain
    yield
    sound.outputs["weightsFileSystemId"] = kept
    sound.client("efs").delete_file_system(FileSystemId=plain)


@contextlib.contextmanager
def the_file_system_takes_plain_text(sound: Sound) -> Iterator[None]:
    statement = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sound.client("efs").put_file_system_policy(FileSystemId=sound.file_system, Policy=policy)
    yield
    sound.allow_only_tls()


@contextlib.contextmanager
def an_alarm_is_gone(sound: Sound, rest: str = "alarm-errors", actions: list[str] | None = None) -> Iterator[None]:
    sound.client("cloudwatch").delete_alarms(AlarmNames=[sound.name(rest)])
    yield
    sound.alarm(rest, actions)


@contextlib.contextmanager
def an_alarm_is_on(sound: Sound) -> Iterator[None]:
    state = {"AlarmName": sound.name("alarm-no-gateway"), "StateReason": "no gateway is healthy"}
    sound.client("cloudwatch").set_alarm_state(**state, StateValue="ALARM")
    yield
    sound.client("cloudwatch").set_alarm_state(**state, StateValue="OK")


@contextlib.contextmanager
def scale_down(sound: Sound, *, of: tuple[int, ...] = (0, 1), enabled: bool = True) -> Iterator[None]:
    sound.alarm("scaling-idle", [sound.stops[i] for i in of], enabled=enabled)
    yield
    sound.alarm("scaling-idle", sound.stops)


@contextlib.contextmanager
def scaling_is_suspended(sound: Sound) -> Iterator[None]:
    group = {"AutoScalingGroupName": sound.name("gpu"), "ScalingProcesses": ["AlarmNotification"]}
    sound.client("autoscaling").suspend_processes(**group)
    yield
    sound.client("autoscaling").resume_processes(**group)


@contextlib.contextmanager
def a_schedule_is(sound: Sound, state: str, group: str, part: str) -> Iterator[None]:
    if state == "GONE":
        sound.client("scheduler").delete_schedule(GroupName=sound.name(group), Name=sound.name(f"{group}-{part}"))
    else:
        sound.schedule(group, part, state)
    yield
    sound.schedule(group, part)


@contextlib.contextmanager
def the_budget_is_gone(sound: Sound) -> Iterator[None]:
    budgets, account = sound.client("budgets"), "123456789012"
    budget = budgets.describe_budgets(AccountId=account)["Budgets"][0]
    budgets.delete_budget(AccountId=account, BudgetName=budget["BudgetName"])
    yield
    budgets.create_budget(
        AccountId=account, Budget={k: budget[k] for k in ("BudgetName", "BudgetLimit", "TimeUnit", "BudgetType")}
    )


@contextlib.contextmanager
def a_role_lost_its_tags(sound: Sound) -> Iterator[None]:
    role = sound.name("role-instance")
    sound.client("iam").untag_role(RoleName=role, TagKeys=["Project", "Stack"])
    yield
    sound.client("iam").tag_role(RoleName=role, Tags=sound.pairs())


@contextlib.contextmanager
def the_group_passes_a_tag_on_no_more(sound: Sound) -> Iterator[None]:
    tag = {"ResourceId": sound.name("gpu"), "ResourceType": "auto-scaling-group", "Key": "Stack", "Value": "dev"}
    scaling = sound.client("autoscaling")
    scaling.create_or_update_tags(Tags=[{**tag, "PropagateAtLaunch": False}])
    yield
    scaling.create_or_update_tags(Tags=[{**tag, "PropagateAtLaunch": True}])


@contextlib.contextmanager
def disks_are_launched_without_tags(sound: Sound) -> Iterator[None]:
    ec2, template = sound.client("ec2"), {"LaunchTemplateId": sound.template}
    ec2.create_launch_template_version(**template, LaunchTemplateData=sound.template_data("instance"))
    yield
    ec2.create_launch_template_version(**template, LaunchTemplateData=sound.template_data("instance", "volume"))


def steady(deployed: Deployed) -> None:
    services.test_service_is_steady(deployed, "engineServiceName")


def armed(deployed: Deployed) -> None:
    guards.test_scale_down_is_armed_for_service_and_instances(deployed, "idle")


ANYWHERE = [{"CidrIp": "0.0.0.0/0"}]
FAULTS: dict[str, tuple[Fault, Check, str]] = {
    "fewer_tasks_run_than_wanted": (lambda s: the_service_is(s, "desired_count", 1), steady, r"not steady: 0 of 1 tasks run"),
    "a_deployment_failed": (lambda s: the_service_is(s, "rolloutState", "FAILED"), steady, r"1 deployments are FAILED"),
    "the_service_drains": (lambda s: the_service_is(s, "status", "DRAINING"), steady, r"status is DRAINING"),
    "another_gpu": (
        an_instance_is_of_another_gpu, services.test_engine_tasks_run_on_the_gpu_that_was_asked_for, r"g4dn\.xlarge, not g5",
    ),
    "too_many_gpus_taken": (
        lambda s: engine_runs(s, s.register(gpus=4)),
        services.test_an_engine_task_takes_every_gpu_that_it_was_planned_with, r"planned: 1",
    ),
    "engine_open_to_the_world": (
        lambda s: the_engine_is_open(s, IpRanges=ANYWHERE), services.test_engine_is_not_reachable_from_outside, r"open to 0\.0\.0\.0/0",
    ),
    "engine_open_to_another_group": (
        lambda s: the_engine_is_open(s, UserIdGroupPairs=[{"GroupId": s.identifiers["security group"][1]}]),
        services.test_engine_is_not_reachable_from_outside, r"port 8000 is open to sg-",
    ),
    "weights_in_the_clear": (the_file_system_is_not_encrypted, weights.test_weights_are_encrypted_at_rest, r"is not encrypted"),
    "mounted_without_tls": (
        lambda s: engine_runs(s, s.register(transit="DISABLED")), weights.test_weights_are_mounted_with_tls_and_iam, r"without TLS",
    ),
    "mounted_without_iam": (
        lambda s: engine_runs(s, s.register(iam="DISABLED")), weights.test_weights_are_mounted_with_tls_and_iam, r"without IAM",
    ),
    "plain_text_is_taken": (
        the_file_system_takes_plain_text, weights.test_weights_refuse_whoever_comes_without_tls, r"no policy that refuses",
    ),
    "an_alarm_is_gone": (an_alarm_is_gone, guards.test_alarms_exist, r"no alarm errors"),
    "an_alarm_is_on": (an_alarm_is_on, guards.test_no_alarm_is_on, r"vllm-dev-alarm-no-gateway-\w+ \(no gateway is healthy\)"),
    "no_scale_down": (lambda s: an_alarm_is_gone(s, "scaling-idle", s.stops), armed, r"an idle stack is never stopped"),
    "scale_down_turned_off": (lambda s: scale_down(s, enabled=False), armed, r"are turned off"),
    "service_goes_on": (lambda s: scale_down(s, of=(1,)), armed, r"does not stop the engine's service"),
    "instances_go_on": (lambda s: scale_down(s, of=(0,)), armed, r"does not stop the GPU instances"),
    "scaling_suspended": (scaling_is_suspended, armed, r"suspended: AlarmNotification"),
    "time_to_live_disabled": (
        lambda s: a_schedule_is(s, "DISABLED", "ttl", "instances"), guards.test_time_to_live_is_armed, r"ttl-instances is DISABLED",
    ),
    "time_to_live_gone": (
        lambda s: a_schedule_is(s, "GONE", "ttl", "service"), guards.test_time_to_live_is_armed, r"no schedule vllm-dev-ttl-service",
    ),
    "budget_gone": (the_budget_is_gone, guards.test_budget_is_watched, r"no budget of the stack"),
    "tags_lost": (a_role_lost_its_tags, guards.test_tags_are_complete, r"without the tags .*IAM role vllm-dev-role-instance"),
    "tags_not_passed_on": (the_group_passes_a_tag_on_no_more, guards.test_what_the_group_launches_is_tagged, r"pass on the tags Stack"),
    "disks_untagged": (disks_are_launched_without_tags, guards.test_what_the_group_launches_is_tagged, r"a new volume no tags"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_fails_the_check_that_names_it(name: str, sound: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, check, message = FAULTS[name]
    monkeypatch.setattr(services, "STEADY_TIMEOUT_SECONDS", 0.0)
    deployed = Deployed("dev", sound.outputs)
    monkeypatch.setitem(vars(deployed), "session", sound._session)
    with fault(sound), pytest.raises((AssertionError, pytest.fail.Exception), match=message):
        check(deployed)
    check(deployed)


def test_every_check_has_a_fault(session: boto3.Session) -> None:
    checks = {name for module in (guards, services, weights) for name in vars(module) if name.startswith("test_")}
    broken = {check.__name__ for _, check, _ in FAULTS.values()}
    indirect = {"test_service_is_steady", "test_scale_down_is_armed_for_service_and_instances"}
    assert {steady.__name__, armed.__name__} <= broken
    assert checks == (broken - {steady.__name__, armed.__name__}) | indirect
