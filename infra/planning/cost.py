"""The bill of a stack by line. It does not depend on traffic; the benchmark reports $ per million tokens."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.planning.catalog.gpus import InstanceType
from infra.planning.catalog.models import GIB
from infra.planning.plan import (
    HOURS_PER_MONTH,
    CostItem,
    CostPlan,
    EnginePlan,
    GatewayPlan,
    ReplicaPlan,
    WakeItem,
)
from infra.settings import FlowLogs, NatGateways, PurchaseOption, Settings, Target, WeightsThroughput

_DATA = Path(__file__).parent / "catalog" / "prices.json"
PRICE_REGION = "us-east-1"
"""The region of every price in prices.json."""
ZONES = 2
IMAGE_DOWNLOAD_GB = 12  # the compressed size of the upstream image
GATEWAY_IMAGE_GB, GATEWAY_IMAGES = 0.15, 3  # with the images of earlier deploys, until the lifecycle rule expires them
GATEWAY_METRICS = 6  # Demand, Running, Held, Queued, ReplicasReady, QueueFull
SCALE_DOWN_ALARM_METRICS, TRACKING_ALARM_METRICS, MAIL_ALARM_METRICS = 6, 4, 14
# Log volumes are estimates: a gateway logs a line per request, vLLM its statistics every ten seconds and each request.
GATEWAY_LOG_GB_PER_HOUR, ENGINE_LOG_GB_PER_HOUR, FLOW_LOG_GB_PER_HOUR = 0.0003, 0.002, 0.00005


@functools.cache
def prices() -> dict[str, Any]:
    """Unit prices of everything except GPU instances: name -> US dollars, us-east-1."""
    return dict(json.loads(_DATA.read_text()))


def cost_plan(
    settings: Settings, replicas: ReplicaPlan, engine: EnginePlan, gateway: GatewayPlan, region: str
) -> CostPlan:
    """The cost per hour: idle (minReplicas run) and active (one replica runs, or minReplicas if that is more).

    Prices are those of the catalog's region. If the stack is in another one, or buys in a way without a list price, the
    plan says that the price is unknown.
    """
    unit = prices()["usd"]
    instance = replicas.instance_types[0]
    idle, active = settings.min_replicas, max(1, settings.min_replicas)
    if settings.target is Target.KUBERNETES:
        idle = active  # on Kubernetes, one replica always runs
    gpu = CostItem(
        f"GPU instances {instance.name}",
        idle * instance.usd_per_hour,
        active * instance.usd_per_hour,
        f"{instance.price_source}, {instance.priced_on}",
    )
    cold_hours = replicas.expected_cold_start_seconds / 3600
    if settings.target is Target.KUBERNETES:
        # The cluster, its nodes and its load balancer belong to the user; only GPU instances are priced.
        items, wakes, once = [gpu], [WakeItem("instance until ready", cold_hours * instance.usd_per_hour)], 0.0
    else:
        disk = _disk_hour(replicas, unit)
        items = [gpu, *_items(settings, replicas, engine, gateway, disk)]
        wakes = list(_cold_start(settings, engine, cold_hours * (instance.usd_per_hour + disk)))
        # The S3 endpoint of the VPC that the stack creates is free.
        once = (
            0.0
            if settings.vpc_id or settings.bucket or settings.model_in_image
            else engine.checkpoint_gib * GIB / 1e9 * unit["nat_gb"]
        )
    plan = CostPlan(
        tuple(items),
        round(sum(item.usd for item in wakes), 4),
        region,
        instance.priced_on,
        usd_once=round(once, 2),
        price_source=instance.price_source,
        unknown=_unknown(settings, instance, region),
    )
    if idle >= active or settings.wakes_per_day == 0:
        return plan
    tail = replicas.scale_down_seconds / 3600 * (plan.usd_per_hour_active - plan.usd_per_hour_idle)
    wakes.append(WakeItem(f"idle until scaled down ({replicas.scale_down_seconds // 60} min)", tail, gpu.source))
    return dataclasses.replace(
        plan,
        wake_items=tuple(wakes),
        wakes_per_day=settings.wakes_per_day,
        wake_seconds=replicas.expected_cold_start_seconds + replicas.scale_down_seconds,
    )


def _unknown(settings: Settings, instance: InstanceType, region: str) -> str:
    if settings.capacity is PurchaseOption.SPOT and instance.priced_as != "spot":
        return "the Spot price changes and was not looked up: at most the on-demand price"
    if settings.capacity is PurchaseOption.CAPACITY_BLOCK:
        return "a capacity block is paid in full when it is reserved, also for the hours in which nothing runs"
    if region != instance.price_region:
        return f"price unknown in {region}: these are prices of {instance.price_region}"
    if region != PRICE_REGION:
        return f"the instances' price is that of {region}, the other lines are prices of {PRICE_REGION}"
    return ""


def _disk_hour(replicas: ReplicaPlan, unit: dict[str, float]) -> float:
    throughput = max(0, replicas.root_volume_throughput_mib_per_second - unit["ebs_gp3_mibps_included"])
    month = unit["ebs_gp3_gb_month"] * replicas.root_volume_gib + unit["ebs_gp3_mibps_month"] * throughput
    return float(month / HOURS_PER_MONTH)


def _items(
    settings: Settings, replicas: ReplicaPlan, engine: EnginePlan, gateway: GatewayPlan, disk: float
) -> Iterator[CostItem]:
    """Every line of a stack on ECS except the GPU instances."""
    unit = prices()["usd"]
    idle, active = settings.min_replicas, max(1, settings.min_replicas)
    yield _item("root volumes", (idle + settings.warm_pool) * disk, (active + settings.warm_pool) * disk)
    fargate = gateway.cpu_units / 1024 * unit["fargate_vcpu_hour"] + gateway.memory_mib / 1024 * unit["fargate_gb_hour"]
    yield _always("gateways on Fargate", gateway.count * fargate)
    yield _always("load balancer", unit["alb_hour"])
    yield _always("load balancer capacity", unit["alb_lcu_hour"], note="one LCU")
    if not settings.model_in_image:
        yield _month("weights on EFS", engine.checkpoint_gib * unit["efs_gb_month"], note="Standard storage")
    yield _month("secrets", (1 + bool(settings.hf_token)) * unit["secret_month"])
    yield _month("metrics and alarms", _watching(settings))
    if settings.dashboard:
        yield _month("dashboard", unit["dashboard_month"], note="free for the first three of an account")
    yield _month("Cloud Map zone", unit["hosted_zone_month"])
    stored = (0 if settings.gateway_image else GATEWAY_IMAGE_GB * GATEWAY_IMAGES) + (
        _image_gb(settings, engine) if settings.docker_hub_credentials_arn else 0
    )
    if stored:
        yield _month("images in ECR", stored * unit["ecr_gb_month"])
    logged = gateway.count * GATEWAY_LOG_GB_PER_HOUR
    if settings.flow_logs is not FlowLogs.NONE and not settings.vpc_id:
        logged += FLOW_LOG_GB_PER_HOUR
    idle_logs, active_logs = ((logged + n * ENGINE_LOG_GB_PER_HOUR) * unit["logs_ingested_gb"] for n in (idle, active))
    yield _item("logs", idle_logs, active_logs, note="volume estimated")
    if settings.waf_requests_per_five_minutes:
        yield _month("web application firewall", unit["waf_month"])
    if not settings.internal:
        yield _always("public IPv4 addresses", ZONES * unit["public_ipv4_hour"])
    gateways = {NatGateways.NONE: 0, NatGateways.SINGLE: 1, NatGateways.PER_ZONE: ZONES}[settings.nat_gateways]
    if gateways and not settings.vpc_id:
        yield _always("NAT gateways", gateways * (unit["nat_hour"] + unit["public_ipv4_hour"]))


def _cold_start(settings: Settings, engine: EnginePlan, instance_usd: float) -> Iterator[WakeItem]:
    """What one cold start costs: the instance until it is ready, the image pull, reading the weights."""
    unit, remembered = prices()["usd"], _source()
    yield WakeItem("instance until ready", instance_usd)
    over_nat = not (settings.vpc_id or settings.warm_pool or settings.docker_hub_credentials_arn)
    if over_nat and ".dkr.ecr." not in engine.image:
        yield WakeItem("image through the NAT gateway", _image_gb(settings, engine) * unit["nat_gb"], remembered)
    if settings.weights_throughput is WeightsThroughput.ELASTIC and not settings.model_in_image:
        read = engine.checkpoint_gib * GIB / 1e9 * unit["efs_elastic_read_gb"]
        yield WakeItem("weights read from EFS", read, remembered)


def _image_gb(settings: Settings, engine: EnginePlan) -> float:
    """The compressed size of the engine's image; weights in it do not get smaller."""
    return IMAGE_DOWNLOAD_GB + (engine.checkpoint_gib * GIB / 1e9 if settings.model_in_image else 0.0)


def _watching(settings: Settings) -> float:
    """US dollars per month for the gateway's metrics and for alarms, which are billed per metric that they evaluate."""
    unit, read = prices()["usd"], 0
    if settings.max_replicas > settings.min_replicas:
        read += SCALE_DOWN_ALARM_METRICS
    if settings.max_replicas > max(1, settings.min_replicas):
        read += TRACKING_ALARM_METRICS
    if settings.alarm_email:
        read += MAIL_ALARM_METRICS
    return float(GATEWAY_METRICS * unit["metric_month"] + read * unit["alarm_month"])


def _source() -> str:
    return f"{prices()['price_source']}, {prices()['priced_on']}"


def _item(name: str, idle: float, active: float, note: str = "") -> CostItem:
    return CostItem(name, idle, active, _source(), note)


def _always(name: str, usd_per_hour: float, note: str = "") -> CostItem:
    return _item(name, usd_per_hour, usd_per_hour, note)


def _month(name: str, usd_per_month: float, note: str = "") -> CostItem:
    return _always(name, usd_per_month / HOURS_PER_MONTH, note)
