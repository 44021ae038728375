"""A running instance retains its scale-in protection when the group's is turned off, until it is removed."""

from __future__ import annotations

from typing import Any
from unittest import mock

import boto3
import pulumi
import pytest
from moto import mock_aws

from infra.aws.scale_in import lift_protection
from tests.infra.program import REGION, run_program

GROUP = "vllm-prod-gpu-1a2b3c4"


@pytest.fixture
def autoscaling(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        ec2 = boto3.client("ec2", region_name=REGION)
        image = ec2.describe_images()["Images"][0]["ImageId"]
        template: Any = {"ImageId": image, "InstanceType": "t3.micro"}
        ec2.create_launch_template(LaunchTemplateName="gpu", LaunchTemplateData=template)
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        client = boto3.client("autoscaling", region_name=REGION)
        client.create_auto_scaling_group(
            AutoScalingGroupName=GROUP,
            LaunchTemplate={"LaunchTemplateName": "gpu"},
            MinSize=0,
            MaxSize=2,
            DesiredCapacity=2,
            VPCZoneIdentifier=subnet,
            NewInstancesProtectedFromScaleIn=True,
        )
        yield client


def instances(autoscaling: Any) -> list[dict[str, Any]]:
    (group,) = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])["AutoScalingGroups"]
    return list(group["Instances"])


def test_switching_the_groups_protection_off_leaves_what_runs_protected_until_it_is_lifted(autoscaling: Any) -> None:
    autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, NewInstancesProtectedFromScaleIn=False)
    autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=0)
    assert [i["ProtectedFromScaleIn"] for i in instances(autoscaling)] == [True, True], "billed for ever"
    assert len(lift_protection(autoscaling, GROUP)) == 2
    assert not any(i["ProtectedFromScaleIn"] for i in instances(autoscaling))
    autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=0)
    assert instances(autoscaling) == []
    assert lift_protection(autoscaling, GROUP) == []


def test_no_more_instances_are_named_at_once_than_aws_takes() -> None:
    """SetInstanceProtection takes 50."""
    client = mock.Mock()
    running = [{"InstanceId": f"i-{number}", "ProtectedFromScaleIn": True} for number in range(120)]
    client.describe_auto_scaling_groups.return_value = {"AutoScalingGroups": [{"Instances": running}]}
    assert len(lift_protection(client, GROUP)) == 120
    named = [call.kwargs["InstanceIds"] for call in client.set_instance_protection.mock_calls]
    assert max(map(len, named)) <= 50
    assert [name for names in named for name in names] == [instance["InstanceId"] for instance in running]


@pytest.mark.parametrize(
    ("before", "after", "calls"), [(True, False, 1), (True, True, 0), (False, False, 0), (False, True, 0)]
)
def test_it_is_lifted_when_managed_termination_protection_goes_off(
    monkeypatch: pytest.MonkeyPatch, before: bool, after: bool, calls: int
) -> None:
    from infra.aws import scale_in

    made: list[Any] = []
    monkeypatch.setattr(pulumi, "ResourceHook", lambda _name, function: made.append(function))
    monkeypatch.setattr(pulumi.log, "info", lambda _: None)
    lifted: list[str] = []
    monkeypatch.setattr(scale_in, "lift_protection", lambda _, group: lifted.append(group) or ["i-1"])  # type: ignore[func-returns-value]
    scale_in.lifting_hook("hook", REGION, lambda _service: None)

    def inputs(protects: bool) -> dict[str, Any]:
        arn = f"arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:1-2:autoScalingGroupName/{GROUP}"
        setting = "ENABLED" if protects else "DISABLED"
        return {"autoScalingGroupProvider": {"autoScalingGroupArn": arn, "managedTerminationProtection": setting}}

    made[0](pulumi.ResourceHookArgs("urn", "id", "gpu", "type", new_inputs=inputs(after), old_inputs=inputs(before)))
    assert lifted == [GROUP] * calls


def test_the_hook_is_on_the_capacity_provider() -> None:
    assert run_program("prod").one("CapacityProvider").hooks == ("vllm-prod-gpu-scale-in",)
