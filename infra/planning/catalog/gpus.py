"""GPUs, and the EC2 instance types that have them."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from infra.settings import Gpu

_GPUS, _INSTANCES = (Path(__file__).with_name(name) for name in ("gpus.json", "instances.json"))


@dataclass(frozen=True)
class GpuSpec:
    """One GPU class.

    ``memory_gib`` is the memory that CUDA reports, slightly less than in the data sheet.
    ``compute_capability`` is NVIDIA's SM version times ten: 86 for SM 8.6.
    """

    gpu: Gpu
    label: str
    memory_gib: float
    compute_capability: int
    multiprocessors: int
    memory_is_estimate: bool = False

    @property
    def has_fp8(self) -> bool:
        """Whether the GPU has native FP8 matrix multiplication: Ada, Hopper and Blackwell."""
        return self.compute_capability >= 89

    @property
    def has_bf16(self) -> bool:
        """Whether the GPU supports bfloat16, the type of nearly all checkpoints: Ampere and newer."""
        return self.compute_capability >= 80

    @property
    def large(self) -> bool:
        """Whether vLLM uses its batch limits for large GPUs: 70 GiB or more, except the A100."""
        return self.memory_gib >= 70 and self.gpu is not Gpu.A100


@dataclass(frozen=True)
class InstanceType:
    """One EC2 instance type.

    Attributes:
        gpu_memory_gib: the memory of one GPU, or of the fraction of one, as CUDA reports it.
        ebs_mb_per_second: the maximum throughput to EBS volumes.
        usd_per_hour: the price in ``price_region``, Linux.
        price_source: where the price is from.
        purchase: the usage classes of EC2 that the type supports: on-demand, spot, capacity-block.
        regions: the regions that offer it.
        capacity_block_only_in: regions that are believed to sell it through capacity blocks only.
        priced_as: on-demand, or spot if the current Spot price was asked.
        fractional: whether it has a fraction of a GPU, which requires NVIDIA's GRID driver.
    """

    name: str
    gpu: Gpu
    gpus: int
    vcpus: int
    memory_gib: int
    gpu_memory_gib: float
    usd_per_hour: float
    priced_on: str
    price_source: str
    price_region: str
    nvme_gb: int
    ebs_mb_per_second: float
    network: str
    purchase: tuple[str, ...]
    regions: tuple[str, ...]
    capacity_block_only_in: tuple[str, ...] = ()
    fractional: bool = False
    priced_as: str = "on-demand"


@functools.cache
def gpu_specs() -> dict[Gpu, GpuSpec]:
    """Every GPU class of the catalog."""
    rows = json.loads(_GPUS.read_text())["gpus"]
    return {Gpu(name): GpuSpec(gpu=Gpu(name), **row) for name, row in rows.items()}


@functools.cache
def known_instance_types() -> dict[str, InstanceType]:
    """Every instance type of the catalog, by name."""
    data = json.loads(_INSTANCES.read_text())
    specs = gpu_specs()
    found = {}
    for name, row in data["types"].items():
        gpu = Gpu(row["gpu"])
        offer = data["offers"].get(name) or data["offers"][name.partition(".")[0]]
        common = {
            "priced_on": data["priced_on"],
            "price_source": data["price_source"],
            "gpu_memory_gib": specs[gpu].memory_gib,
        }
        values = common | row | {key: tuple(value) for key, value in offer.items()} | {"gpu": gpu}
        found[name] = InstanceType(name=name, **{"price_region": data["price_region"], **values})
    return found


@functools.cache
def known_regions() -> frozenset[str]:
    """Every region for which the catalog knows what is offered."""
    return frozenset(region for instance_type in known_instance_types().values() for region in instance_type.regions)
