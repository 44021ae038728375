"""Checks the account's limits before anything is created. Requires credentials; without them it only warns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.aws_credentials import CONFIG, session
from infra.planning.catalog.gpus import InstanceType
from infra.planning.plan import ServingPlan
from infra.settings import PurchaseOption, Settings

# Service Quotas codes of "Running On-Demand/Spot instances", in vCPUs, by the first letter of the instance family.
QUOTA_CODES = {
    (PurchaseOption.ON_DEMAND, "g"): "L-DB2E81BA", (PurchaseOption.SPOT, "g"): "L-3819A6DF",
    (PurchaseOption.ON_DEMAND, "p"): "L-417A185B", (PurchaseOption.SPOT, "p"): "L-7212CCBC",
}  # fmt: skip
QUOTA_NAMES = {"g": "G and VT", "p": "P"}


class QuotaError(BotoCoreError):
    """The quota could not be looked up in another way than with boto3."""

    fmt = "{reason}"


@dataclass(frozen=True)
class Findings:
    """The results of a check: problems that prevent a deploy, and warnings."""

    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def vcpu_quota(
    settings: Settings,
    plan: ServingPlan,
    region: str,
    client: Callable[[], Any] | None = None,
    profile: str | None = None,
) -> Findings:
    """Check whether the account's quota allows the GPU instances of a plan.

    Args:
        settings: the stack's settings.
        plan: its plan.
        region: the stack's region.
        client: creates a Service Quotas client; by default with the program's credentials.
        profile: the AWS profile that the stack is deployed with; None: the default profile.
    """
    if settings.capacity.reserved:
        return Findings()
    instance_type = plan.replicas.instance_types[0]
    family = instance_type.name[0]
    code = QUOTA_CODES[settings.capacity, family]
    try:
        quotas = (client or (lambda: _client("service-quotas", region, profile)))()
        allowed = float(quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])
    except (BotoCoreError, ClientError) as error:
        return Findings(
            warnings=(f"the vCPU quota of {instance_type.name} in {region} was not checked: {reason_of(error)}",)
        )
    needed = max(1, settings.min_replicas) * instance_type.vcpus
    title = (
        f"Running {'Spot' if settings.capacity is PurchaseOption.SPOT else 'On-Demand'} {QUOTA_NAMES[family]} instances"
    )
    if allowed < needed:
        return Findings(refusals=(_too_low(instance_type, allowed, needed, title, code, region),))
    most = (settings.max_replicas + settings.warm_pool) * instance_type.vcpus
    if allowed < most:
        replicas = math.floor(allowed / instance_type.vcpus)
        return Findings(
            warnings=(
                f"the quota {title} ({code}) of {allowed:g} vCPUs in {region} allows {replicas} of {most // instance_type.vcpus} instances",
            )
        )
    return Findings()


def _too_low(instance_type: InstanceType, allowed: float, needed: int, title: str, code: str, region: str) -> str:
    return (
        f"gpu: {instance_type.name} needs {needed} vCPUs, but the account's quota {title} is {allowed:g} in {region}. "
        f"Set another gpu, or raise the quota: aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} --desired-value {needed}"
    )


def offered_zones(instance_types: tuple[InstanceType, ...], offerings: list[tuple[str, str]]) -> tuple[str, ...]:
    """The zones that offer at least one of the instance types, sorted.

    Args:
        instance_types: the plan's instance types.
        offerings: (instance type, zone) pairs as EC2 lists them.
    """
    names = {instance_type.name for instance_type in instance_types}
    return tuple(sorted({zone for name, zone in offerings if name in names}))


def not_offered(instance_types: tuple[InstanceType, ...], region: str) -> str:
    """The problem line for instance types that no zone of the region offers."""
    names = ", ".join(instance_type.name for instance_type in instance_types)
    return f"gpu: no zone of {region} offers {names}. Set aws:region to one that does, or another gpu"


def _client(service: str, region: str, profile: str | None) -> Any:
    return session(profile or "", region).client(service, config=CONFIG)  # type: ignore[call-overload]


def reason_of(error: Exception) -> str:
    """AWS's error code, or why AWS could not be asked."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "refused"))
    return str(error) if isinstance(error, QuotaError) else type(error).__name__
