"""The step of a deploy that fetches the weights on Fargate."""

import re
from pathlib import Path

import pytest

from fakes.fake_hub import FakeModel, fake_hub
from image.engine import prepare
from image.engine.arguments import settle
from infra.containers import engine_environment
from infra.planning import make_plan
from infra.stack_files import load_stack
from tests.infra.program import Program, arn, run_program

ROLE = arn("aws:iam/role:Role", "vllm-dev-role-fetch-task")
EXECUTION = arn("aws:iam/role:Role", "vllm-dev-role-engine-exec")


@pytest.fixture
def dev() -> Program:
    return run_program("dev")


def test_it_runs_at_once_and_again_when_the_task_changes_and_needs_no_clock(dev: Program) -> None:
    schedule = dev.one("Schedule", "-fetch")
    # A rate without a start date begins when its schedule is made; only a new one begins again.
    assert re.fullmatch(r"rate\(\d+ days\)", schedule.inputs["scheduleExpression"])
    assert "startDate" not in schedule.inputs
    assert schedule.replace_on_changes == ("target",)
    parameters = schedule.inputs["target"]["ecsParameters"]
    assert parameters["taskDefinitionArn"] == arn("aws:ecs/taskDefinition:TaskDefinition", "vllm-dev-fetch")
    assert (parameters["launchType"], parameters["taskCount"]) == ("FARGATE", 1)
    assert parameters["networkConfiguration"]["assignPublicIp"] is False
    assert parameters["networkConfiguration"]["securityGroups"] == ["vllm-dev-sg-engine-id"]
    waits_for = {urn.rpartition("::")[2] for urn in schedule.depends_on}
    assert {"vllm-dev-weights-0", "vllm-dev-weights-mount-fetch", "vllm-dev-fetch", "vllm-dev-fetch-wake"} <= waits_for
    routes = {"vllm-dev-network-private-0", "vllm-dev-network-nat-0"}
    assert routes <= waits_for, "an image that cannot be pulled yet is not tried again"


def test_it_is_told_what_the_engine_is_told(dev: Program) -> None:
    plan = make_plan(load_stack("dev"))
    task = dev.one("TaskDefinition", "-fetch")
    container = task.container()
    assert container["entryPoint"] == ["python", "-m", "image.engine.fetch"]
    assert container["command"] == [plan.model, *plan.engine.args]
    environment = task.environment()
    assert engine_environment(plan).items() <= environment.items()
    assert environment["ENGINE_START_LIMIT_SECONDS"] == str(plan.replicas.startup_timeout_seconds)
    assert (
        environment["ENGINE_PREWARM_TARGET"] == "ecs:vllm-dev-gpu-1a2b3c4/vllm-dev-engine-1a2b3c4/vllm-dev-gpu-1a2b3c4"
    )
    assert container["image"] == dev.one("TaskDefinition", "gateway").container()["image"]
    mounts = {m["sourceVolume"]: m["containerPath"] for m in container["mountPoints"]}
    assert mounts == {"models": "/weights", "compiled": "/cache"}
    assert task.inputs["requiresCompatibilities"] == ["FARGATE"]
    assert (task.inputs["taskRoleArn"], task.inputs["executionRoleArn"]) == (ROLE, EXECUTION)


def test_a_variable_of_the_settings_reaches_both_containers_alike() -> None:
    program = run_program("dev", engineEnvironment=["ENGINE_START_LIMIT_SECONDS=60", "HF_HUB_DISABLE_XET=1"])
    for name in ("-fetch", "-engine"):
        environment = program.one("TaskDefinition", name).environment()
        assert (environment["ENGINE_START_LIMIT_SECONDS"], environment["HF_HUB_DISABLE_XET"]) == ("60", "1")


def test_replicas_of_one_rollout_serve_one_commit_of_a_moving_branch(dev: Program, tmp_path: Path) -> None:
    fetch, engine = dev.one("TaskDefinition", "-fetch"), dev.one("TaskDefinition", "-engine")
    with fake_hub() as hub:
        model = hub.models[fetch.container()["command"][0]] = FakeModel(
            {"config.json": b"{}", "model.safetensors": b"w"}
        )
        commits = []
        for task, ask in ((fetch, True), (engine, False), (fetch, True), (engine, False)):
            environment = task.environment() | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address}
            launch = settle(task.container()["command"], environment)
            commits += [weights.commit for weights in prepare.fetch(launch, None, print, ask=ask)]
            model.files["config.json"] += b" "
    assert len(commits) == 4
    assert len(set(commits)) == 1


@pytest.mark.parametrize("boot", ["false", "eager"])
def test_nothing_is_started_where_nothing_would_be_kept(boot: str) -> None:
    program = run_program("dev", fastBoot=boot)
    assert "ENGINE_PREWARM_TARGET" not in program.one("TaskDefinition", "-fetch").environment()
    assert [p for p in program.all("RolePolicy") if p.name.endswith("fetch-wake")] == []


def test_the_token_reaches_it_as_a_secret() -> None:
    task = run_program("dev", hfToken="hf_1").one("TaskDefinition", "-fetch")
    secret = arn("aws:secretsmanager/secret:Secret", "vllm-dev-secret-hub-token")
    assert task.container()["secrets"] == [{"name": "HF_TOKEN", "valueFrom": secret}]
    assert "HF_TOKEN" not in task.environment()


def test_the_schedule_may_run_this_task_alone(dev: Program) -> None:
    statements = {s["Sid"]: s for s in dev.one("RolePolicy", "vllm-dev-fetch").document()["Statement"]}
    assert statements["RunTask"]["Resource"] == [arn("aws:ecs/taskDefinition:TaskDefinition", "vllm-dev-fetch")]
    assert statements["PassRoles"]["Resource"] == [ROLE, EXECUTION]
    assert statements["PassRoles"]["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    wake = {s["Sid"]: s["Action"] for s in dev.one("RolePolicy", "-fetch-wake").document()["Statement"]}
    assert wake["WakeInstances"] == ["autoscaling:SetDesiredCapacity"]


def test_weights_in_s3_are_read_by_the_engine_and_the_fetch_alone_and_from_their_folder_alone() -> None:
    kms = "arn:aws:kms:us-east-1:123456789012:key/1234abcd"
    model = "s3://acme-models/llms/qwen3-4b"
    program = run_program("dev", model=model, baseModel="Qwen/Qwen3-4B", kmsKeyArn=kms)
    for task in ("-fetch", "-engine"):
        definition = program.one("TaskDefinition", task)
        assert definition.container()["command"][0] == model
        assert definition.environment()["AWS_REGION"] == "us-east-1"
    policies = [p for p in program.all("RolePolicy") if "-weights-bucket-" in p.name]
    assert {p.inputs["role"] for p in policies} == {"vllm-dev-role-engine-task-id", "vllm-dev-role-fetch-task-id"}
    for policy in policies:
        statements = {s["Sid"]: s for s in policy.document()["Statement"]}
        assert statements["ListModel"] | {"Effect": ""} == {
            "Sid": "ListModel", "Effect": "", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::acme-models"],
            "Condition": {"StringLike": {"s3:prefix": ["llms/qwen3-4b/*"]}},
        }  # fmt: skip
        assert statements["ReadModel"]["Action"] == ["s3:GetObject"]
        assert statements["ReadModel"]["Resource"] == ["arn:aws:s3:::acme-models/llms/qwen3-4b/*"]
        assert statements["DecryptModel"]["Resource"] == [kms]
        assert set(statements) == {"ListModel", "ReadModel", "DecryptModel"}
    waits_for = {urn.rpartition("::")[2] for urn in program.one("Schedule", "-fetch").depends_on}
    assert {p.name for p in policies} <= waits_for
    assert [p for p in run_program("dev").all("RolePolicy") if "-bucket-" in p.name] == []


def test_a_mirror_of_the_hub_reaches_both_containers_and_its_port_is_open() -> None:
    program = run_program("dev", hubEndpoint="http://hub.corp.internal:8081/hf")
    for task in ("-fetch", "-engine"):
        assert program.one("TaskDefinition", task).environment()["HF_ENDPOINT"] == "http://hub.corp.internal:8081/hf"
    (rule,) = [r for r in program.all("SecurityGroupEgressRule") if r.name.endswith("-engine-hub")]
    assert (rule.inputs["securityGroupId"], rule.inputs["fromPort"]) == ("vllm-dev-sg-engine-id", 8081)
    own = run_program("dev", engineEnvironment=["HF_ENDPOINT=http://hub.corp.internal:8081/hf"])
    assert any(r.name.endswith("-engine-hub") for r in own.all("SecurityGroupEgressRule"))
    usual = run_program("dev", hubEndpoint="https://hf-mirror.example").all("SecurityGroupEgressRule")
    assert not any(r.name.endswith("-engine-hub") for r in usual)
