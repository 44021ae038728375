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
