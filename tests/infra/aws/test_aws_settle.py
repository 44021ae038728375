"""After a deploy, running replicas are scaled within new bounds and moved to new instance types; others are unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pulumi
import pytest
from botocore.exceptions import ClientError

from infra.aws import settle
from infra.aws.settle import move_within, replace_others
from tests.infra.program import run_program

CLUSTER, SERVICE = "vllm-dev-gpu", "vllm-dev-engine"


def aws(*, desired: int = 0, capacity: int = 0, **group: Any) -> mock.Mock:
    """A client that answers for ECS, EC2 and Auto Scaling."""
    client = mock.Mock()
    client.describe_services.return_value = {"services": [{"desiredCount": desired}]}
    client.describe_auto_scaling_groups.return_value = {
        "AutoScalingGroups": [{"DesiredCapacity": capacity, "Instances": [], **group}]
    }
    return client


@pytest.mark.parametrize(
    ("desired", "capacity", "bounds", "count", "started"),
    [
        (0, 0, (1, 3), 1, 1),
        (1, 1, (2, 3), 2, 2),
        (0, 3, (1, 3), 1, None),  # instances that still drain, or warm up, are not counted down
        (3, 3, (0, 1), 1, None),  # ECS can tell which instance is idle
        (2, 2, (0, 3), None, None),
        (0, 0, (0, 1), None, None),
    ],
)
def test_replicas_move_to_the_nearest_number_within_the_bounds(
    desired: int, capacity: int, bounds: tuple[int, int], count: int | None, started: int | None
) -> None:
    client = aws(desired=desired, capacity=capacity)
    assert move_within(client, client, CLUSTER, SERVICE, *bounds) == count
    updates = [mock.call(cluster=CLUSTER, service=SERVICE, desiredCount=count)] if count is not None else []
    assert client.update_service.mock_calls == updates
    # Within a cooldown the group would refuse, and a wake is what a cooldown follows.
    starts = [mock.call(AutoScalingGroupName=CLUSTER, DesiredCapacity=started, HonorCooldown=False)] if started else []
    assert client.set_desired_capacity.mock_calls == starts


def instance(name: str, kind: str, state: str = "InService") -> dict[str, str]:
    return {"InstanceId": name, "InstanceType": kind, "LifecycleState": state}


def test_instances_of_other_types_are_replaced_and_the_group_keeps_its_number() -> None:
    running = [
        instance("i-old", "g5.xlarge"),
        instance("i-starting", "g5.xlarge", "Pending"),
        instance("i-new", "g6.xlarge"),
        instance("i-going", "g5.xlarge", "Terminating:Wait"),
    ]
    client = aws(Instances=running)
    assert replace_others(client, client, CLUSTER, ["g6.xlarge", "g6.2xlarge"]) == ["i-old", "i-starting"]
    assert client.terminate_instance_in_auto_scaling_group.mock_calls == [
        mock.call(InstanceId=name, ShouldDecrementDesiredCapacity=False) for name in ("i-old", "i-starting")
    ]
    assert not client.describe_warm_pool.called
    assert not client.terminate_instances.called


def test_a_warm_pool_keeps_no_instance_of_another_type() -> None:
    client = aws(WarmPoolConfiguration={"MinSize": 2})
    client.describe_warm_pool.return_value = {
        "Instances": [instance("i-cold", "g5.xlarge", "Warmed:Stopped"), instance("i-warm", "g6.xlarge")]
    }
    assert replace_others(client, client, CLUSTER, ["g6.xlarge"]) == ["i-cold"]
    assert client.terminate_instances.mock_calls == [mock.call(InstanceIds=["i-cold"])]
    assert replace_others(client, client, CLUSTER, ["g6.xlarge", "g5.xlarge"]) == []
    assert client.terminate_instances.call_count == 1


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[pulumi.ResourceHookArgs], None]]:
    made: list[Any] = []
    monkeypatch.setattr(pulumi, "ResourceHook", lambda _name, function: made.append(function))
    return made


def target(least: int, most: int) -> dict[str, Any]:
    return {"resourceId": f"service/{CLUSTER}/{SERVICE}", "minCapacity": least, "maxCapacity": most}


def args(new: dict[str, Any], old: dict[str, Any]) -> pulumi.ResourceHookArgs:
    return pulumi.ResourceHookArgs("urn", "id", "name", "type", new_inputs=new, old_inputs=old)


def test_an_update_that_leaves_the_bounds_asks_aws_nothing(hooks: list[Any]) -> None:
    clients = mock.Mock()
    settle.bounds_hook("hook", clients)
    hooks[0](args(target(0, 2), target(0, 2)))
    assert not clients.called


def test_one_bound_is_reason_enough(hooks: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", told.append)
    client = aws(desired=2, capacity=2)
    settle.bounds_hook("hook", lambda _: client)
    hooks[0](args(target(0, 1), target(0, 2)))
    assert told == ["replicas set to 1, within minReplicas 0 and maxReplicas 1"]


@pytest.mark.parametrize(
    ("make", "inputs", "command"),
    [
        (lambda client: settle.bounds_hook("hook", client), target(1, 1), "aws ecs update-service"),
        (
            lambda client: settle.types_hook("hook", ["g6.xlarge"], client),
            {"name": CLUSTER},
            "aws autoscaling terminate-instance-in-auto-scaling-group --no-should-decrement-desired-capacity",
        ),
    ],
)
def test_what_aws_refuses_is_a_warning_with_the_command(
    hooks: list[Any], monkeypatch: pytest.MonkeyPatch, make: Any, inputs: dict[str, Any], command: str
) -> None:
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", told.append)
    refused = ClientError({"Error": {"Code": "AccessDenied", "Message": "not\nallowed"}}, "Any")
    make(mock.Mock(side_effect=refused))
    hooks[0](args(inputs, {}))
    (line,) = told
    assert "not allowed" in line
    assert command in line


def test_the_hooks_are_on_the_group_and_the_scalable_target() -> None:
    program = run_program("dev")
    assert program.one("Target").hooks == ("vllm-dev-scaling-bounds",)
    assert program.one("aws:autoscaling/group:Group").hooks == ("vllm-dev-gpu-types",)


@pytest.mark.parametrize("values", [{}, {"warmPool": 1}, {"capacity": "spot"}], ids=str)
def test_an_instance_of_any_type_of_the_plan_stays(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]) -> None:
    """With a warm pool, the group launches only the first type; a replica on the second keeps serving."""
    wanted: list[Any] = []
    real = settle.types_hook
    monkeypatch.setattr("infra.aws.gpu_cluster.types_hook", lambda *given: wanted.append(given[1]) or real(*given))  # type: ignore[func-returns-value]
    run_program("dev", owner="types", **values)  # no other test's run, which would be taken in place of a new one
    assert wanted == [["g5.xlarge", "g5.2xlarge", "g5.4xlarge"]]
