"""What a sweep tells of an emulated account: all that was planted, with its price, and nothing of a neighbour's."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from policy.emulator import ACCOUNT, REGION
from smoke_tests.teardown import __main__ as command
from smoke_tests.teardown import kinds
from smoke_tests.teardown.identity import RETAINED_TAGS, Identity
from smoke_tests.teardown.items import State
from smoke_tests.teardown.region_scan import Kind, RegionScan
from smoke_tests.teardown.sweep import Sweeper
from tests.smoke_tests.teardown.planted import Planted

HOUR = 730


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of the command."""
    code = command.main(["--stack", "dev", "--json", "--quiet", "--this-region-only", *arguments])
    return code, json.loads(capsys.readouterr().out)


def identifiers(found: dict[str, Any]) -> dict[str, list[str]]:
    listed: dict[str, list[str]] = {}
    for entry in found["left"]:
        listed.setdefault(entry["kind"], []).append(entry["identifier"])
    return {kind: sorted(names) for kind, names in listed.items()}


def test_planted_leftovers_are_found_with_their_price_and_neighbours_never(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    for neighbour in ("dev2", "dev-eu", "prod"):
        Planted(aws, neighbour).everything()
    Planted(aws, "dev", project="another-project").network()
    mine = Planted(aws, "dev").everything()
    code, found = told(capsys)
    listed = identifiers(found)
    assert len(listed.pop("EC2 instance")) == 1  # the group's own, which got its name from AWS
    assert listed == {kind: sorted(names) for kind, names in mine.identifiers.items()}
    assert len(listed) >= 15
    prices = {entry["kind"]: entry["usd_per_hour"] for entry in found["left"]}
    assert prices["EC2 instance"] == 1.006
    assert prices["NAT gateway"] == 0.045
    assert prices["Elastic IP"] == 0.005
    assert prices["load balancer"] == 0.0225
    assert prices["EBS snapshot"] == pytest.approx(100 * 0.05 / HOUR)
    assert prices["secret"] == pytest.approx(0.40 / HOUR)
    assert prices["web ACL"] == pytest.approx(5.00 / HOUR)
    assert prices["VPC"] == prices["IAM role"] == 0
    assert found["usd_per_hour_left"] == pytest.approx(sum(entry["usd_per_hour"] for entry in found["left"]), abs=1e-5)
    assert (code, found["clean"], found["not_checked"]) == (1, False, [])


def test_without_tags_what_has_a_name_is_found_by_it(aws: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    for stack in ("dev", "dev-eu"):
        Planted(aws, stack, tagged=False).everything()
    _, found = told(capsys)
    listed = identifiers(found)
    assert not any("vllm-dev-eu" in name for names in listed.values() for name in names)
    assert {
        "Auto Scaling group",
        "ECS cluster",
        "load balancer",
        "secret",
        "IAM role",
        "S3 bucket",
        "log group",
    } <= set(listed)
    # Known by what they are a part of.
    assert {"ECS service", "network interface"} <= set(listed)
    assert all(entry["found_by"] != "tag" for entry in found["left"])


def test_a_clean_account_gives_0_and_says_so(aws: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    Planted(aws, "dev-eu").network()
    assert command.main(["--stack", "dev"]) == 0
    shown = capsys.readouterr()
    assert f"nothing of stack dev is left: {len(kinds.KINDS)} kinds of resources were checked" in shown.out
    assert "NAT gateway: none" in shown.err
    assert "other regions by tag" in shown.err


@pytest.mark.parametrize("retained_tag", sorted(RETAINED_TAGS))
def test_what_was_kept_or_is_going_is_told_and_is_no_failure(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str], retained_tag: str
) -> None:
    tags = {"Project": "vllm-endpoint", "Stack": "dev"}
    pairs: Any = [{"Key": key, "Value": value} for key, value in {**tags, retained_tag: "true"}.items()]
    system = aws.client("efs").create_file_system(CreationToken="x", Tags=pairs)["FileSystemId"]
    secrets: Any = aws.client("secretsmanager")
    arn = secrets.create_secret(Name="vllm-dev-secret-api-keys-1a2b3c4", SecretString="{}", Tags=pairs[:2])["ARN"]
    secrets.delete_secret(SecretId=arn, RecoveryWindowInDays=7)
    kms: Any = aws.client("kms")
    key = kms.create_key(Tags=[{"TagKey": k, "TagValue": v} for k, v in tags.items()])["KeyMetadata"]["KeyId"]
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    code, found = told(capsys)
    assert (code, found["left"]) == (0, [])
    assert [entry["identifier"] for entry in found["kept"]] == [system]
    assert [entry["identifier"] for entry in found["going"]] == [arn, key]
    assert all(entry["usd_per_hour"] == 0 for entry in found["going"])
    assert command.main(["--stack", "dev", "--quiet", "--this-region-only"]) == 0
    shown = capsys.readouterr().out
    assert "kept on purpose (protect), and billed: 1" in shown
    assert f"to use these weights again: pulumi config set weightsFileSystemId {system} --stack dev" in shown


def test_a_stack_that_moved_is_found_where_it_was(aws: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    tags = [{"Key": "Project", "Value": "vllm-endpoint"}, {"Key": "Stack", "Value": "dev"}]
    there: Any = aws.client("ec2", region_name="eu-west-1")
    volume = there.create_volume(
        Size=100,
        AvailabilityZone="eu-west-1a",
        TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
    )["VolumeId"]
    assert command.main(["--stack", "dev", "--json", "--quiet"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(entry["identifier"], entry["region"]) for entry in found["left"]] == [(volume, "eu-west-1")]
    assert found["regions"] == [REGION, "eu-west-1"]


def test_what_carries_the_tags_and_is_of_no_known_kind_is_told(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = aws.client("sqs")
    queue.create_queue(QueueName="by-hand", tags={"Project": "vllm-endpoint", "Stack": "dev"})
    queue.create_queue(QueueName="not-ours", tags={"Project": "vllm-endpoint", "Stack": "dev2"})
    code, found = told(capsys)
    assert [(entry["kind"], entry["identifier"].rpartition(":")[2]) for entry in found["left"]] == [
        ("other", "by-hand")
    ]
    assert (code, found["left"][0]["usd_per_hour"]) == (1, None)


GHOSTS = (
    "ec2:REGION:ACCOUNT:fleet/fleet-0a1b",
    "ec2:REGION:ACCOUNT:spot-instances-request/sir-1",
    "ec2:REGION:ACCOUNT:key-pair/key-1",
    "ec2:REGION:ACCOUNT:natgateway/nat-1",
    "ec2:REGION:ACCOUNT:instance/i-1",
    "ec2:REGION:ACCOUNT:launch-template/lt-1",
    "ec2:REGION:ACCOUNT:volume/vol-1",
    "ecs:REGION:ACCOUNT:task-definition/vllm-dev-engine:7",
    "elasticloadbalancing:REGION:ACCOUNT:listener/app/vllm-dev-int/1/2",
    "route53:::hostedzone/Z1",
    "secretsmanager:REGION:ACCOUNT:secret:vllm-dev-secret-api-keys-1a2b3c4-XyZ",
    "kms:REGION:ACCOUNT:key/1",
    "sqs:REGION:ACCOUNT:gone",
    "dynamodb:REGION:ACCOUNT:table/gone",
    "cloudformation:REGION:ACCOUNT:stack/gone/1",
)


def tagging_lists(monkeypatch: pytest.MonkeyPatch, *resources: str) -> list[str]:
    """The search by tag lists these, whether or not they exist; returns their ARNs."""
    arns = ["arn:aws:" + one.replace("REGION", REGION).replace("ACCOUNT", ACCOUNT) for one in resources]

    def search(scan: RegionScan) -> None:
        scan.tagged.update({arn: {"Project": "vllm-endpoint", "Stack": "dev"} for arn in arns})

    monkeypatch.setattr("smoke_tests.teardown.sweep.search_by_tag", search)
    return arns


def test_ghosts_of_the_tagging_api_are_not_left(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tagging_lists(monkeypatch, *GHOSTS)
    code, found = told(capsys)
    assert (found["left"], found["unconfirmed"], found["not_checked"]) == ([], [], [])
    assert (code, found["clean"]) == (0, True)


def test_what_no_describe_confirms_is_said_to_be_unconfirmed(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (arn,) = tagging_lists(monkeypatch, "backup:REGION:ACCOUNT:recovery-point:1")
    assert command.main(["--stack", "dev", "--fix", "--yes", "--quiet", "--this-region-only"]) == 3
    shown = capsys.readouterr().out
    assert "unconfirmed: carry the tags, but may be gone" in shown
    assert "1 tagged resources are unconfirmed" in shown
    assert arn in shown


def test_a_deleted_resource_that_is_still_described_is_gone(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {"fleet-1": "deleted", "fleet-2": "active", "fleet-3": "deleted_running"}
    arns = tagging_lists(monkeypatch, *(f"ec2:REGION:ACCOUNT:fleet/{name}" for name in states))
    ec2 = aws.client("ec2")
    monkeypatch.setattr(ec2, "describe_fleets", lambda FleetIds: {"Fleets": [{"FleetState": states[FleetIds[0]]}]})  # noqa: N803
    scan = RegionScan(
        Identity("dev"), REGION, ACCOUNT, aws, {arn: {"Project": "vllm-endpoint", "Stack": "dev"} for arn in arns}
    )
    monkeypatch.setattr(scan, "client", lambda service: ec2)
    (other,) = [kind for kind in kinds.KINDS if kind.title == "other"]
    assert [(item.state, item.identifier) for item in other.find(scan)] == [
        (State.LEFT, arns[1]), (State.LEFT, arns[2])
    ]  # fmt: skip


@pytest.mark.parametrize("lag", [1, 3, 4])
def test_a_resource_that_is_gone_between_list_and_describe_is_listed_again(
    aws: boto3.Session, monkeypatch: pytest.MonkeyPatch, lag: int
) -> None:
    listings: list[RegionScan] = []
    error: Any = {"Error": {"Code": "ResourceNotFoundException", "Message": "function not found"}}

    def find(scan: RegionScan) -> list[Any]:
        listings.append(scan)
        if len(listings) <= lag:
            raise ClientError(error, "ListTags")
        return []

    monkeypatch.setattr("smoke_tests.teardown.sweep.KINDS", (Kind("Lambda function", find, lambda scan, item: None),))
    pauses: list[float] = []
    sweeper = Sweeper(Identity("dev"), REGION, aws, lambda text: None, other_regions=False, pause=pauses.append)
    missed = sweeper.sweep().not_checked
    assert [one.what for one in missed] == (["Lambda function"] if lag == 4 else [])
    assert pauses == [5.0] * min(lag, 3)


def test_a_key_whose_replicas_are_deleted_first_is_going(aws: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = [{"TagKey": "Project", "TagValue": "vllm-endpoint"}, {"TagKey": "Stack", "TagValue": "dev"}]
    listed = {"list_keys": [{"KeyArn": "arn:aws:kms:::key/1", "KeyId": "1"}], "list_resource_tags": tags}
    described = {"KeyMetadata": {"KeyState": "PendingReplicaDeletion", "PendingDeletionWindowInDays": 7}}
    scan = RegionScan(Identity("dev"), REGION, ACCOUNT, aws)
    monkeypatch.setattr(scan, "pages", lambda service, operation, key, **of: iter(listed[operation]))
    monkeypatch.setattr(scan, "client", lambda service: SimpleNamespace(describe_key=lambda KeyId: described))  # noqa: N803
    (keys,) = [kind for kind in kinds.KINDS if kind.title == "KMS key"]
    assert [(item.state, item.usd_per_hour) for item in keys.find(scan)] == [(State.GOING, 0)]


def denied(_scan: RegionScan) -> list[Any]:
    error: Any = {"Error": {"Code": "AccessDeniedException", "Message": "not authorized to perform: kms:ListKeys"}}
    raise ClientError(error, "ListKeys")


def unreachable(_scan: RegionScan) -> list[Any]:
    raise EndpointConnectionError(endpoint_url="https://kms.example")


@pytest.mark.parametrize("fault", [denied, unreachable])
def test_what_could_not_be_asked_is_not_called_clean(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    broken = Kind("KMS key", fault, lambda scan, item: None)
    monkeypatch.setattr("smoke_tests.teardown.sweep.KINDS", (broken, kinds.KINDS[0]))
    assert command.main(["--stack", "dev", "--this-region-only"]) == 3
    shown = capsys.readouterr()
    assert "KMS key: not checked" in shown.err
    assert "this proves nothing" in shown.out
    assert "is left" not in shown.out
    code, found = told(capsys)
    assert (code, found["clean"]) == (3, False)
    assert [one["what"] for one in found["not_checked"]] == ["KMS key"]


def test_where_a_stack_is_must_be_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert command.main(["--stack", "gone"], root=tmp_path) == 2
    assert "where is stack gone?" in capsys.readouterr().err
    (tmp_path / "Pulumi.gone.yaml").write_text("config:\n  aws:region: eu-west-3\n")
    assert command.find_region("gone", tmp_path, boto3.Session()) == "eu-west-3"


def test_nobody_signed_in_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--stack", "dev", "--region", REGION]) == 2
    error = capsys.readouterr().err
    assert "sign in to AWS" in error
    assert error.count("\n") == 1


def test_two_deployments_under_one_name_are_warned_of(aws: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    tags: Any = [{"key": "Project", "value": "vllm-endpoint"}, {"key": "Stack", "value": "dev"}]
    for name in ("vllm-dev-gpu-0000001", "vllm-dev-gpu-0000002"):
        aws.client("ecs").create_cluster(clusterName=name, tags=tags)
    _, found = told(capsys)
    assert "2 deployments carry these tags" in found["warnings"][0]


def test_a_part_that_says_it_is_somebody_elses_is_not_taken(aws: boto3.Session) -> None:
    scan = RegionScan(Identity("dev"), REGION, "1", aws)
    theirs = [{"Key": "Stack", "Value": "dev2"}]
    assert scan.item("network interface", "eni-1", tags=theirs, part_of="its security groups") is None
    mine = scan.item("network interface", "eni-1", part_of="its security groups")
    assert mine is not None
    assert mine.state is State.LEFT


def test_a_disk_that_somebody_attached_by_hand_is_not_taken(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Planted(aws, "dev")
    mine.network()
    mine.compute()
    ec2 = aws.client("ec2")
    data = ec2.create_volume(Size=10, AvailabilityZone=f"{REGION}b")["VolumeId"]
    _, found = told(capsys)
    ec2.attach_volume(VolumeId=data, InstanceId=identifiers(found)["EC2 instance"][0], Device="/dev/sdf")
    _, after = told(capsys)
    assert identifiers(after)["EBS volume"] == identifiers(found)["EBS volume"]
    assert data not in identifiers(after)["EBS volume"]
