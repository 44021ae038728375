"""What fails, is killed or is changed behind Pulumi's back: the next command goes on from there, and nothing is left over."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.pulumi_engine.scene import Scene, fail, names

WHOLE = pytest.mark.whole_matrix
VPC = "ec2/vpc:Vpc::vllm-dev-network"
FILE_SYSTEM = "efs/fileSystem:FileSystem::"
ENGINE_TASK = "ecs/taskDefinition:TaskDefinition::vllm-dev-engine"
ENGINE, GATEWAY = "ecs/service:Service::vllm-dev-engine", "ecs/service:Service::vllm-dev-gateway"
LOAD_BALANCER = "lb/loadBalancer:LoadBalancer::"
RULE = "SecurityGroupIngressRule::vllm-dev-sg-requests-in"
CREATIONS = [
    pytest.param((VPC,), id="vpc", marks=WHOLE),
    pytest.param((FILE_SYSTEM,), id="file-system", marks=WHOLE),
    pytest.param((ENGINE_TASK,), id="task-definition", marks=WHOLE),
    pytest.param((ENGINE,), id="engine-service", marks=WHOLE),
    pytest.param((GATEWAY,), id="gateway-service", marks=WHOLE),
    pytest.param((LOAD_BALANCER, FILE_SYSTEM), id="two-at-once", marks=WHOLE),
    pytest.param(("SecretVersion::", "ecr/repository:Repository::"), id="secret-and-repository", marks=WHOLE),
]


@pytest.mark.parametrize("parts", CREATIONS)
def test_after_a_failed_creation_up_goes_on_and_destroy_leaves_nothing(
    scene: Scene, tmp_path: Path, parts: tuple[str, ...]
) -> None:
    scene.init("dev")
    failed = scene.up(ok=False, **fail("create", *parts, message="the account's limit is reached"))
    assert "the account's limit is reached" in failed.output
    assert "Traceback" not in failed.output
    given_up = Scene(tmp_path / "given-up", like=scene)
    given_up.destroy()
    assert given_up.gone
    scene.up()
    assert scene.up().unchanged
    scene.destroy()
    assert scene.gone


def test_creations_that_fail_one_after_the_other(scene: Scene, tmp_path: Path) -> None:
    """At five places of one stack: each ``up`` gets further, and a destroy instead of it leaves nothing."""
    scene.init("dev")
    places = [VPC, FILE_SYSTEM, ENGINE_TASK, ENGINE, GATEWAY]
    for number, place in enumerate(places):
        failed = scene.up(ok=False, **fail("create", *places[number:], message="the account's limit is reached"))
        assert "the account's limit is reached" in failed.output
        assert place not in str(scene.resources())
        given_up = Scene(tmp_path / f"given-up-{number}", like=scene)
        given_up.destroy()
        assert given_up.gone
    scene.up()
    assert scene.up().unchanged
    scene.destroy()
    assert scene.gone


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(GATEWAY, id="gateway-service", marks=WHOLE),
        pytest.param(ENGINE, id="engine-service", marks=WHOLE),
        pytest.param("cloudwatch/dashboard:Dashboard::", id="dashboard", marks=WHOLE),
    ],
)
def test_after_a_failed_update_up_finishes_it(dev: Scene, part: str) -> None:
    before = task_definitions(dev)
    dev.write({"model": "Qwen/Qwen3-1.7B"})
    dev.up(ok=False, **fail("update", part))
    # A service whose update failed still runs tasks: what they are started from is there.
    assert all(revision in dev.cloud() for revision in running(dev))
    dev.up()
    assert dev.up().unchanged
    assert not set(before) & set(task_definitions(dev))
    assert set(running(dev)) <= set(task_definitions(dev))


@WHOLE
@pytest.mark.parametrize("op", ["create", "delete"])
def test_a_revision_that_fails_to_be_made_or_removed_is_so_by_the_next_up(dev: Scene, op: str) -> None:
    dev.write({"model": "Qwen/Qwen3-1.7B"})
    dev.up(ok=False, **fail(op, ENGINE_TASK))
    assert all(revision in dev.cloud() for revision in running(dev))
    dev.up()
    assert dev.up().unchanged
    assert len(task_definitions(dev)) == 3


def task_definitions(scene: Scene) -> list[str]:
    """The ids in the cloud of every task definition."""
    return [id_ for id_, row in scene.cloud().items() if row["kind"] == "TaskDefinition"]


def running(scene: Scene) -> list[str]:
    """The ids of the task definitions that the services run."""
    by_arn = {row["outputs"]["arn"]: row["id"] for row in scene.resources() if row["type"].endswith(":TaskDefinition")}
    return [by_arn[row["taskDefinition"]] for row in scene.cloud().values() if "taskDefinition" in row]


@WHOLE
@pytest.mark.parametrize("part", [VPC, FILE_SYSTEM, ENGINE, LOAD_BALANCER])
def test_after_a_failed_deletion_destroy_finishes(dev: Scene, part: str) -> None:
    failed = dev.destroy(ok=False, **fail("delete", part, message="DependencyViolation: still in use"))
    assert "DependencyViolation: still in use" in failed.output
    assert dev.resources()
    dev.destroy()
    assert dev.gone


@pytest.mark.parametrize(
    "lookup",
    [
        "getInstanceTypeOfferings",
        pytest.param("getRegion", marks=WHOLE),
        pytest.param("getAvailabilityZones", marks=WHOLE),
    ],
)
def test_a_failed_lookup_changes_nothing(dev: Scene, lookup: str) -> None:
    dev.write({"model": "Qwen/Qwen3-1.7B"})
    failed = dev.up(ok=False, **fail("invoke", lookup, message="api error Throttling: Rate exceeded"))
    assert "could not be looked up" in failed.output
    assert "Rate exceeded" in failed.output
    assert "Traceback" not in failed.output
    assert failed.steps == []


# -- killed -----------------------------------------------------------------------------------------------------
SLOW = '{"Service::": 60, "taskDefinition": 60, "": 0.02}'


def kill_once(scene: Scene, process: subprocess.Popen[str], op: str) -> None:
    """SIGKILL to the engine and all of its children once an operation has reached the cloud."""
    known = len(scene.operations(op))
    end = time.monotonic() + 120
    while len(scene.operations(op)) < known + 1:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"no {op} within two minutes"
        time.sleep(0.05)
    scene.kill(process)
    # Beside a state in a folder are files of attributes, written in place: one that was cut is empty, and unreadable.
    for attributes in scene.state.rglob("*.json.attrs"):
        if attributes.stat().st_size == 0:
            attributes.unlink()


@pytest.mark.parametrize("op", ["create", pytest.param("update", marks=WHOLE), pytest.param("delete", marks=WHOLE)])
def test_a_killed_engine_goes_on_after_cancel_and_refresh(scene: Scene, dev: Scene, tmp_path: Path, op: str) -> None:
    if op == "create":
        stack = scene.init("dev")
    else:
        stack = dev
        stack.write({"model": "Qwen/Qwen3-1.7B"})
    command = "destroy" if op == "delete" else "up"
    kill_once(stack, stack.start(command, "--yes", "--skip-preview", STANDIN_SECONDS=SLOW), op)
    locked = stack.up(ok=False)
    assert "pulumi cancel" in locked.output
    stack.run("cancel", "--yes")
    stack.run("refresh", "--yes", "--skip-preview")
    stack.up()
    assert stack.up().unchanged
    stack.destroy()
    assert stack.resources() == []


# -- drift ------------------------------------------------------------------------------------------------------
def test_drift_of_what_aws_moves_is_left_and_what_is_deleted_comes_back(dev: Scene) -> None:
    moved = '[{"urn": "Service::vllm-dev-engine", "set": {"desiredCount": 1}}]'
    dev.run("refresh", "--yes", "--skip-preview", STANDIN_DRIFT=moved)
    assert dev.up().unchanged
    lost = dev.lose(GATEWAY, RULE)
    assert sorted(dev.up("--refresh", **lost).steps_of("create")) == [
        "vllm-dev-gateway", "vllm-dev-sg-requests-in",
    ]  # fmt: skip
    assert dev.up("--refresh").unchanged


@WHOLE
@pytest.mark.parametrize("part", [ENGINE, LOAD_BALANCER, "ec2/route:Route::vllm-dev-network-private-0", "Listener::"])
def test_whatever_is_deleted_comes_back_with_what_depends_on_it(dev: Scene, part: str) -> None:
    lost = dev.lose(part)
    dev.run("refresh", "--yes", "--skip-preview", **lost)
    again = dev.up()
    assert {step.name for step in again.steps if part in step.urn} <= set(again.steps_of("create"))
    assert dev.up("--refresh").unchanged
    dev.destroy()
    assert dev.gone, names(dev.resources())
