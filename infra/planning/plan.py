"""The ServingPlan: everything that is decided, once, for every target. Values only; see ``make_plan``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from infra.planning.catalog.gpus import GpuSpec, InstanceType
from infra.planning.catalog.models import ModelArchitecture


@dataclass(frozen=True)
class MemoryFit:
    """How one GPU's memory divides, in GiB, and how many tokens of KV cache that leaves.

    ``kv_cache_tokens`` counts the cache of one copy of the model; each data-parallel copy has as many.
    ``max_full_length_sequences`` is that divided by ``max_model_len``: how many of the longest requests run at once before vLLM makes one wait.
    """

    fits: bool
    gpu_memory_gib: float
    usable_gib: float
    weights_gib: float
    overhead_gib: float
    kv_cache_gib: float
    kv_bytes_per_token: int
    kv_cache_tokens: int
    max_model_len: int
    max_full_length_sequences: float


@dataclass(frozen=True)
class EnginePlan:
    """The vLLM server: one container, one a GPU instance.

    ``args`` are for ``vllm serve MODEL``: model, host and port are left to the rendering. Sizes are of the container.
    """

    image: str
    args: tuple[str, ...]
    environment: Mapping[str, str]
    tensor_parallel_size: int
    data_parallel_size: int
    port: int
    memory_mib: int
    shared_memory_mib: int
    checkpoint_gib: float
    compile_cache_key: str
    stop_timeout_seconds: int


@dataclass(frozen=True)
class GatewayPlan:
    """The front door. ``environment`` lacks what only a rendering knows: discovery, capacity, keys, stack."""

    image: str
    count: int
    cpu_units: int
    memory_mib: int
    port: int
    metrics_port: int
    environment: Mapping[str, str]
    drain_timeout_seconds: int
    stop_timeout_seconds: int
    idle_timeout_seconds: int


@dataclass(frozen=True)
class ReplicaPlan:
    """GPU instances and how many. ``instance_types`` is in order of preference."""

    instance_types: tuple[InstanceType, ...]
    gpu: GpuSpec
    gpu_count: int
    min_replicas: int
    max_replicas: int
    scale_down_seconds: int
    expected_cold_start_seconds: int
    startup_timeout_seconds: int
    scale_out_cooldown_seconds: int
    target_demand_per_replica: int
    root_volume_gib: int
    root_volume_throughput_mib_per_second: int
    root_volume_iops: int


@dataclass(frozen=True)
class CostItem:
    """One line of the bill: US dollars an hour while idle (minReplicas run) and while active (one more at least)."""

    name: str
    usd_per_hour_idle: float
    usd_per_hour_active: float


@dataclass(frozen=True)
class CostPlan:
    """What the stack costs at list price, on demand, before data transfer and tax.

    ``usd_per_cold_start`` is what one costs before the first token: the instance, and what it reads and downloads.
    """

    items: tuple[CostItem, ...]
    usd_per_cold_start: float
    region: str
    priced_on: str

    @property
    def usd_per_hour_idle(self) -> float:
        """Dollars an hour with minReplicas running."""
        return round(sum(item.usd_per_hour_idle for item in self.items), 4)

    @property
    def usd_per_hour_active(self) -> float:
        """Dollars an hour with one replica running, or minReplicas where that is more."""
        return round(sum(item.usd_per_hour_active for item in self.items), 4)

    def usd_per_month(self, active_hours_per_day: float) -> float:
        """Dollars a month of 730 hours with so many active hours a day."""
        active = 730 * active_hours_per_day / 24
        return round(active * self.usd_per_hour_active + (730 - active) * self.usd_per_hour_idle, 2)


@dataclass(frozen=True)
class ServingPlan:
    """What runs where, with which arguments, whether it fits, and what it costs."""

    model: str
    model_revision: str
    served_model_name: str
    architecture: ModelArchitecture
    memory: MemoryFit
    engine: EnginePlan
    gateway: GatewayPlan
    replicas: ReplicaPlan
    cost: CostPlan
    warnings: tuple[str, ...] = field(default=())
