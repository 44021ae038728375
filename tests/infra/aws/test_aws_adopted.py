"""Adopting an existing file system: what prevents it, and which parts are used."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from infra.aws import adopted_weights
from infra.aws.adopted_weights import AccessPoint, Existing, Found, MountTarget, adopt, refusals
from infra.aws.context import RETAINED_TAG, Context
from infra.aws.existing_network import ExistingNetwork
from infra.errors import DeployError
from infra.identity import Identity
from infra.settings import Settings
from infra.settings_problems import parse_settings

ID, KEY = "fs-0123456789abcdef0", "arn:aws:kms:us-east-1:123456789012:key/1"
CONTEXT = Context(Identity("dev"), region="us-east-1", account_id="123456789012", partition="aws", owner="")
NETWORK = ExistingNetwork("vpc-1", "10.0.0.0/16", ("subnet-a", "subnet-b"), ("subnet-a",), (), {})
SOUND = Found(
    existing=Existing(ID, f"arn:{ID}"),
    encrypted=True,
    kms_key_arn=KEY,
    throughput="bursting",
    zone="",
    read_only=False,
    tags={},
    mount_targets=(),
    access_points=(),
    policy=None,
)


def settings(**values: Any) -> Settings:
    return parse_settings({"weightsFileSystemId": ID, **values})


def point(path: str, *, user: int = 1000, retained: bool = True) -> AccessPoint:
    return AccessPoint(Existing(f"fsap-{path[1:]}", "arn"), path, user, retained)


def mount(zone: str, *, vpc: str = "vpc-1", group: str = "sg-theirs") -> MountTarget:
    return MountTarget(f"subnet-{zone}", vpc, f"us-east-1{zone}", (group,))


def allows(principal: Any, effect: str = "Allow") -> dict[str, Any]:
    return {"Statement": [{"Effect": effect, "Principal": principal, "Action": "*"}]}


ROLE = "arn:aws:iam::123456789012:role/"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tags": {"Project": "vllm-endpoint", "Stack": "prod"}}, "belongs to stack prod, which deletes it"),
        ({"encrypted": False}, "is not encrypted at rest"),
        ({"zone": "us-east-1a"}, "is a One Zone file system, in us-east-1a"),
        ({"read_only": True}, "is the read-only copy of a replication"),
        ({"throughput": "elastic"}, "has the throughput mode elastic, .* Set weightsThroughput: elastic"),
        ({"mount_targets": [mount("a", vpc="vpc-2")]}, "has mount targets in vpc-2, and vpcId is vpc-1"),
        ({"access_points": [point("/models", user=0)]}, "holds /models for user 0"),
        ({"access_points": [point("/compiled", user=7)]}, "holds /compiled for user 7"),
        ({"policy": allows("*")}, "has a policy that allows everybody"),
        ({"policy": allows({"AWS": "*"})}, "has a policy that allows everybody"),
        ({"policy": allows({"AWS": [f"{ROLE}other", f"{ROLE}vllm-dev-role-x"]})}, "allows [^,]*role/other, and"),
        ({"policy": allows({"AWS": f"{ROLE}vllm-prod-role-engine"})}, "allows [^,]*vllm-prod-role-engine"),
    ],
)
def test_each_thing_that_is_wrong_is_one_line(change: dict[str, Any], words: str) -> None:
    (line,) = refusals(dataclasses.replace(SOUND, **change), settings(), CONTEXT, NETWORK)
    assert line.startswith(f"weightsFileSystemId: {ID} ")
    assert re.search(words, line)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tags": {"Project": "vllm-endpoint", "Stack": "prod", RETAINED_TAG: "true"}},
        {
            "tags": {"Project": "vllm-endpoint", "Stack": "prod", "KeptAtDestroy": "true"}
        },  # retained by an earlier version
        {"tags": {"Project": "another"}},
        {"throughput": "provisioned"},  # not a value of weightsThroughput, but it works
        {"mount_targets": [mount("a"), mount("b")]},
        {"access_points": [point("/models"), point("/theirs", user=0)]},
        {"policy": allows("*", "Deny")},
        {"policy": allows({"AWS": ["AROAEXAMPLE", "AIDAEXAMPLE", f"{ROLE}vllm-dev-role-engine-1a2b"]})},
    ],
)
def test_what_is_no_obstacle_is_taken(change: dict[str, Any]) -> None:
    assert refusals(dataclasses.replace(SOUND, **change), settings(), CONTEXT, NETWORK) == []


def test_another_key_than_the_stacks_is_refused_and_a_network_of_the_stacks_own_with_mount_targets() -> None:
    assert refusals(SOUND, settings(kmsKeyArn=KEY), CONTEXT, NETWORK) == []
    (line,) = refusals(dataclasses.replace(SOUND, kms_key_arn=""), settings(kmsKeyArn=KEY), CONTEXT, NETWORK)
    assert "is encrypted with the key of AWS, not with kmsKeyArn" in line
    mounted = dataclasses.replace(SOUND, mount_targets=[mount("a")])
    (line,) = refusals(mounted, settings(), CONTEXT, None)
    assert "this stack creates its own VPC" in line
    assert refusals(SOUND, settings(), CONTEXT, None) == []


def test_kept_access_points_and_zones_with_a_mount_target_are_used_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dataclasses.replace(
        SOUND,
        mount_targets=[mount("a"), mount("f", group="sg-elsewhere")],
        access_points=[point("/models"), point("/compiled", retained=False)],
    )
    monkeypatch.setattr(adopted_weights, "look_up", lambda *_: found)
    monkeypatch.setattr(adopted_weights, "zone_of_subnet", lambda subnet, _: f"us-east-1{subnet[-1]}")
    used = adopt(settings(), CONTEXT, NETWORK)
    assert used
    assert used.access_points == {"models": Existing("fsap-models", "arn")}, "what others use is theirs"
    assert used.covered_subnet_ids == {"subnet-a"}
    assert used.security_group_ids == ("sg-theirs",)


def test_every_reason_is_given_at_once_and_nothing_is_looked_up_without_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert adopt(parse_settings({}), CONTEXT, None) is None
    wrong = dataclasses.replace(SOUND, encrypted=False, zone="us-east-1a")
    monkeypatch.setattr(adopted_weights, "look_up", lambda *_: wrong)
    with pytest.raises(DeployError) as refused:
        adopt(settings(), CONTEXT, None)
    assert len(str(refused.value).splitlines()) == 2
