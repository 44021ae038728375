"""The account's limits, with a fake Service Quotas API that responds as AWS documents."""

from typing import Any

from botocore.exceptions import ClientError, NoCredentialsError

from infra.planning import make_plan
from infra.planning.catalog.gpus import known_instance_types
from infra.preflight import Findings, not_offered, offered_zones, vcpu_quota
from infra.stack_files import load_stack


class Quotas:
    def __init__(self, value: float) -> None:
        self.value = value
        self.asked: list[str] = []

    def get_service_quota(self, *, ServiceCode: str, QuotaCode: str) -> dict[str, Any]:  # noqa: N803 - AWS's names
        self.asked.append(f"{ServiceCode}/{QuotaCode}")
        return {"Quota": {"Value": self.value}}


def check(stack: str, quotas: Quotas, **overrides: Any) -> Findings:
    settings = load_stack(stack, overrides)
    return vcpu_quota(settings, make_plan(settings), "us-east-1", lambda: quotas)


def test_a_quota_that_is_too_low_is_refused_with_the_command_that_raises_it() -> None:
    found = check("prod", quotas := Quotas(8))
    assert quotas.asked == ["ec2/L-417A185B"]
    (refusal,) = found.refusals
    assert refusal.startswith(
        "gpu: p5.4xlarge needs 16 vCPUs, but the account's quota Running On-Demand P instances is 8"
    )
    assert "--quota-code L-417A185B --desired-value 16" in refusal


def test_a_quota_for_some_replicas_only_warns() -> None:
    found = check("prod", Quotas(16))
    assert found.refusals == ()
    assert "allows 1 of 2 instances" in found.warnings[0]


def test_enough_quota_is_silent_and_spot_asks_its_own() -> None:
    assert check("dev", Quotas(4)) == Findings()
    check("dev", quotas := Quotas(100), capacity="spot")
    assert quotas.asked == ["ec2/L-3819A6DF"]


def test_a_reservation_needs_no_quota() -> None:
    assert check("dev", quotas := Quotas(0), capacity="reservation", capacityReservationId="cr-1") == Findings()
    assert quotas.asked == []


def test_without_credentials_or_permission_it_warns() -> None:
    def nobody() -> Any:
        raise NoCredentialsError

    def forbidden() -> Any:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "GetServiceQuota")

    settings = load_stack("dev")
    for client, reason in ((nobody, "NoCredentialsError"), (forbidden, "AccessDeniedException")):
        found = vcpu_quota(settings, make_plan(settings), "us-east-1", client)
        assert found.refusals == ()
        assert found.warnings[0].endswith(f"was not checked: {reason}")


def test_zones_are_those_that_offer_a_type() -> None:
    kinds = (known_instance_types()["g5.xlarge"], known_instance_types()["g5.2xlarge"])
    assert offered_zones(kinds, [("g5.2xlarge", "b"), ("g5.xlarge", "a"), ("p5.4xlarge", "c")]) == ("a", "b")
    assert offered_zones(kinds, []) == ()
    assert "no zone of eu-north-1 offers g5.xlarge, g5.2xlarge" in not_offered(kinds, "eu-north-1")
