"""The gateway's calls to AWS, against moto's server on loopback."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from image.gateway import aws as gateway_aws
from image.gateway import keys
from image.gateway.backends import EcsCapacity, SecretsManagerKeys
from image.gateway.capacity.base import ScalingError
from image.gateway.capacity.ecs import EcsScaler
from tests.image.gateway.conftest import name_of


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[boto3.session.Session]:
    for name, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    yield boto3.session.Session(region_name="eu-west-1")
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST")).close()


class Stack:
    """An ECS service and an auto scaling group, at zero."""

    setting = EcsCapacity("vllm", "engine", "gpus")

    def __init__(self, aws: boto3.session.Session) -> None:
        self.ecs = aws.client("ecs")
        self.autoscaling = aws.client("autoscaling")
        self.ecs.create_cluster(clusterName="vllm")
        self.ecs.register_task_definition(
            family="engine", containerDefinitions=[{"name": "engine", "image": "x", "memory": 1}]
        )
        self.ecs.create_service(cluster="vllm", serviceName="engine", taskDefinition="engine", desiredCount=0)
        self.autoscaling.create_launch_configuration(
            LaunchConfigurationName="gpu", ImageId="ami-12345678", InstanceType="g5.xlarge"
        )
        self.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName="gpus",
            LaunchConfigurationName="gpu",
            MinSize=0,
            MaxSize=3,
            DesiredCapacity=0,
            AvailabilityZones=["eu-west-1a"],
        )

    def desired(self) -> tuple[int, int]:
        service = self.ecs.describe_services(cluster="vllm", services=["engine"])["services"][0]
        group = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=["gpus"])["AutoScalingGroups"][0]
        return service["desiredCount"], group["DesiredCapacity"]

    def set(self, tasks: int, instances: int) -> None:
        self.ecs.update_service(cluster="vllm", service="engine", desiredCount=tasks)
        self.autoscaling.set_desired_capacity(AutoScalingGroupName="gpus", DesiredCapacity=instances)


@pytest.mark.parametrize("before", [(0, 0), (1, 0), (2, 3)])
async def test_a_wake_raises_from_zero_to_one_and_never_lowers(
    aws: boto3.session.Session, before: tuple[int, int]
) -> None:
    stack = Stack(aws)
    stack.set(*before)
    ecs = EcsScaler(stack.setting)
    for _ in range(2):
        await ecs.wake()
        assert stack.desired() == (max(before[0], 1), max(before[1], 1))


async def test_a_wake_that_fails_says_why_without_the_accounts_names(
    aws: boto3.session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stack(aws)
    for setting in (
        EcsCapacity("vllm", "engine", "no-group"),
        EcsCapacity("vllm", "no-service", "gpus"),
        EcsCapacity("no-cluster", "engine", "gpus"),
    ):
        with pytest.raises(ScalingError, match="service was not found") as raised:
            await EcsScaler(setting).wake()
        assert "no-" not in str(raised.value)
        assert raised.value.detail
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ScalingError, match="returned an unexpected response"):
        await EcsScaler(Stack.setting).wake()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("ThrottlingException", "limiting requests"),
        ("AccessDeniedException", "not permitted"),
        ("ExpiredTokenException", "not permitted"),
        ("ScalingActivityInProgress", "is in progress"),
        ("ServiceQuotaExceededException", "quota"),
        ("ClusterNotFoundException", "was not found"),
        ("SomethingElse", "returned an unexpected response"),
    ],
)
def test_reasons(code: str, says: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "arn:aws:iam::1:role/x may not"}}, "UpdateService")
    assert says in gateway_aws.plain_reason(error)
    assert "arn" not in gateway_aws.plain_reason(error)
    assert gateway_aws.describe(error) == f"{code}: arn:aws:iam::1:role/x may not"


async def test_keys_come_from_a_secret_and_are_rotated(aws: boto3.session.Session) -> None:
    secrets: Any = aws.client("secretsmanager")
    arn = secrets.create_secret(Name="keys", SecretString='{"alice": "sk-1"}')["ARN"]
    source = keys.source_of(SecretsManagerKeys(arn))
    assert source is not None
    ring = keys.KeyRing()
    await keys.load(ring, source)
    assert name_of(ring, b"Bearer sk-1") == "alice"
    assert await source.read() is None, "not changed"
    secrets.put_secret_value(SecretId=arn, SecretString="sk-2")
    ring.replace(keys.parse_document(await source.read() or ""))
    assert name_of(ring, b"Bearer sk-1") is None
    assert name_of(ring, b"Bearer sk-2") == "default"
    secrets.put_secret_value(SecretId=arn, SecretBinary=b"sk-3")
    with pytest.raises(keys.KeysError, match="has no text value"):
        await source.read()
    missing = keys.source_of(SecretsManagerKeys("no-such-secret"))
    assert missing is not None
    with pytest.raises(keys.KeysError, match="ResourceNotFoundException"):
        await missing.read()
