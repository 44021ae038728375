"""Finds settings that cannot work, before anything is created, and reports what to set instead."""

from __future__ import annotations

from collections.abc import Iterator

from infra.planning.architecture.quantized import in_vllm, methods
from infra.planning.catalog.gpus import GpuSpec, gpu_specs
from infra.planning.catalog.models import ModelArchitecture
from infra.planning.quantization import cache_dtype_of, quantization_of
from infra.settings import Settings

_CHECKPOINT_ONLY = ("awq", "gptq", "compressed-tensors")  # vLLM reads these, but does not make them


def refusals(settings: Settings, architecture: ModelArchitecture, gpu: GpuSpec) -> list[str]:
    """All problems, except memory, that prevent this model from running with these settings on this GPU."""
    found = []
    chosen = quantization_of(settings, architecture, gpu)
    method = chosen or architecture.quantization
    if architecture.problem and not settings.engine_image:
        found.append(
            f"model: {settings.model}: {architecture.problem}. Set another model, or engineImage to an image whose vLLM does"
        )
    if chosen and chosen not in in_vllm() and not settings.engine_image:
        found.append(
            f"quantization: found {chosen}, which vLLM no longer supports. Set quantization: fp8, or model to a checkpoint that is quantized already"
        )
    known = methods().get(chosen)
    needed = max(known.capability if known else 0, architecture.minimum_capability)
    if gpu.compute_capability < needed:
        able = [f"gpu: {other.gpu}" for other in gpu_specs().values() if other.compute_capability >= needed]
        found.append(
            f"quantization: {method} needs compute capability {needed / 10} and an {gpu.label} has {gpu.compute_capability / 10}. Set {' or '.join(able) or 'model to a checkpoint with another quantization'}"
        )
    if chosen and architecture.quantization and chosen != architecture.quantization:
        found.append(
            f"quantization: found {settings.quantization}, but the checkpoint of {settings.model} is {architecture.quantization} already. Remove quantization, or set {architecture.quantization}"
        )
    if settings.quantization in _CHECKPOINT_ONLY and not architecture.quantization:
        found.append(
            f"quantization: found {settings.quantization}, but {settings.model} is not such a checkpoint, and vLLM cannot convert it. Set model to a checkpoint with that quantization, or quantization: fp8"
        )
    if settings.speculative and architecture.kind == "pooling":
        found.append(
            f"speculative: found {settings.speculative}, but {settings.model} generates no text. Remove speculative"
        )
    cache, own = cache_dtype_of(settings, architecture), settings.kv_cache_dtype == "auto"
    if cache.startswith("fp8") and not gpu.has_fp8:
        found.append(
            f"kvCacheDtype: found {f'auto, which is {cache} for {settings.model},' if own else f'{cache},'} which vLLM does not support on an {gpu.label} (compute capability {gpu.compute_capability / 10}, requires 8.9). Set kvCacheDtype: {'bfloat16' if own else 'auto'}, or gpu: l4"
        )
    if settings.kv_cache_dtype == "bfloat16" and not gpu.has_bf16:
        found.append(
            f"kvCacheDtype: found bfloat16, which an {gpu.label} does not support (compute capability {gpu.compute_capability / 10}, requires 8.0). Set kvCacheDtype: auto, or gpu: a10g"
        )
    if why := _splits_badly(architecture, settings.tensor_parallel_size):
        good = [str(n) for n in (1, 2, 4, 8) if not _splits_badly(architecture, n)]
        copies = "" if settings.data_parallel_size == 1 else f" with dataParallelSize {settings.data_parallel_size}"
        advice = f"Set gpuCount to {' or '.join(good)}" if good else "Set model to another checkpoint"
        found.append(
            f"gpuCount: found {settings.gpu_count}{copies}, which does not divide {why} of {settings.model}. {advice}"
        )
    if architecture.num_experts and settings.data_parallel_size > 1:
        found.append(
            f"dataParallelSize: found {settings.data_parallel_size}, but {settings.model} is a mixture of experts, whose copies vLLM runs in lockstep over all GPUs. Set dataParallelSize: 1, or more replicas with maxReplicas"
        )
    if settings.max_model_len > architecture.max_position_embeddings:
        found.append(
            f"maxModelLen: found {settings.max_model_len}, but {settings.model} supports at most {architecture.max_position_embeddings} tokens of context. Set maxModelLen to at most {architecture.max_position_embeddings}"
        )
    if not architecture.sees:
        found += _limits_without_eyes(settings)
    return found


def _limits_without_eyes(settings: Settings) -> Iterator[str]:
    # Pulumi.yaml sets the default for every stack, so a default cannot be distinguished from the same value set by the user.
    for key, name in (("imageLimit", "image_limit"), ("videoLimit", "video_limit")):
        limit = getattr(settings, name)
        if limit not in (0, Settings.model_fields[name].default):
            yield (
                f"{key}: found {limit}, but {settings.model} is a text-only model. Set {key}: 0, or a vision model such as Qwen/Qwen2.5-VL-7B-Instruct"
            )


def _splits_badly(architecture: ModelArchitecture, tensor_parallel: int) -> str:
    """The part of the model that cannot be split evenly over this many GPUs; empty if there is none."""
    heads, kv_heads = architecture.num_attention_heads, architecture.num_key_value_heads
    if heads % tensor_parallel:
        return f"the {heads} attention heads"
    if kv_heads % tensor_parallel and tensor_parallel % kv_heads:
        return f"the {kv_heads} KV heads"
    inner = architecture.moe_intermediate_size if architecture.num_experts else architecture.intermediate_size
    if tensor_parallel > 1 and architecture.weight_block > 0 and inner % (tensor_parallel * architecture.weight_block):
        return f"the feed-forward size {inner} in blocks of {architecture.weight_block} quantized weights"
    return ""
