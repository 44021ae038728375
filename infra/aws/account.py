"""The account and region that an endpoint is deployed to, asked of the component's own provider."""

from __future__ import annotations

import datetime
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context
from infra.aws.lookups import ask, check_account, profile_name
from infra.errors import DeployError
from infra.identity import Identity
from infra.offers import ask_offers, clients_of, purchase_findings, with_prices
from infra.planning.plan import ServingPlan
from infra.planning.serving import priced_again
from infra.preflight import QuotaError, vcpu_quota
from infra.settings import PurchaseOption, Settings


def find_context(
    settings: Settings, identity: Identity, component: pulumi.Resource | None = None, *, explicit: bool = False
) -> Context:
    """The account and region.

    Args:
        settings: the endpoint's settings.
        identity: what its names are derived from.
        component: the endpoint's component, whose provider is asked.
        explicit: whether that is a provider of its own, to which the program's `aws:` configuration does not apply.

    Raises:
        DeployError: there are no credentials or no region, or the stack must not use the account.
    """
    lookup = pulumi.InvokeOptions(parent=component)
    account_id = ask("the account", lambda: aws.get_caller_identity(opts=lookup).account_id)
    if not explicit:
        check_account(account_id)
    return Context(
        identity=identity,
        region=ask("the region", lambda: aws.get_region(opts=lookup).region),
        account_id=account_id,
        partition=ask("the partition", lambda: aws.get_partition(opts=lookup).partition),
        owner=settings.owner,
        parent=component,
        explicit=explicit,
    )


def check_quota(context: Context, settings: Settings, plan: ServingPlan) -> None:
    """Check that the account's quota allows the plan's GPU instances.

    Raises:
        DeployError: it does not.
    """
    # The credentials of a provider cannot be read from it: it is asked itself.
    client = (lambda: _Quotas(context)) if context.explicit else None
    findings = vcpu_quota(settings, plan, context.region, client, profile_name() or None)
    for warning in findings.warnings:
        pulumi.log.warn(warning, context.parent)
    if findings.refusals:
        raise DeployError("\n".join(findings.refusals))


def check_offers(context: Context, settings: Settings, plan: ServingPlan) -> ServingPlan:
    """The plan with the prices that AWS answers, if it sells the instances in the way the stack buys them.

    A provider of the component's own cannot be asked for its credentials, and has no such lookups: then the plan is unchanged.

    Raises:
        DeployError: AWS sells none of the plan's instance types that way in the region.
    """
    if context.explicit:
        return plan
    kinds, region = plan.replicas.instance_types, context.region
    spot = settings.capacity is PurchaseOption.SPOT
    offers = ask_offers([kind.name for kind in kinds], region, clients_of(profile_name()), spot=spot)
    findings = purchase_findings(settings, kinds, region, offers)
    for warning in findings.warnings:
        pulumi.log.info(warning, context.parent)
    if findings.refusals:
        raise DeployError("\n".join(findings.refusals))
    # The month alone: a new date would be a change in the stack's outputs at each deploy.
    month = f"{datetime.datetime.now(datetime.UTC):%Y-%m}"
    return priced_again(settings, plan, with_prices(kinds, settings.capacity, region, offers, month), region)


class _Quotas:
    """As much of a Service Quotas client as `vcpu_quota` uses, through a provider."""

    def __init__(self, context: Context) -> None:
        self._lookup = context.lookup

    def get_service_quota(self, *, ServiceCode: str, QuotaCode: str) -> dict[str, Any]:  # noqa: N803 - AWS's names
        try:
            found = aws.servicequotas.get_service_quota(
                service_code=ServiceCode, quota_code=QuotaCode, opts=self._lookup
            )
        except Exception as error:  # raised by the SDK for every failed lookup
            raise QuotaError(reason=" ".join(str(error).split())[-200:]) from None
        return {"Quota": {"Value": found.value}}
