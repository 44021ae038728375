"""Each rule has a known-bad case: a valid program with a single bad input is flagged, by that rule only."""

import base64
import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from infra.stack_files import load_stack
from tests.infra.aws.rules import RULES, broken
from tests.infra.program import Program, Registered, run_program

SETTINGS = load_stack("dev")
Change = Callable[[dict[str, Any]], Any]


def spoil(kind: str, name: str, change: Change) -> Program:
    """The dev stack with the inputs of one resource changed."""
    sound = run_program("dev")
    wanted = sound.one(kind, name)
    inputs = copy.deepcopy(wanted.inputs)
    change(inputs)
    worse = dataclasses.replace(wanted, inputs=inputs)
    return dataclasses.replace(sound, resources=[worse if r is wanted else r for r in sound.resources])


def container(change: Change) -> Change:
    def spoiled(inputs: dict[str, Any]) -> None:
        definitions = json.loads(inputs["containerDefinitions"])
        change(definitions[0])
        inputs["containerDefinitions"] = json.dumps(definitions)

    return spoiled


def statement(**parts: Any) -> Change:
    def spoiled(inputs: dict[str, Any]) -> None:
        document = json.loads(inputs["policy"])
        document["Statement"][0].update(parts)
        inputs["policy"] = json.dumps(document)

    return spoiled


def put(value: Any, *path: str | int) -> Change:
    def spoiled(inputs: dict[str, Any]) -> None:
        place: Any = inputs
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return spoiled


def boot(text: str) -> Change:
    return put(base64.b64encode(text.encode()).decode(), "userData")


TASK_POLICY = ("aws:iam/rolePolicy:RolePolicy", "gateway-task")
TEMPLATE = ("LaunchTemplate", "")
ENGINE = ("aws:ecs/taskDefinition:TaskDefinition", "engine")
GATEWAY = ("aws:ecs/taskDefinition:TaskDefinition", "gateway")
# The rule that must flag it, the resource, the change to it.
BAD: list[tuple[str, tuple[str, str], Change]] = [
    ("exact_policies", TASK_POLICY, statement(Action=["secretsmanager:*"])),
    ("exact_policies", TASK_POLICY, statement(Action="*")),
    ("exact_policies", TASK_POLICY, statement(Resource=["*"])),
    ("exact_policies", TASK_POLICY, statement(Resource="arn:aws:secretsmanager:us-east-1:123456789012:secret:*")),
    ("exact_policies", TASK_POLICY, statement(NotAction=["iam:PassRole"])),
    ("exact_policies", ("FileSystemPolicy", ""), statement(Principal="*")),
    ("exact_policies", ("FileSystemPolicy", ""), statement(Principal={"AWS": ["*"]})),
    ("exact_policies", ("Role", "instance"), put(["arn:aws:iam::aws:policy/AdministratorAccess"], "managedPolicyArns")),
    ("tagged", ("aws:ec2/vpc:Vpc", ""), put({"Project": "vllm-endpoint"}, "tags")),
    ("tagged", TEMPLATE, put("snapshot", "tagSpecifications", 1, "resourceType")),
    ("tagged", ("aws:autoscaling/group:Group", ""), put(False, "tags", 0, "propagateAtLaunch")),
    ("closed_network", ("SecurityGroupIngressRule", "clients-80-10.64.0.0/16"), put("0.0.0.0/0", "cidrIpv4")),
    ("closed_network", ("SecurityGroupIngressRule", "requests-in"), put("10.0.0.0/8", "cidrIpv4")),
    ("closed_network", ("SecurityGroupIngressRule", "nfs-in"), put("-1", "ipProtocol")),
    ("closed_network", ("SecurityGroupEgressRule", "engine-https"), put(80, "toPort")),
    ("closed_network", ("DefaultSecurityGroup", ""), put([{"protocol": "-1"}], "egress")),
    ("closed_network", ("SecurityGroup", "engine"), put([{"protocol": "tcp"}], "ingress")),
    ("private", ("aws:ecs/service:Service", "gateway"), put(True, "networkConfiguration", "assignPublicIp")),
    ("private", ("aws:ecs/service:Service", "engine"), put(["network-public-0-id"], "networkConfiguration", "subnets")),
    ("private", ("Subnet", "private-0"), put(True, "mapPublicIpOnLaunch")),
    ("encrypted", ("FileSystem", ""), put(False, "encrypted")),
    ("encrypted", TEMPLATE, put("false", "blockDeviceMappings", 0, "ebs", "encrypted")),
    ("encrypted", ENGINE, put("DISABLED", "volumes", 0, "efsVolumeConfiguration", "transitEncryption")),
    ("encrypted", ENGINE, put({"iam": "DISABLED"}, "volumes", 1, "efsVolumeConfiguration", "authorizationConfig")),
    ("encrypted", ("FileSystemPolicy", ""), put('{"Statement": []}', "policy")),
    ("metadata_guarded", TEMPLATE, put("optional", "metadataOptions", "httpTokens")),
    ("metadata_guarded", TEMPLATE, put(2, "metadataOptions", "httpPutResponseHopLimit")),
    ("metadata_guarded", TEMPLATE, boot("#!/bin/bash\nECS_AWSVPC_BLOCK_IMDS=false\nECS_DISABLE_PRIVILEGED=true")),
    ("modest_containers", ENGINE, container(put(True, "privileged"))),
    ("modest_containers", ENGINE, container(put([], "dockerSecurityOptions"))),
    ("modest_containers", ENGINE, container(put({"logDriver": "json-file"}, "logConfiguration"))),
    ("modest_containers", ENGINE, container(put(3600, "stopTimeout"))),
    ("modest_containers", ENGINE, put("host", "networkMode")),
    ("modest_containers", GATEWAY, container(put({"name": "GATEWAY_API_KEY", "value": "sk-1"}, "environment", 0))),
    ("kept_logs", ("LogGroup", "engine"), put(0, "retentionInDays")),
    ("known_metrics", ("MetricAlarm", "idle"), put("Requests", "metricQueries", 0, "metric", "metricName")),
    ("known_metrics", ("MetricAlarm", "idle"), put({}, "metricQueries", 0, "metric", "dimensions")),
    ("agreeing_ports", ("TargetGroup", ""), put(8081, "port")),
    ("agreeing_ports", ("TargetGroup", ""), put("/", "healthCheck", "path")),
    ("agreeing_ports", ("SecurityGroupIngressRule", "requests-in"), put(9000, "toPort")),
    ("agreeing_ports", ("Listener", "-int-80"), put(8080, "port")),
]


@pytest.mark.parametrize(("rule", "resource", "change"), BAD, ids=[f"{b[0]}-{i}" for i, b in enumerate(BAD)])
def test_a_fault_is_told_by_its_rule(rule: str, resource: tuple[str, str], change: Change) -> None:
    told = broken(spoil(*resource, change), SETTINGS)
    assert rule in {line.partition(":")[0] for line in told}, told


def test_a_secret_outside_secrets_manager_is_told() -> None:
    settings = SETTINGS.model_copy(update={"hf_token": SecretStr("hf_1234")})
    leaking = spoil("aws:ec2/vpc:Vpc", "", put("hf_1234", "tags", "Token"))
    assert [line for line in broken(leaking, settings) if line.startswith("hidden_secrets: ")]
    told = dataclasses.replace(run_program("dev"), outputs={"token": "hf_1234"})
    assert "hidden_secrets: an output holds a secret" in broken(told, settings)


def test_anything_stored_with_another_key_than_ones_own_is_told() -> None:
    settings = SETTINGS.model_copy(update={"kms_key_arn": "arn:aws:kms:us-east-1:123456789012:key/ours"})
    told = "\n".join(line for line in broken(run_program("dev"), settings) if line.startswith("own_key: "))
    for kind in ("FileSystem::", "Secret::", "LogGroup::", "LaunchTemplate::", "Repository::"):
        assert kind in told, kind


def test_every_rule_has_a_known_bad_case_and_a_sound_program_breaks_none() -> None:
    assert {rule.__name__ for rule in RULES} == {rule for rule, _, _ in BAD} | {"hidden_secrets", "own_key"}
    assert broken(run_program("dev"), SETTINGS) == []


def test_registered_inputs_are_not_shared() -> None:
    """Spoiling one program must not spoil the cached one."""
    before: Registered = run_program("dev").one("LaunchTemplate")
    spoil("LaunchTemplate", "", put("optional", "metadataOptions", "httpTokens"))
    assert before.inputs["metadataOptions"]["httpTokens"] == "required"
