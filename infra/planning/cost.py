"""What a stack costs at list price, itemised. Nothing here is measured traffic: see the benchmark for $ per million tokens."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from infra.planning.plan import CapacityPlan, CostItem, CostPlan, EnginePlan, GatewayPlan
from infra.settings import NatGateways, Settings, Target

_DATA = Path(__file__).parent / "catalog" / "prices.json"
HOURS_PER_MONTH = 730
ZONES = 2


@functools.cache
def prices() -> dict[str, Any]:
    """Unit prices of what is not a GPU instance: name -> US dollars, us-east-1."""
    return dict(json.loads(_DATA.read_text()))


def cost_plan(
    settings: Settings, capacity: CapacityPlan, engine: EnginePlan, gateway: GatewayPlan, region: str
) -> CostPlan:
    """The bill of an hour: idle (minReplicas run) and active (one replica runs, or minReplicas where that is more).

    Prices are us-east-1's; another region is priced the same and named, so that nobody takes the figure for its own.
    """
    table = prices()
    unit = table["usd"]
    instance = capacity.instance_types[0]
    idle, active = settings.min_replicas, max(1, settings.min_replicas)
    if settings.target is Target.KUBERNETES:
        idle = active  # one replica always runs there
    gpu = CostItem(f"GPU instances {instance.name}", idle * instance.usd_per_hour, active * instance.usd_per_hour)
    if settings.target is Target.KUBERNETES:
        # The cluster, its nodes and its load balancer are the user's; only the GPU share can be priced.
        return CostPlan(items=(gpu,), region=region, priced_on=instance.priced_on)
    throughput = max(0, capacity.root_volume_throughput_mib_per_second - unit["ebs_gp3_mibps_included"])
    disk_month = unit["ebs_gp3_gb_month"] * capacity.root_volume_gib + unit["ebs_gp3_mibps_month"] * throughput
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
        _always("alarms", 2 * unit["alarm_month"] / HOURS_PER_MONTH),
    ]
    if not settings.internal:
        items.append(_always("public IPv4 addresses", ZONES * unit["public_ipv4_hour"]))
    gateways = {NatGateways.NONE: 0, NatGateways.SINGLE: 1, NatGateways.PER_ZONE: ZONES}[settings.nat_gateways]
    if gateways and not settings.vpc_id:
        items.append(_always("NAT gateways", gateways * (unit["nat_hour"] + unit["public_ipv4_hour"])))
    return CostPlan(items=tuple(items), region=region, priced_on=instance.priced_on)


def _always(name: str, usd_per_hour: float) -> CostItem:
    return CostItem(name, usd_per_hour, usd_per_hour)
