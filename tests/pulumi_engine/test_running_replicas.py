"""What runs already follows the settings: a deploy brings replicas and instances to them, against an AWS on loopback."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.pulumi_engine.scene import Scene

REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    yield f"http://{host}:{port}"
    server.stop()


class Running:
    """The engine's service and group of a deployed scene as AWS has them: moto's, under the names that the state has."""

    def __init__(self, scene: Scene, endpoint: str, instance_type: str, *, desired: int, most: int) -> None:
        scene.environment |= {**KEYS, "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": REGION}
        (target,) = [row for row in scene.resources() if row["type"].endswith(":Target")]
        _, self.cluster, self.service = target["outputs"]["resourceId"].split("/")
        client: Any = lambda name: boto3.client(  # noqa: E731
            name,
            region_name=REGION,
            endpoint_url=endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        self.ecs, self.autoscaling, ec2 = client("ecs"), client("autoscaling"), client("ec2")
        self.ecs.create_cluster(clusterName=self.cluster)
        container: Any = {"name": "engine", "image": "engine", "memory": 64}
        self.ecs.register_task_definition(family="engine", containerDefinitions=[container])
        self.ecs.create_service(
            cluster=self.cluster, serviceName=self.service, taskDefinition="engine", desiredCount=desired
        )
        image = ec2.describe_images()["Images"][0]["ImageId"]
        template: Any = {"ImageId": image, "InstanceType": instance_type}
        ec2.create_launch_template(LaunchTemplateName="gpu", LaunchTemplateData=template)
        self.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=self.cluster,
            LaunchTemplate={"LaunchTemplateName": "gpu"},
            MinSize=0,
            MaxSize=most,
            DesiredCapacity=desired,
            NewInstancesProtectedFromScaleIn=True,
            VPCZoneIdentifier=ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        )

    @property
    def counts(self) -> tuple[int, int]:
        """What service and group are asked to run."""
        (service,) = self.ecs.describe_services(cluster=self.cluster, services=[self.service])["services"]
        return service["desiredCount"], self.group["DesiredCapacity"]

    @property
    def group(self) -> dict[str, Any]:
        """The Auto Scaling group."""
        (found,) = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.cluster])[
            "AutoScalingGroups"
        ]
        return dict(found)

    @property
    def instances(self) -> set[str]:
        """The group's instances."""
        return {instance["InstanceId"] for instance in self.group["Instances"]}


@pytest.mark.whole_matrix
def test_min_replicas_starts_replicas_and_max_replicas_stops_them(dev: Scene, endpoint: str) -> None:
    running = Running(dev, endpoint, "g5.xlarge", desired=0, most=3)
    dev.set("minReplicas", 1)
    told = dev.up()
    assert running.counts == (1, 1)
    assert "replicas set to 1, within minReplicas 1 and maxReplicas 1" in told.output
    dev.set("minReplicas", 0)  # what runs goes when it is idle, not in the middle of a request
    dev.set("maxReplicas", 3)
    dev.up()
    assert running.counts == (1, 1)
    dev.set("minReplicas", 2)
    dev.up()
    assert running.counts == (2, 2)
    dev.set("minReplicas", 1)
    dev.set("maxReplicas", 1)
    dev.up()
    assert running.counts[0] == 1, "a second task would wait for ever for an instance that the group may not start"
    assert dev.up().unchanged


def test_an_instance_of_another_type_is_replaced(dev: Scene, endpoint: str) -> None:
    running = Running(dev, endpoint, "g5.xlarge", desired=1, most=1)
    before = running.instances
    dev.set("scaleDownMinutes", 30)
    dev.set("capacity", "spot")  # the group changes, the types do not
    dev.up()
    assert running.instances == before
    dev.set("gpu", "l4")
    told = dev.up()
    assert before.isdisjoint(running.instances), "a task made for an L4 would run on the A10G"
    assert running.counts == (1, 1)
    assert next(iter(before)) in told.output


def test_without_aws_the_command_is_named(dev: Scene) -> None:
    dev.set("minReplicas", 1)
    told = " ".join(dev.up().output.split())
    assert "aws ecs update-service --cluster vllm-dev-gpu" in told
    assert "--desired-count N" in told
