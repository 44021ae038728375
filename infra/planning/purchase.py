"""Whether a region sells a plan's instance types the way the stack buys them, as far as the catalog knows.

The catalog can be out of date, so these are warnings. With credentials, EC2 is asked before a deploy (`infra.preflight`).
"""

from __future__ import annotations

from infra.planning.catalog.gpus import GpuSpec, InstanceType, known_instance_types, known_regions
from infra.planning.instances import offers
from infra.settings import PurchaseOption, Settings, Target

MOST_ALTERNATIVES = 3


def purchase_warnings(
    settings: Settings, gpu: GpuSpec, instance_types: tuple[InstanceType, ...], region: str
) -> list[str]:
    """One line for each reason why the instances may not be available, with what to set instead."""
    found = []
    for instance_type in instance_types:
        if instance_type.fractional:
            found.append(
                f"{instance_type.name} has a fraction of a GPU, which requires NVIDIA's GRID driver; the ECS GPU AMI does not include it (believed). Set instanceTypes to a type with a whole GPU"
            )
    if not gpu.has_bf16:
        found.append(
            f"an {gpu.label} does not support bfloat16: vLLM converts the weights to float16, and some models reject that"
        )
    if gpu.memory_is_estimate:
        found.append(
            f"the memory of an {gpu.label} ({gpu.memory_gib:g} GiB) is an estimate; the first start measures it"
        )
    if settings.target is Target.ECS and not any(offers(k, region, settings.capacity) for k in instance_types):
        found.append(_not_sold(settings, instance_types, region))
    return found


def _not_sold(settings: Settings, instance_types: tuple[InstanceType, ...], region: str) -> str:
    first = instance_types[0]
    here = [k for k in instance_types if region in k.regions]
    if not here:
        why = f"{_names(instance_types)}: not offered in {region}"
    elif any(region in k.capacity_block_only_in for k in here) and not settings.capacity.reserved:
        why = f"{_names(here)}: {region} sells it through capacity blocks only (believed, not confirmed)"
    else:
        why = f"{_names(here)}: not sold as {settings.capacity} ({', '.join(first.purchase)} only)"
    return f"{why}. Set {', or '.join(alternatives(settings, first, region))}"


def alternatives(settings: Settings, wanted: InstanceType, region: str) -> list[str]:
    """Changes after which the region sells the instances: the purchase option, the region, another type."""
    found = []
    if not settings.capacity.reserved and "capacity-block" in wanted.purchase and region in wanted.regions:
        found.append("capacity: capacity-block with the capacityReservationId of a block")
    if settings.capacity is not PurchaseOption.ON_DEMAND and offers(wanted, region, PurchaseOption.ON_DEMAND):
        found.append("capacity: on-demand")
    elsewhere = [name for name in wanted.regions if offers(wanted, name, settings.capacity)]
    if elsewhere:
        found.append(f"aws:region: {elsewhere[0]}" if len(elsewhere) == 1 else f"aws:region to {_few(elsewhere)}")
    others = [
        k for k in known_instance_types().values()
        if k.gpu_memory_gib >= 0.9 * wanted.gpu_memory_gib and k.gpus >= wanted.gpus and not k.fractional and offers(k, region, settings.capacity)
    ]  # fmt: skip
    if others and region in known_regions():
        cheapest = min(others, key=lambda k: k.usd_per_hour)
        found.append(f"gpu: {cheapest.gpu} ({cheapest.name}, ${cheapest.usd_per_hour:.2f} an hour)")
    return found or ["another gpu or aws:region"]


def _few(names: list[str]) -> str:
    return f"one of {', '.join(names[:MOST_ALTERNATIVES])}"


def _names(instance_types: tuple[InstanceType, ...] | list[InstanceType]) -> str:
    return ", ".join(k.name for k in instance_types)
