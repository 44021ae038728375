"""Lookups in the account before any resource is created. A failed lookup becomes a one-line error, not a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import pulumi
import pulumi_aws as aws

from infra.aws_credentials import CONFIG, explain, failure, session
from infra.errors import DeployError
from infra.planning.catalog.gpus import InstanceType
from infra.preflight import not_offered, offered_zones
from infra.settings import PROJECT

T = TypeVar("T")
# Provider settings that set other credentials, or disable their validation.
_GIVEN_TO_THE_PROVIDER = (
    "accessKey", "assumeRole", "assumeRoles", "assumeRoleWithWebIdentity", "endpoints", "sharedCredentialsFiles",
    "sharedConfigFiles", "skipCredentialsValidation", "customCaBundle", "httpProxy", "httpsProxy",
)  # fmt: skip


def ask(what: str, question: Callable[[], T]) -> T:
    """The result of a lookup.

    Raises:
        DeployError: AWS rejected the request or did not find the resource; contains AWS's message.
    """
    try:
        return question()
    except Exception as error:  # the SDK raises a plain Exception for every failed lookup
        reason = " ".join(str(error).split())
        line = explain(reason, profile_name(), region_name(), _stack_to_plan())
        raise DeployError(line or f"{what} could not be looked up: {reason[-300:]}") from None


def profile_name() -> str:
    """The AWS profile that the stack is deployed with; empty: the default profile."""
    chosen = (pulumi.Config("aws").get("profile"), os.environ.get("AWS_PROFILE"), os.environ.get("AWS_DEFAULT_PROFILE"))
    return next(filter(None, chosen), "")


def region_name() -> str:
    """The stack's region from its settings or the environment; empty if only an AWS profile may set it."""
    chosen = (pulumi.Config("aws").get("region"), os.environ.get("AWS_REGION"), os.environ.get("AWS_DEFAULT_REGION"))
    return next(filter(None, chosen), "")


def s3_client() -> Any:
    """boto3's client of S3, with the stack's credentials."""
    return session(profile_name(), region_name() or "us-east-1").client("s3", config=CONFIG)


def _stack_to_plan() -> str:
    """The stack that `make plan` can plan without an account; empty in another program."""
    return pulumi.get_stack() if pulumi.get_project() == PROJECT else ""


def check_credentials() -> bool:
    """Check the credentials with AWS (GetCallerIdentity) before the provider does.

    Returns:
        Whether credentials were found; if not, a warning is logged.

    Raises:
        DeployError: AWS rejects them; one line.
    """
    config, stack = pulumi.Config("aws"), _stack_to_plan()
    if any(config.get(key) for key in _GIVEN_TO_THE_PROVIDER):
        return True
    profile, region = profile_name(), region_name()

    def identity() -> None:
        metadata = config.get("skipMetadataApiCheck") == "false"
        found = session(profile, region or "us-east-1", instance_metadata=metadata)
        found.client("sts", config=CONFIG).get_caller_identity()

    if not region and not session(profile, "").region_name:
        pulumi.log.warn(explain("missing region", profile, region, stack))
    reason, certain = failure(identity)
    line = explain(reason, profile, region, stack) if reason else ""
    if certain and line:
        raise DeployError(line)
    if line:
        # Not an error: the provider may support a credential source that boto3 does not. If not, the provider ends the program.
        pulumi.log.warn(f"the account's vCPU quota was not checked: {line}")
    return not reason


def check_account(account_id: str) -> None:
    """Check the account against ``aws:allowedAccountIds``.

    Raises:
        DeployError: the account is not allowed.
    """
    allowed = [str(item) for item in pulumi.Config("aws").get_object("allowedAccountIds") or []]
    if allowed and account_id not in allowed:
        reason = f"AWS account ID not allowed: {account_id}"
        raise DeployError(explain(reason, profile_name(), region_name(), _stack_to_plan()))


def zones_by_offer(
    instance_types: tuple[InstanceType, ...], region: str, lookup: pulumi.InvokeOptions
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The region's availability zones: (zones that offer one of the instance types, other zones), each sorted by name.

    Raises:
        DeployError: no zone of the region offers any of the types.
    """
    # Local and Wavelength Zones are opt-in, and support neither NAT gateways nor EFS.
    ordinary = aws.GetAvailabilityZonesFilterArgs(name="opt-in-status", values=["opt-in-not-required"])
    available = ask(
        f"the availability zones of {region}",
        lambda: aws.get_availability_zones(state="available", filters=[ordinary], opts=lookup).names,
    )
    names = [instance_type.name for instance_type in instance_types]
    wanted = aws.ec2.GetInstanceTypeOfferingsFilterArgs(name="instance-type", values=names)
    offers = ask(
        f"the zones that offer {', '.join(names)}",
        lambda: aws.ec2.get_instance_type_offerings(location_type="availability-zone", filters=[wanted], opts=lookup),
    )
    pairs = zip(offers.instance_types, offers.locations, strict=True)
    offering = offered_zones(instance_types, [(name, zone) for name, zone in pairs if zone in available])
    if not offering:
        raise DeployError(not_offered(instance_types, region))
    return offering, tuple(sorted(set(available) - set(offering)))
