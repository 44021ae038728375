"""The EC2 instance types of a stack, and the memory available to a container on them."""

from __future__ import annotations

from infra.errors import PlanError
from infra.planning.catalog.gpus import GpuSpec, InstanceType, known_regions
from infra.settings import PurchaseOption, Settings

# vLLM prefetches weights from a network file system if the checkpoint is at most this fraction of available memory.
PREFETCH_SHARE = 0.9


def choose_instances(
    settings: Settings, gpu: GpuSpec, catalog: dict[str, InstanceType], checkpoint_gib: float, region: str = ""
) -> tuple[InstanceType, ...]:
    """The instance types to use, in order of preference.

    If instanceTypes is set, those types in the same order. Otherwise up to three of the smallest types with gpuCount GPUs
    of the class, cheapest first, whose container memory can hold the checkpoint (a condition of vLLM's prefetching). Types
    that the region does not offer are left out if it offers another one; types with a fraction of a GPU are chosen only by
    name.

    Raises:
        PlanError: a type in instanceTypes is unknown or does not match, or no type of the class has enough GPUs.
    """
    if settings.instance_types:
        reasons = []
        for name in settings.instance_types:
            instance_type = catalog.get(name)
            if instance_type is None:
                near = ", ".join(sorted(n for n, k in catalog.items() if k.gpu is gpu.gpu))
                reasons.append(f"instanceTypes: found {name}, which is not in the catalog. Set one of: {near}")
            elif instance_type.gpu is not gpu.gpu:
                reasons.append(
                    f"instanceTypes: {name} has {instance_type.gpu} GPUs, but gpu is {gpu.gpu}. Set gpu: {instance_type.gpu}, or another type"
                )
            elif instance_type.gpus < settings.gpu_count:
                reasons.append(
                    f"instanceTypes: {name} has {instance_type.gpus} GPU{'s' if instance_type.gpus > 1 else ''}, but gpuCount is {settings.gpu_count}. Set gpuCount: {instance_type.gpus}, or a larger type"
                )
            elif checkpoint_gib > PREFETCH_SHARE * container_memory_gib(
                instance_type
            ) and not _reads_weights_its_own_way(settings):
                reasons.append(
                    f"instanceTypes: {name} has {container_memory_gib(instance_type):.1f} GiB of memory for the engine; prefetching the checkpoint of {checkpoint_gib:.1f} GiB requires {checkpoint_gib / PREFETCH_SHARE:.1f}. Set a type with more memory, or engineArgs: [--safetensors-load-strategy, lazy] for slow reads"
                )
        if reasons:
            raise PlanError(reasons)
        return tuple(catalog[name] for name in settings.instance_types)
    enough = [k for k in catalog.values() if k.gpu is gpu.gpu and k.gpus >= settings.gpu_count and not k.fractional]
    # What is only believed, not known, is a warning of the plan and does not select another type.
    enough = [k for k in enough if offers(k, region, settings.capacity, believed=False)] or enough
    enough.sort(key=lambda k: (k.gpus, k.usd_per_hour))
    if not enough:
        raise PlanError(
            [f"gpuCount: found {settings.gpu_count}, more than any {gpu.label} instance has. Set a smaller gpuCount"]
        )
    smallest = min(k.gpus for k in enough)
    variant = enough[0].gpu_memory_gib
    alike = [k for k in enough if k.gpus == smallest and k.gpu_memory_gib == variant]
    roomy = [k for k in alike if container_memory_gib(k) * PREFETCH_SHARE >= checkpoint_gib]
    return tuple((roomy or alike[-1:])[:3])


def purchase_class(capacity: PurchaseOption) -> str:
    """EC2's usage class for a way to buy: a reservation holds on-demand instances."""
    return (PurchaseOption.ON_DEMAND if capacity is PurchaseOption.RESERVATION else capacity).value


def offers(instance_type: InstanceType, region: str, capacity: PurchaseOption, *, believed: bool = True) -> bool:
    """Whether a region offers a type for this purchase option, as far as the catalog knows; True for an unknown region.

    ``believed`` also applies what is believed about regions that sell a type through capacity blocks only.
    """
    if region not in known_regions():
        return True
    wanted = purchase_class(capacity)
    if believed and region in instance_type.capacity_block_only_in and not capacity.reserved:
        return False
    return region in instance_type.regions and wanted in instance_type.purchase


def _reads_weights_its_own_way(settings: Settings) -> bool:
    return any(arg.split("=")[0] in ("--safetensors-load-strategy", "--load-format") for arg in settings.engine_args)


def container_memory_gib(instance_type: InstanceType) -> float:
    """Memory of one engine container: the memory that ECS registers, minus a reserve for the system and the agent."""
    return instance_type.memory_gib - max(1.5, 0.06 * instance_type.memory_gib)
