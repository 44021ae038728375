"""A stack on AWS: its resources by output name, as AWS describes them."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3

from infra.identity import Identity as Owner
from smoke_tests.stack import own_name
from smoke_tests.target import Target
from smoke_tests.teardown.identity import Identity

NEEDED = (
    "region",
    "clusterName",
    "engineServiceName",
    "gatewayServiceName",
    "autoScalingGroupName",
    "weightsFileSystemId",
)


def on_aws(target: Target) -> bool:
    """Whether the target is a stack on AWS, according to its outputs."""
    return target.stack is not None and all(target.outputs.get(name) for name in NEEDED)


@dataclass(frozen=True, eq=False)
class Deployed:
    """Queries AWS for one stack.

    Attributes:
        stack: the stack's name.
        outputs: its outputs.
        owner: whose endpoint it is, if another program declares it.
    """

    stack: str
    outputs: Mapping[str, Any]
    owner: Owner | None = None

    @property
    def region(self) -> str:
        """The stack's region."""
        return str(self.outputs["region"])

    @property
    def cluster(self) -> str:
        """The ECS cluster's name."""
        return str(self.outputs["clusterName"])

    @property
    def group_name(self) -> str:
        """The Auto Scaling group's name."""
        return str(self.outputs["autoScalingGroupName"])

    @property
    def identity(self) -> Identity:
        """Its names and tags."""
        return Identity.of(self.owner or Owner(own_name(self.stack)))

    @functools.cached_property
    def session(self) -> boto3.Session:
        """The caller's credentials."""
        return boto3.Session(region_name=self.region)

    def client(self, service: str) -> Any:
        """A client of a service in the stack's region."""
        return self.session.client(service)  # type: ignore[call-overload]

    def service(self, name: str) -> dict[str, Any]:
        """The ECS service that an output names."""
        found = self.client("ecs").describe_services(cluster=self.cluster, services=[self.outputs[name]])
        assert found["services"], f"there is no ECS service {self.outputs[name]} in cluster {self.cluster}"
        return dict(found["services"][0])

    def task_definition(self, name: str) -> dict[str, Any]:
        """The task definition that a service runs now."""
        arn = self.service(name)["taskDefinition"]
        return dict(self.client("ecs").describe_task_definition(taskDefinition=arn)["taskDefinition"])

    def group(self) -> dict[str, Any]:
        """The Auto Scaling group."""
        found = self.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[self.group_name])
        assert found["AutoScalingGroups"], f"there is no Auto Scaling group {self.group_name}"
        return dict(found["AutoScalingGroups"][0])

    def launch_template(self) -> dict[str, Any]:
        """The data of the launch template's version that the group starts instances from."""
        group = self.group()
        mixed = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {}).get("LaunchTemplateSpecification")
        named = group.get("LaunchTemplate") or mixed
        assert named, f"Auto Scaling group {self.group_name} has no launch template"
        versions = self.client("ec2").describe_launch_template_versions(
            LaunchTemplateId=named["LaunchTemplateId"], Versions=[named.get("Version", "$Default")]
        )
        return dict(versions["LaunchTemplateVersions"][0]["LaunchTemplateData"])

    def alarms(self) -> dict[str, dict[str, Any]]:
        """The stack's own alarms by name, without those that scaling policies create."""
        pages = (
            self.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=self.identity.prefix)
        )
        listed = [alarm for page in pages for alarm in page["MetricAlarms"]]
        return {a["AlarmName"]: a for a in listed if self.identity.named("alarm", a["AlarmName"])}

    def file_system_policy(self) -> list[dict[str, Any]]:
        """The statements of the weights' file system policy; empty without one."""
        efs = self.client("efs")
        try:
            text = efs.describe_file_system_policy(FileSystemId=self.outputs["weightsFileSystemId"])["Policy"]
        except efs.exceptions.PolicyNotFound:
            return []
        return list(json.loads(text)["Statement"])
