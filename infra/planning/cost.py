"""The itemized cost of a stack at list price. It does not depend on traffic; the benchmark reports $ per million tokens."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from infra.planning.plan import CostItem, CostPlan, EnginePlan, GatewayPlan, ReplicaPlan
from infra.settings import NatGateways, Settings, Target, WeightsThroughput

_DATA = Path(__file__).parent / "catalog" / "prices.json"
HOURS_PER_MONTH = 730
ZONES = 2
IMAGE_DOWNLOAD_GB = 10  # the compressed size of the upstream image
GATEWAY_METRICS = 6  # Demand, Running, Held, Queued, ReplicasReady, QueueFull
SCALE_DOWN_ALARM_METRICS, TRACKING_ALARM_METRICS, MAIL_ALARM_METRICS = 6, 4, 14


@functools.cache
def prices() -> dict[str, Any]:
    """Unit prices of everything except GPU instances: name -> US dollars, us-east-1."""
    return dict(json.loads(_DATA.read_text()))


def cost_plan(
    settings: Settings, replicas: ReplicaPlan, engine: EnginePlan, gateway: GatewayPlan, region: str
) -> CostPlan:
    """The cost per hour: idle (minReplicas run) and active (one replica runs, or minReplicas if that is more).

    Prices are those of us-east-1, for every region. The region is reported too, so that the reader can tell.
    """
    table = prices()
    unit = table["usd"]
    instance = replicas.instance_types[0]
    idle, active = settings.min_replicas, max(1, settings.min_replicas)
    if settings.target is Target.KUBERNETES:
        idle = active  # on Kubernetes, one replica always runs
    gpu = CostItem(f"GPU instances {instance.name}", idle * instance.usd_per_hour, active * instance.usd_per_hour)
    if settings.target is Target.KUBERNETES:
        # The cluster, its nodes and its load balancer belong to the user; only GPU instances are priced.
        cold = replicas.expected_cold_start_seconds / 3600 * instance.usd_per_hour
        return CostPlan((gpu,), round(cold, 4), region, instance.priced_on)
    throughput = max(0, replicas.root_volume_throughput_mib_per_second - unit["ebs_gp3_mibps_included"])
    disk_month = unit["ebs_gp3_gb_month"] * replicas.root_volume_gib + unit["ebs_gp3_mibps_month"] * throughput
    disk = disk_month / HOURS_PER_MONTH
    fargate = gateway.count * (
        gateway.cpu_units / 1024 * unit["fargate_vcpu_hour"] + gateway.memory_mib / 1024 * unit["fargate_gb_hour"]
    )
    items = [
        gpu,
        CostItem("root volumes", (idle + settings.warm_pool) * disk, (active + settings.warm_pool) * disk),
        _always("gateways on Fargate", fargate),
        _always("load balancer", unit["alb_hour"] + unit["alb_lcu_hour"]),
        _always("weights on EFS", engine.checkpoint_gib * unit["efs_gb_month"] / HOURS_PER_MONTH),
        _always("secrets", 2 * unit["secret_month"] / HOURS_PER_MONTH),
        _always("metrics and alarms", _watching(settings) / HOURS_PER_MONTH),
    ]
    if settings.waf_requests_per_five_minutes:
        items.append(_always("web application firewall", unit["waf_month"] / HOURS_PER_MONTH))
    if not settings.internal:
        items.append(_always("public IPv4 addresses", ZONES * unit["public_ipv4_hour"]))
    gateways = {NatGateways.NONE: 0, NatGateways.SINGLE: 1, NatGateways.PER_ZONE: ZONES}[settings.nat_gateways]
    if gateways and not settings.vpc_id:
        items.append(_always("NAT gateways", gateways * (unit["nat_hour"] + unit["public_ipv4_hour"])))
    cold = _cold_start(settings, replicas, engine, gpu_hour=instance.usd_per_hour + disk)
    return CostPlan(tuple(items), round(cold, 4), region, instance.priced_on)


def _cold_start(settings: Settings, replicas: ReplicaPlan, engine: EnginePlan, gpu_hour: float) -> float:
    """Cost of one cold start in US dollars: the instance until it is ready, the image pull, reading the weights."""
    unit = prices()["usd"]
    cost = replicas.expected_cold_start_seconds / 3600 * gpu_hour
    over_nat = not (settings.vpc_id or settings.warm_pool or settings.docker_hub_credentials_arn)
    if over_nat and ".dkr.ecr." not in engine.image:
        cost += IMAGE_DOWNLOAD_GB * unit["nat_gb"]
    if settings.weights_throughput is WeightsThroughput.ELASTIC:
        cost += engine.checkpoint_gib * unit["efs_elastic_read_gb"]
    return cost


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


def _always(name: str, usd_per_hour: float) -> CostItem:
    return CostItem(name, usd_per_hour, usd_per_hour)
