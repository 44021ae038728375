"""The quantization that vLLM applies."""

from __future__ import annotations

from infra.planning.catalog.gpus import GpuSpec
from infra.planning.catalog.models import ModelArchitecture
from infra.settings import Settings


def quantization_of(settings: Settings, architecture: ModelArchitecture, gpu: GpuSpec) -> str:
    """The ``--quantization`` for this GPU; ``auto`` is FP8 if the GPU supports it and the checkpoint is not quantized."""
    if settings.quantization != "auto":
        return settings.quantization
    return "fp8" if gpu.has_fp8 and not architecture.quantization else ""


def cache_dtype_of(settings: Settings, architecture: ModelArchitecture) -> str:
    """The KV cache's data type: the setting, or the checkpoint's own."""
    return (architecture.cache_dtype or "auto") if settings.kv_cache_dtype == "auto" else settings.kv_cache_dtype
