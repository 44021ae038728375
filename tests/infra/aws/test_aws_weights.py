"""Weights and secrets: permissions, retention and encryption."""

import json

import pytest

from tests.infra.program import Program, arn, run_program

READERS = [arn("aws:iam/role:Role", f"vllm-dev-role-{who}-task") for who in ("engine", "fetch")]
FILE_SYSTEM = arn("aws:efs/fileSystem:FileSystem", "vllm-dev-weights")
POINTS = [arn("aws:efs/accessPoint:AccessPoint", f"vllm-dev-weights-{folder}") for folder in ("models", "compiled")]
HUB = "arn:aws:secretsmanager:us-east-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf"
MOUNT = {
    "Sid": "MountThroughAccessPoints",
    "Effect": "Allow",
    "Action": ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"],
    "Resource": [FILE_SYSTEM],
    "Condition": {
        "Bool": {"aws:SecureTransport": "true"},
        "StringEquals": {"elasticfilesystem:AccessPointArn": POINTS},
    },
}


@pytest.fixture
def dev() -> Program:
    return run_program("dev")


def test_the_file_system_is_encrypted_and_parked_cheaply(dev: Program) -> None:
    inputs = dev.one("FileSystem").inputs
    assert inputs["encrypted"] is True
    assert inputs["throughputMode"] == "bursting"
    assert inputs["lifecyclePolicies"] == [
        {"transitionToIa": "AFTER_30_DAYS"},
        {"transitionToPrimaryStorageClass": "AFTER_1_ACCESS"},
    ]


def test_throughput_may_be_elastic() -> None:
    assert run_program("dev", weightsThroughput="elastic").one("FileSystem").inputs["throughputMode"] == "elastic"


def test_only_the_engine_and_its_fetcher_mount_and_only_with_tls_through_an_access_point(dev: Program) -> None:
    allow, deny = dev.one("FileSystemPolicy").document()["Statement"]
    assert allow == {**MOUNT, "Principal": {"AWS": READERS}}
    assert (deny["Effect"], deny["Principal"], deny["Action"]) == ("Deny", {"AWS": "*"}, "*")
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    for who in ("engine", "fetch"):
        grant = dev.one("RolePolicy", f"-mount-{who}")
        assert grant.inputs["role"] == f"vllm-dev-role-{who}-task-id"
        assert grant.document()["Statement"] == [MOUNT]


def test_access_points_are_folders_of_an_ordinary_user(dev: Program) -> None:
    for point in dev.all("AccessPoint"):
        assert point.inputs["posixUser"] == {"uid": 1000, "gid": 1000}
        assert point.inputs["rootDirectory"] == {
            "path": "/" + point.name.rpartition("-")[2],
            "creationInfo": {"ownerUid": 1000, "ownerGid": 1000, "permissions": "0750"},
        }


def test_a_mount_target_in_every_private_subnet(dev: Program) -> None:
    targets = [t.inputs["subnetId"] for t in dev.all("MountTarget")]
    assert sorted(targets) == [f"vllm-dev-network-private-{i}-id" for i in range(3)]


def test_what_stays_when_a_protected_stack_is_destroyed(dev: Program) -> None:
    prod = run_program("prod")
    retained = {r.type.rpartition(":")[2] for r in prod.resources if r.retained}
    assert retained == {"FileSystem", "AccessPoint", "LogGroup", "Repository"}
    assert not [r for r in dev.resources if r.retained]
    assert dev.outputs["retainedAtDestroy"] == {}
    assert set(prod.outputs["retainedAtDestroy"]) == {"weights", "engineLogs", "gatewayLogs", "networkLogs", "images"}
    more = run_program("prod", accessLogs=True, dockerHubCredentialsArn=HUB)
    assert {r.name for r in more.resources if r.retained and not r.type.endswith(":AccessPoint")} == {
        str(name).removesuffix("-id").removesuffix("-1a2b3c4") for name in more.outputs["retainedAtDestroy"].values()
    }
    assert "accessLogs" in more.outputs["retainedAtDestroy"]
    assert dev.one("Repository").inputs["forceDelete"] is True
    assert prod.one("Repository").inputs["forceDelete"] is False


def test_a_key_is_generated_where_none_is_given(dev: Program) -> None:
    version = dev.one("SecretVersion")
    assert json.loads(version.inputs["secretString"]) == {"default": "sk-" + "r" * 43}
    assert version.secret_inputs == ("secretString",)
    assert version.inputs["secretId"] == arn("aws:secretsmanager/secret:Secret", "vllm-dev-secret-api-keys")
    assert dev.one("RandomPassword").inputs["special"] is False


def test_given_keys_are_taken_as_they_are() -> None:
    program = run_program("dev", apiKeys="a=sk-1,b=sk-2")
    assert program.all("RandomPassword") == []
    assert json.loads(program.one("SecretVersion").inputs["secretString"]) == {"a": "sk-1", "b": "sk-2"}


def test_a_secret_of_a_stack_that_goes_is_gone_at_once_and_can_be_brought_back_where_it_is_protected(
    dev: Program,
) -> None:
    assert dev.one("Secret").inputs["recoveryWindowInDays"] == 0
    assert run_program("prod").one("Secret").inputs["recoveryWindowInDays"] == 7


def test_the_hub_token_reaches_the_engine_as_a_secret_of_its_own() -> None:
    program = run_program("dev", hfToken="hf_1")
    secret = arn("aws:secretsmanager/secret:Secret", "vllm-dev-secret-hub-token")
    assert program.one("TaskDefinition", "engine").container()["secrets"] == [{"name": "HF_TOKEN", "valueFrom": secret}]
    assert "HF_TOKEN" not in program.one("TaskDefinition", "engine").environment()
    (read,) = [
        s for s in program.one("RolePolicy", "engine-execution").document()["Statement"] if s["Sid"] == "ReadHubToken"
    ]
    assert (read["Action"], read["Resource"]) == (["secretsmanager:GetSecretValue"], [secret])


def test_without_a_hub_token_there_is_no_secret_for_it(dev: Program) -> None:
    assert "secrets" not in dev.one("TaskDefinition", "engine").container()
    assert len(dev.all("Secret")) == 1


def test_a_key_of_ones_own_encrypts_everything_that_is_stored() -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/1"
    program = run_program("dev", kmsKeyArn=key, hfToken="hf_1")
    assert program.one("FileSystem").inputs["kmsKeyId"] == key
    assert [g.inputs["kmsKeyId"] for g in program.all("LogGroup")] == [key] * len(program.all("LogGroup"))
    assert [s.inputs["kmsKeyId"] for s in program.all("Secret")] == [key, key]
    assert program.one("LaunchTemplate").inputs["blockDeviceMappings"][0]["ebs"]["kmsKeyId"] == key
    assert program.one("Repository").inputs["encryptionConfigurations"] == [{"encryptionType": "KMS", "kmsKey": key}]
    for policy in ("gateway-task", "engine-execution"):
        statements = program.one("RolePolicy", policy).document()["Statement"]
        assert [s["Resource"] for s in statements if s["Action"] == ["kms:Decrypt"]] == [[key]]


def test_logs_are_kept_for_as_long_as_set() -> None:
    groups = run_program("dev", logRetentionDays=90).all("LogGroup")
    assert [group.inputs["retentionInDays"] for group in groups] == [90, 90, 90]
