"""The whole program: the resources of a stack file, and how problems are reported."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.infra.program import ROOT, Program, RefusedError, run_program

ENDPOINT = "vllm-endpoint:index:VllmEndpoint"


@pytest.fixture(params=["dev", "prod"])
def program(request: pytest.FixtureRequest) -> Program:
    return run_program(request.param)


@pytest.fixture
def dev() -> Program:
    return run_program("dev")


def test_dev_is_exactly_these_resources(dev: Program) -> None:
    found = {
        kind.removeprefix("aws:"): count
        for kind, count in dev.kinds().items()
        if not kind.startswith(("vllm:", "vllm-endpoint:"))
    }
    assert found == {
        "appautoscaling/policy:Policy": 1,
        "appautoscaling/target:Target": 1,
        "autoscaling/group:Group": 1,
        "autoscaling/policy:Policy": 1,
        "cloudwatch/dashboard:Dashboard": 1,
        "cloudwatch/logGroup:LogGroup": 3,
        "cloudwatch/metricAlarm:MetricAlarm": 2,
        "docker-build:index:Image": 1,
        "ec2/defaultSecurityGroup:DefaultSecurityGroup": 1,
        "ec2/eip:Eip": 1,
        "ec2/flowLog:FlowLog": 1,
        "ec2/internetGateway:InternetGateway": 1,
        "ec2/launchTemplate:LaunchTemplate": 1,
        "ec2/natGateway:NatGateway": 1,
        "ec2/route:Route": 4,
        "ec2/routeTable:RouteTable": 4,
        "ec2/routeTableAssociation:RouteTableAssociation": 5,
        "ec2/securityGroup:SecurityGroup": 5,
        "ec2/subnet:Subnet": 5,
        "ec2/vpc:Vpc": 1,
        "ec2/vpcEndpoint:VpcEndpoint": 1,
        "ecr/lifecyclePolicy:LifecyclePolicy": 1,
        "ecr/repository:Repository": 1,
        "ecs/capacityProvider:CapacityProvider": 1,
        "ecs/cluster:Cluster": 1,
        "ecs/clusterCapacityProviders:ClusterCapacityProviders": 1,
        "ecs/service:Service": 2,
        "ecs/taskDefinition:TaskDefinition": 3,
        "efs/accessPoint:AccessPoint": 2,
        "efs/fileSystem:FileSystem": 1,
        "efs/fileSystemPolicy:FileSystemPolicy": 1,
        "efs/mountTarget:MountTarget": 3,
        "iam/instanceProfile:InstanceProfile": 1,
        "iam/role:Role": 8,
        "iam/rolePolicy:RolePolicy": 9,
        "lb/listener:Listener": 1,
        "lb/loadBalancer:LoadBalancer": 1,
        "lb/targetGroup:TargetGroup": 1,
        "random:index/randomPassword:RandomPassword": 1,
        "scheduler/schedule:Schedule": 1,
        "scheduler/scheduleGroup:ScheduleGroup": 1,
        "secretsmanager/secret:Secret": 1,
        "secretsmanager/secretVersion:SecretVersion": 1,
        "servicediscovery/privateDnsNamespace:PrivateDnsNamespace": 1,
        "servicediscovery/service:Service": 1,
        "vpc/securityGroupEgressRule:SecurityGroupEgressRule": 6,
        "vpc/securityGroupIngressRule:SecurityGroupIngressRule": 4,
    }


def test_a_preview_makes_the_same_resources(dev: Program) -> None:
    preview = run_program("dev", preview=True)
    assert {r.urn for r in preview.resources} == {r.urn for r in dev.resources}


def test_every_resource_belongs_to_a_component(program: Program) -> None:
    for resource in program.resources:
        parent = resource.parent.split("::")[2].rpartition("$")[2]
        expected = "vllm:aws:"
        if resource.type.startswith("vllm"):
            expected = "pulumi:pulumi:Stack" if resource.type == ENDPOINT else ENDPOINT
        assert parent.startswith(expected), resource.urn


def test_names_fit_into_what_aws_allows() -> None:
    for resource in run_program("a-very-long-stack-name-for-a-feature-xyz").resources:
        if resource.type.startswith("aws:lb/") and not resource.type.endswith(":Listener"):  # which has no name
            assert len(resource.name) + 8 <= 32, resource.name
        assert len(resource.name) + 8 <= 64 or resource.type.startswith(("vllm:", "vllm-endpoint:")), resource.name


def test_secrets_never_leave_their_secrets() -> None:
    program = run_program("dev", apiKeys="team=sk-very-secret", hfToken="hf_very_secret")
    held = {"team": "sk-very-secret"}
    for resource in program.resources:
        if re.search("very[-_]secret", json.dumps(resource.inputs)):
            assert resource.type == "aws:secretsmanager/secretVersion:SecretVersion", resource.urn
            assert resource.secret_inputs == ("secretString",)
            text = resource.inputs["secretString"]
            assert text in ("hf_very_secret", json.dumps(held))
    assert not re.search("very[-_]secret", json.dumps(program.outputs))
    assert len(program.all("SecretVersion")) == 2


def test_outputs_are_what_other_parts_read(program: Program) -> None:
    promised = (
        "endpoint openaiBaseUrl model apiKeySecretArn clusterName engineServiceName gatewayServiceName region gpu gpuCount "
        "instanceType usdPerHourActive usdPerHourIdle usdPerHourReplica usdPerColdStart usdPerMonth pricedOn "
        "weightsFileSystemId modelRevision engineImage engineArguments"
    )
    assert set(promised.split()) <= set(program.outputs)
    assert program.outputs["openaiBaseUrl"] == program.outputs["endpoint"] + "/v1"
    assert set(program.outputs["usdPerMonth"]) == {"1HoursADay", "8HoursADay", "24HoursADay"}


@pytest.mark.parametrize(
    "values",
    [
        {"ttlHours": 8, "monthlyBudgetUsd": 300, "alarmEmail": "ops@example.com", "accessLogs": True, "protect": True},
        {"vpcId": "vpc-1", "subnetIds": ["subnet-b", "subnet-d"]},
        {"target": "kubernetes", "kubernetesNamespace": "n" * 63},
        {"target": "kubernetes", "domain": "llm.example.com"},
    ],
)
def test_no_command_in_the_outputs_is_cut_on_the_screen(values: dict[str, Any]) -> None:
    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for item in value.values() for text in texts(item)]
        return [value] if isinstance(value, str) else []

    outputs = run_program("dev", **values).outputs
    assert max(len(text) for text in texts(outputs) if " " in text) <= 150
    assert outputs["getApiKey"] == "make api-key STACK=dev"


def test_the_plans_warnings_reach_the_user() -> None:
    (warning,) = run_program("dev", fastBoot="eager").warnings
    assert "fastBoot: eager" in warning


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gppu": "h100"}, "did you mean gpu?"),
        ({"model": "Qwen/Qwen3-32B-FP8"}, "does not fit on one NVIDIA A10G"),
        ({"scaleDownMinutes": 1}, "scaleDownMinutes: found 1"),
        ({"vpcId": "vpc-1", "subnetIds": ["subnet-a", "subnet-x"]}, "subnetIds: subnet-x not found in vpc-1"),
        ({"vpcId": "vpc-1", "subnetIds": ["subnet-a", "subnet-c"]}, "none is in a zone that offers g5.xlarge"),
    ],
)
def test_what_cannot_work_is_refused_in_one_message(values: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words) as raised:
        run_program("dev", **values)
    assert len(str(raised.value).splitlines()) <= 2


def test_a_failed_lookup_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import pulumi_aws

    def fail(**_: Any) -> None:
        raise RuntimeError("UnauthorizedOperation:\n  not allowed")

    monkeypatch.setattr(pulumi_aws, "get_availability_zones", fail)
    with pytest.raises(RefusedError, match=r"zones of us-east-1 could not be looked up: Unauthorized.* not allowed$"):
        run_program("dev", owner="nobody")


def test_too_low_a_quota_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.preflight import Findings
    from tests.infra import program as harness

    monkeypatch.setattr(
        harness, "Findings", lambda: Findings(refusals=("gpu: g5.xlarge needs 4 vCPUs",), warnings=("w",))
    )
    with pytest.raises(RefusedError, match="needs 4 vCPUs"):
        run_program("dev", owner="somebody")


def test_kubernetes_is_rendered_from_the_same_plan() -> None:
    program = run_program("dev", target="kubernetes")
    assert any(kind.startswith("kubernetes:apps/v1:Deployment") for kind in program.kinds())
    assert not any(kind.startswith("aws:") for kind in program.kinds())
    assert program.outputs["model"] == run_program("dev").outputs["model"]


def test_the_program_runs_from_its_own_folder() -> None:
    assert (Path(ROOT) / "Pulumi.yaml").read_text().splitlines()[2] == "main: infra"
