"""The recorded facts and estimates of an endpoint, from its settings and its plan."""

from __future__ import annotations

import math

from infra.changes.effects import Endpoint, Estimate
from infra.inputs import is_output
from infra.planning.catalog.models import GIB
from infra.planning.cost import prices
from infra.planning.plan import ServingPlan
from infra.planning.speculation import speculation
from infra.settings import Settings, Target

# EFS allows 100 MiB/s of writes from burst credits, less than the throughput of the Hub and a NAT gateway.
FETCH_MIB_PER_SECOND = 100


def place_of(settings: Settings, account_id: str, region: str) -> dict[str, str]:
    """The account, region and VPC of a stack on AWS, which never change."""
    return {
        "target": settings.target.value,
        "account": account_id,
        "aws:region": region,
        **({} if is_output(settings.vpc_id) else {"vpcId": str(settings.vpc_id)}),
    }


def endpoint_of(settings: Settings, plan: ServingPlan) -> Endpoint:
    """The endpoint from the clients' perspective. Contains no secrets."""
    https = bool(settings.domain) if settings.target is Target.KUBERNETES else settings.https
    adapters = [adapter.partition("=") for adapter in settings.lora_adapters]
    drafts = speculation(settings.speculative)
    weights = [f"{plan.model}@{plan.model_revision}" if plan.model_revision else plan.model]
    weights += [drafts.draft] if drafts and drafts.draft else []
    weights += [source for _, _, source in adapters if not source.startswith("/")]
    return Endpoint(
        scheme="https" if https else "http",
        host=settings.domain,
        port=settings.endpoint_port,
        models=(plan.served_model_name, *(name for name, _, _ in adapters)),
        clients=settings.allowed_cidrs or (("the stack's network",) if settings.internal else ("0.0.0.0/0",)),
        weights=tuple(weights),
        file_system=settings.weights_file_system_id,
    )


def estimate_of(settings: Settings, plan: ServingPlan, *, restarts_all: bool) -> Estimate:
    """Duration and cost of a cold start and of fetching all weights.

    Args:
        settings: the stack's settings.
        plan: its plan.
        restarts_all: whether no replica serves requests during a rollout of the engine.
    """
    gib = plan.engine.checkpoint_gib
    over_nat = settings.target is Target.ECS and not settings.vpc_id
    nat = gib * GIB / 1e9 * prices()["usd"]["nat_gb"] if over_nat else 0.0
    return Estimate(
        cold_start_minutes=math.ceil(plan.replicas.expected_cold_start_seconds / 60),
        fetch_minutes=math.ceil(gib * 1024 / FETCH_MIB_PER_SECOND / 60),
        fetch_usd=nat + plan.cost.usd_per_cold_start,
        restarts_all=restarts_all,
        keeps=settings.protect,
    )
