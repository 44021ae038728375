"""Which quantization vLLM applies."""

from __future__ import annotations

from infra.planning.catalog.gpus import GpuSpec
from infra.planning.catalog.models import ModelArchitecture
from infra.settings import Settings


def quantization_of(settings: Settings, architecture: ModelArchitecture, gpu: GpuSpec) -> str:
    """The ``--quantization`` for this GPU: what is set, and for ``auto`` FP8 where the GPU has it and nothing is quantized yet."""
    if settings.quantization != "auto":
        return settings.quantization
    return "fp8" if gpu.has_fp8 and not architecture.quantization else ""
