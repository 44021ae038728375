"""Whether a stack's model fits in the memory of its GPUs."""

from __future__ import annotations

from infra.planning.catalog.gpus import GpuSpec, InstanceType
from infra.planning.catalog.models import ModelArchitecture
from infra.planning.memory import NOTHING, Extras, fit
from infra.planning.plan import MemoryFit
from infra.planning.quantization import cache_dtype_of, quantization_of
from infra.settings import FastBoot, Settings


def memory_fit(
    settings: Settings,
    architecture: ModelArchitecture,
    gpu: GpuSpec,
    instance_types: tuple[InstanceType, ...],
    extras: Extras = NOTHING,
) -> MemoryFit:
    """How the model fits in the memory of the instance types' GPUs."""
    return fit(
        architecture,
        gpu,
        gpu_memory_gib=min(instance_type.gpu_memory_gib for instance_type in instance_types),
        tensor_parallel=settings.tensor_parallel_size,
        utilization=settings.gpu_memory_utilization,
        quantization=quantization_of(settings, architecture, gpu),
        kv_cache_dtype=cache_dtype_of(settings, architecture),
        max_model_len=settings.max_model_len,
        batched_tokens=settings.max_num_batched_tokens,
        sequences=settings.max_num_seqs,
        performance_mode=settings.performance_mode,
        compiles=settings.fast_boot is not FastBoot.EAGER,
        startup_plan=settings.fast_boot is FastBoot.COMPILE_CACHE,
        prefix_caching=settings.enable_prefix_caching,
        extras=extras,
        pipeline_parallel=settings.pipeline_parallel_size,
        cpu_offload_gib=settings.cpu_offload_gib,
    )
