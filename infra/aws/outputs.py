"""The outputs that ``pulumi stack output`` shows: the endpoint, its resources and its cost. They contain no secrets."""

from __future__ import annotations

import datetime
from typing import Any

import pulumi

from infra.aws.context import Context
from infra.aws.dashboard import Dashboard
from infra.aws.engine import Engine
from infra.aws.gateway import Gateway
from infra.aws.gateway_image import GatewayImage
from infra.aws.gpu_cluster import GpuCluster
from infra.aws.load_balancer import LoadBalancer
from infra.aws.observability import Observability
from infra.aws.secrets import Secrets
from infra.aws.weights import Weights
from infra.outputs import engine_outputs, key_command, verify_output, ways_in
from infra.planning.plan import CostPlan, ServingPlan
from infra.settings import Settings

# The budget filters by the tag Stack. AWS includes a tag in billing data only after a user with billing access activates
# it as a cost allocation tag; a stack cannot do that.
BUDGET_COUNTS = "aws ce update-cost-allocation-tags-status --cost-allocation-tags-status TagKey=Stack,Status=Active"


def stack_outputs(
    settings: Settings,
    plan: ServingPlan,
    context: Context,
    *,
    balancer: LoadBalancer,
    gpu_cluster: GpuCluster,
    engine: Engine,
    gateway: Gateway,
    secrets: Secrets,
    weights: Weights,
    logs: Observability,
    image: GatewayImage | None,
    ends_at: datetime.datetime | None,
    dashboard: Dashboard | None,
) -> dict[str, pulumi.Input[Any]]:
    """All outputs by name, for people and for programs."""
    endpoint = endpoint_url(settings, balancer.dns_name)
    retained: dict[str, pulumi.Input[str]] = {
        "weights": weights.file_system.id,
        "engineLogs": logs.engine.name,
        "gatewayLogs": logs.gateway.name,
    }
    if logs.network:
        retained["networkLogs"] = logs.network.name
    if image:
        retained["images"] = image.repository.name
    if balancer.access_logs:
        retained["accessLogs"] = balancer.access_logs.bucket.id
    found: dict[str, pulumi.Input[Any]] = {
        "endpoint": endpoint,
        "openaiBaseUrl": pulumi.Output.concat(endpoint, "/v1"),
        "model": plan.served_model_name,
        "region": context.region,
        "profile": "" if context.explicit else pulumi.Config("aws").get("profile") or "",
        "gpu": settings.gpu.value,
        "gpuCount": plan.replicas.gpu_count,
        "instanceType": plan.replicas.instance_types[0].name,
        **engine_outputs(settings, plan),
        "getApiKey": get_api_key(context, secrets.api_keys_arn),
        "apiKeySecretArn": secrets.api_keys_arn,
        "apiKeysSetBy": settings.keys_setting or "make key",
        "clusterName": gpu_cluster.cluster.name,
        "engineServiceName": engine.service.name,
        "gatewayServiceName": gateway.service.name,
        "autoScalingGroupName": gpu_cluster.group.name,
        "weightsFileSystemId": weights.file_system.id,
        "logGroups": {"engine": logs.engine.name, "gateway": logs.gateway.name},
        "retainedAtDestroy": retained if settings.protect else {},
        **reuse_output(settings, weights, context),
        "minReplicas": plan.replicas.min_replicas,
        "maxReplicas": plan.replicas.max_replicas,
        "scaleDownMinutes": plan.replicas.scale_down_seconds // 60,
        "alarms": bool(settings.alarm_email),
        "verify": verify_output(settings),
        **cost_outputs(plan.cost),
    }
    if dashboard:
        found["dashboard"] = dashboard.url
    if ends_at:
        found["turnsOffAt"] = f"{ends_at:%Y-%m-%d %H:%M} UTC, and at every hour after; pulumi up moves it"
    if settings.monthly_budget_usd:
        found["budgetCounts"] = BUDGET_COUNTS
    if settings.internal:
        found["howToOpen"] = how_to_open(settings, context)
    return found


def reuse_output(settings: Settings, weights: Weights, context: Context) -> dict[str, pulumi.Input[Any]]:
    """How the next stack adopts the retained weights. ``pulumi destroy`` prints it with the outputs."""
    if not (settings.protect or settings.weights_file_system_id):
        return {}
    how = (
        "the argument weightsFileSystemId: " if context.identity.endpoint else "pulumi config set weightsFileSystemId "
    )
    return {"reuseWeights": pulumi.Output.concat(how, weights.file_system.id)}


def endpoint_url(settings: Settings, dns_name: pulumi.Output[str]) -> pulumi.Output[str]:
    """The base URL, without /v1: the domain, or the load balancer's DNS name."""
    scheme, usual = ("https", 443) if settings.https else ("http", 80)
    host = pulumi.Output.from_input(settings.domain) if settings.domain else dns_name
    port = "" if settings.endpoint_port == usual else f":{settings.endpoint_port}"
    return pulumi.Output.concat(scheme, "://", host, port)


def get_api_key(context: Context, secret_arn: pulumi.Output[str]) -> pulumi.Input[str]:
    """The command that prints the API keys."""
    if not context.identity.endpoint:
        return key_command(context.stack)
    command = (
        f"aws secretsmanager get-secret-value --region {context.region} --query SecretString --output text --secret-id "
    )
    return pulumi.Output.concat(command, secret_arn)


def how_to_open(settings: Settings, context: Context) -> dict[str, str]:
    """The commands that make an internal load balancer public, by purpose; to run before `pulumi up`."""
    ways = ways_in(context.identity)
    if settings.vpc_id:
        ways["before"] = (
            "the argument loadBalancerSubnetIds: two public subnets"
            if context.identity.endpoint
            else f"pulumi config set --stack {context.stack} --path 'loadBalancerSubnetIds[0]' subnet-..., and [1]: two public subnets"
        )
    return ways


def cost_outputs(cost: CostPlan) -> dict[str, Any]:
    """The cost at list price, per hour and per month."""
    return {
        "usdPerHourActive": cost.usd_per_hour_active,
        "usdPerHourIdle": cost.usd_per_hour_idle,
        "usdPerColdStart": cost.usd_per_cold_start,
        "usdPerMonth": {f"{hours}HoursADay": cost.usd_per_month(hours) for hours in (1, 8, 24)},
        "usdPerWake": cost.usd_per_wake,
        "wakesPerDay": cost.wakes_per_day,
        "billPerMonthAt8HoursADay": {name: round(usd, 2) for name, usd, _ in cost.bill(8)},
        "pricedOn": cost.priced_on,
        "pricesFrom": cost.price_source,
        "priceUnknown": cost.unknown,
    }
