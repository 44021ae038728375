"""GPUs, and the EC2 instance types that have them."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from infra.settings import Gpu

_DATA = Path(__file__).with_name("gpus.json")


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

    @property
    def has_fp8(self) -> bool:
        """Whether the GPU has native FP8 matrix multiplication: Ada and Hopper."""
        return self.compute_capability >= 89

    @property
    def large(self) -> bool:
        """Whether vLLM uses its batch limits for large GPUs: 70 GiB or more, except the A100."""
        return self.memory_gib >= 70 and self.gpu is not Gpu.A100


@dataclass(frozen=True)
class InstanceType:
    """One EC2 instance type. The price is on-demand, Linux, us-east-1, in US dollars per hour."""

    name: str
    gpu: Gpu
    gpus: int
    vcpus: int
    memory_gib: int
    gpu_memory_gib: float
    usd_per_hour: float
    priced_on: str


@functools.cache
def gpu_specs() -> dict[Gpu, GpuSpec]:
    """Every GPU class of the catalog."""
    rows = json.loads(_DATA.read_text())["gpus"]
    return {Gpu(name): GpuSpec(gpu=Gpu(name), **row) for name, row in rows.items()}


@functools.cache
def known_instance_types() -> dict[str, InstanceType]:
    """Every instance type of the catalog, by name."""
    data = json.loads(_DATA.read_text())
    specs = gpu_specs()
    found = {}
    for name, row in data["instance_types"].items():
        gpu = Gpu(row["gpu"])
        found[name] = InstanceType(
            name=name,
            gpu=gpu,
            gpus=row["gpus"],
            vcpus=row["vcpus"],
            memory_gib=row["memory_gib"],
            gpu_memory_gib=row.get("gpu_memory_gib", specs[gpu].memory_gib),
            usd_per_hour=row["usd_per_hour"],
            priced_on=data["priced_on"],
        )
    return found
