"""Deleting: everything of the stack and nothing else, after a confirmation, in an order that works."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from policy.emulator import REGION
from smoke_tests.teardown import __main__ as command
from smoke_tests.teardown import ec2, ecs
from smoke_tests.teardown.identity import RETAINED_TAG, Identity
from smoke_tests.teardown.items import Item
from smoke_tests.teardown.region_scan import Kind, RegionScan
from smoke_tests.teardown.removal import remove
from smoke_tests.teardown.sweep import Sweeper
from tests.smoke_tests.teardown.planted import Planted

ARGUMENTS = ["--quiet", "--json", "--this-region-only"]


def left(stack: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    command.main(["--stack", stack, *ARGUMENTS])
    return sorted(entry["identifier"] for entry in json.loads(capsys.readouterr().out)["left"])


def test_fix_empties_the_stack_and_touches_no_neighbour(aws: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    beside = Planted(aws, "dev-eu")
    for plant in (beside.network, beside.storage, beside.rights, Planted(aws, "dev").everything):
        plant()
    neighbour = left("dev-eu", capsys)
    assert len(neighbour) > 15
    assert command.main(["--stack", "dev", "--fix", "--yes", *ARGUMENTS]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["clean"], found["left"], found["not_deleted"]) == (True, [], [])
    assert left("dev-eu", capsys) == neighbour


def few_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sweep", "removal"):
        monkeypatch.setattr(f"smoke_tests.teardown.{module}.KINDS", ec2.KINDS)


@pytest.mark.parametrize("answer", ["dev2", "y", "", None])
def test_nothing_is_deleted_without_the_stacks_name(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str | None
) -> None:
    few_kinds(monkeypatch)
    volume = _volume(aws)

    def typed() -> str:
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", typed)
    assert command.main(["--stack", "dev", "--fix", "--quiet", "--this-region-only"]) == 1
    shown = capsys.readouterr().err
    assert "nothing was deleted" in shown
    assert volume in shown
    assert left("dev", capsys) == [volume]


def test_the_typed_name_deletes(aws: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    few_kinds(monkeypatch)
    _volume(aws)
    monkeypatch.setattr("builtins.input", lambda: "dev")
    assert command.main(["--stack", "dev", "--fix", *ARGUMENTS]) == 0


def _volume(aws: boto3.Session, **more: str) -> str:
    tags = [{"Key": k, "Value": v} for k, v in {"Project": "vllm-endpoint", "Stack": "dev", **more}.items()]
    specification: Any = [{"ResourceType": "volume", "Tags": tags}]
    made = aws.client("ec2").create_volume(Size=1, AvailabilityZone=f"{REGION}a", TagSpecifications=specification)
    return made["VolumeId"]


def test_what_was_kept_goes_only_when_asked_for(aws: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
    mine = Planted(aws, "dev")
    mine.network()
    _volume(aws, **{RETAINED_TAG: "true"})
    elb = aws.client("elbv2")
    tags: Any = mine.pairs()
    arn = elb.create_load_balancer(Name=mine.name("int"), Subnets=mine.subnets, Tags=tags)["LoadBalancers"][0][
        "LoadBalancerArn"
    ]
    protection = "deletion_protection.enabled"
    elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=[{"Key": protection, "Value": "true"}])
    command.main(["--stack", "dev", "--fix", "--yes", "--timeout-minutes", "0", *ARGUMENTS])
    assert [entry["kind"] for entry in json.loads(capsys.readouterr().out)["kept"]] == ["load balancer", "EBS volume"]
    assert command.main(["--stack", "dev", "--fix", "--include-retained", "--yes", *ARGUMENTS]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["left"], found["kept"]) == ([], [])


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "has dependent objects"}}, "DeleteIt")


class Account:
    """Two things; the second can be deleted only so many attempts after the first is gone."""

    def __init__(self, attempts: int = 0, error: str = "DependencyViolation") -> None:
        self.there = ["group", "network"]
        self._attempts, self._error = attempts, error
        self.pauses: list[float] = []

    def kinds(self) -> tuple[Kind, ...]:
        return tuple(Kind(name, self._finder(name), self._remove) for name in ("network", "group"))

    def _finder(self, name: str) -> Callable[[RegionScan], list[Item]]:
        return lambda scan: [Item(name, name, name, scan.region)] if name in self.there else []

    def _remove(self, _scan: RegionScan, item: Item) -> None:
        if item.kind == "network" and "group" in self.there:
            raise refusal(self._error)
        if item.kind == "group" and self._attempts > 0:
            self._attempts -= 1
            raise refusal(self._error)
        self.there.remove(item.identifier)

    def run(self, aws: boto3.Session, monkeypatch: pytest.MonkeyPatch, timeout_seconds: float = 60) -> Any:
        for module in ("sweep", "removal"):
            monkeypatch.setattr(f"smoke_tests.teardown.{module}.KINDS", self.kinds())
        self.lines: list[str] = []
        sweeper = Sweeper(Identity("dev"), REGION, aws, self.lines.append, other_regions=False)
        return remove(
            sweeper, sweeper.sweep(), self.lines.append, include_retained=False, timeout_seconds=timeout_seconds,
            pause=self.pauses.append, clock=lambda: sum(self.pauses),
        )  # fmt: skip


def test_what_is_in_use_is_tried_again_until_it_goes(aws: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account(attempts=2)
    sweep, refused = account.run(aws, monkeypatch)
    assert (account.there, sweep.items, refused) == ([], (), [])
    assert len(account.pauses) == 2
    assert any("2 wait for others to go" in line and "has dependent objects" in line for line in account.lines)


def test_what_never_goes_is_told_when_the_time_is_over(aws: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account(attempts=10**6)
    sweep, refused = account.run(aws, monkeypatch, timeout_seconds=60)
    assert [item.kind for item in sweep.items] == ["network", "group"]
    assert [(one.item.kind, one.reason) for one in refused] == [
        ("network", "DependencyViolation: has dependent objects"), ("group", "DependencyViolation: has dependent objects"),
    ]  # fmt: skip
    assert 60 <= sum(account.pauses) <= 80


def test_what_is_forbidden_is_told_at_once(aws: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account(attempts=10**6, error="UnauthorizedOperation")
    _, refused = account.run(aws, monkeypatch)
    assert [one.item.kind for one in refused] == ["network", "group"]
    assert account.pauses == []


def test_an_unexpected_error_of_one_deletion_does_not_stop_the_others(
    aws: boto3.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    described: dict[str, None] = {}
    broken = Kind(
        "broken", lambda scan: [Item("broken", "b", "b", scan.region)], lambda scan, item: described["Attachments"]
    )
    monkeypatch.setattr(account, "kinds", lambda: (broken, *Account.kinds(account)))
    sweep, refused = account.run(aws, monkeypatch)
    assert account.there == []
    assert [item.kind for item in sweep.items] == ["broken"]
    assert [(one.item.kind, one.reason) for one in refused] == [("broken", "KeyError: 'Attachments'")]


def test_a_capacity_provider_that_aws_keeps_is_retried_with_its_reason(
    aws: boto3.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = RegionScan(Identity("dev"), REGION, "1", aws)
    answer = {"updateStatus": "DELETE_FAILED", "updateStatusReason": "it is associated with cluster: vllm-dev-gpu"}
    client = SimpleNamespace(delete_capacity_provider=lambda capacityProvider: {"capacityProvider": answer})  # noqa: N803
    monkeypatch.setattr(scan, "client", lambda service: client)
    (kind,) = [kind for kind in ecs.KINDS if kind.title == "capacity provider"]
    with pytest.raises(ClientError, match=r"DELETE_FAILED.*associated with cluster"):
        kind.remove(scan, Item("capacity provider", "x", "x", REGION))
    answer.clear()
    kind.remove(scan, Item("capacity provider", "x", "x", REGION))
