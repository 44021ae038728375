"""The ServingPlan, shared by all targets. It contains values only; ``make_plan`` creates it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from infra.inputs import Input
from infra.planning.catalog.gpus import GpuSpec, InstanceType
from infra.planning.catalog.models import ModelArchitecture

HOURS_PER_MONTH = 730


@dataclass(frozen=True)
class MemoryFit:
    """How one GPU's memory is divided, in GiB, and the number of KV cache tokens that remain.

    ``kv_cache_tokens`` is the cache of one copy of the model; each data-parallel copy has its own.
    ``max_full_length_sequences`` is that divided by ``max_model_len``: the number of maximum-length requests that can run
    before vLLM queues one. ``most_sequences`` is the largest ``max_num_seqs`` with which vLLM starts, where that is below the
    number asked for, or its default; else 0.
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
    most_sequences: int = 0


@dataclass(frozen=True)
class EnginePlan:
    """The vLLM server: one container per GPU instance.

    ``args`` are for ``vllm serve MODEL``; the target adds model, host and port. Sizes are those of the container.
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
    """The gateway. The target adds the rest of ``environment``: discovery, capacity, keys, stack."""

    image: Input[str]
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
    """The GPU instances and their number. ``instance_types`` is in order of preference."""

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
    """One cost item: US dollars per hour while idle (minReplicas run) and while active (at least one replica runs).

    ``source`` is where its price is from; ``note`` says what the item assumes.
    """

    name: str
    usd_per_hour_idle: float
    usd_per_hour_active: float
    source: str = ""
    note: str = ""


@dataclass(frozen=True)
class WakeItem:
    """One cost of a wake: the cold start, what it downloads and reads, and the idle time until the stack is at zero again."""

    name: str
    usd: float
    source: str = ""


@dataclass(frozen=True)
class CostPlan:
    """The stack's cost, excluding transfer of requests and responses, and tax.

    ``usd_per_cold_start`` is the cost until the first token: the instance, and what it reads and downloads.
    ``unknown`` is why the instances' real price is not known (another region, Spot); empty: the price is known.
    """

    items: tuple[CostItem, ...]
    usd_per_cold_start: float
    region: str
    priced_on: str
    wake_items: tuple[WakeItem, ...] = ()
    wakes_per_day: float = 0
    wake_seconds: int = 0
    usd_once: float = 0.0
    price_source: str = ""
    unknown: str = ""

    @property
    def usd_per_hour_idle(self) -> float:
        """US dollars per hour with minReplicas running."""
        return round(sum(item.usd_per_hour_idle for item in self.items), 4)

    @property
    def usd_per_hour_active(self) -> float:
        """US dollars per hour with one replica running, or minReplicas if that is more."""
        return round(sum(item.usd_per_hour_active for item in self.items), 4)

    @property
    def usd_per_wake(self) -> float:
        """US dollars that one wake costs beyond the hours in which requests are served."""
        return round(sum(item.usd for item in self.wake_items), 4)

    def wakes_a_day(self, active_hours_per_day: float) -> float:
        """Wakes per day: ``wakes_per_day``, or as many as fit beside the active hours."""
        spare = max(0.0, 24 - active_hours_per_day) * 3600
        return min(self.wakes_per_day, spare / self.wake_seconds) if self.wake_seconds else 0.0

    def bill(self, active_hours_per_day: float) -> tuple[tuple[str, float, str], ...]:
        """The lines of a month's bill, as (name, US dollars, source of the price), with these active hours per day."""
        active = HOURS_PER_MONTH * active_hours_per_day / 24
        idle = HOURS_PER_MONTH - active
        wakes = self.wakes_a_day(active_hours_per_day) * HOURS_PER_MONTH / 24
        lines = [
            (
                f"{i.name} ({i.note})" if i.note else i.name,
                active * i.usd_per_hour_active + idle * i.usd_per_hour_idle,
                i.source,
            )
            for i in self.items
        ]
        lines += [(f"wakes: {i.name}", wakes * i.usd, i.source) for i in self.wake_items if wakes]
        return tuple(lines)

    def usd_per_month(self, active_hours_per_day: float) -> float:
        """US dollars per month of 730 hours, with the given active hours per day and the wakes between them."""
        return round(sum(usd for _, usd, _ in self.bill(active_hours_per_day)), 2)


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
