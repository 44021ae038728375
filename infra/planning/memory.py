"""Does it fit? Weights, working memory and KV cache of one GPU, in GiB.

vLLM takes ``gpu_memory_utilization`` of what CUDA reports, loads the weights, runs one batch of the largest size to see
what the activations peak at, and gives the rest to the KV cache. This module predicts each of the three.
"""

from __future__ import annotations

from infra.planning.catalog.gpus import GpuSpec
from infra.planning.catalog.models import GIB, ModelArchitecture
from infra.planning.plan import MemoryFit

# All figures: one H200, vLLM 0.26, docs/benchmarks/engine. What vLLM holds outside PyTorch before it sizes the cache:
NON_TORCH_GIB = 0.22
TENSOR_PARALLEL_GIB = 0.35  # NCCL's buffers; not measured
# The sampler holds a batch's logits in the model's 16 bits and twice in 32 bits: more than was seen, on the safe side.
SAMPLER_BYTES_PER_LOGIT = 10
# Small batches do not get below this: 0.74 GiB for 4B with 2,048 tokens and 256 sequences.
LEAST_ACTIVATION_GIB = 0.75
WEIGHTS_OVERHEAD = 1.009  # buffers beside the parameters: 7.56 GiB reported for 7.49 GiB of parameters
KV_BLOCK_TOKENS = 16
AUTOMATIC_LENGTH_STEP_TOKENS = 1024


def weight_bytes(architecture: ModelArchitecture, quantization: str) -> float:
    """Bytes of the checkpoint as vLLM holds it, all GPUs together.

    ``quantization`` is the stack's setting: ``fp8`` on a 16-bit checkpoint quantizes its linear layers at load.
    """
    bits = architecture.weight_bits
    if bits == 16 and quantization == "fp8":
        bits = 8
    elif bits == 16 and quantization == "bitsandbytes":
        bits = 4
    # A group of 128 weights carries a 16-bit scale (and a zero point in AWQ and GPTQ); FP8 blocks of 128 x 128 almost nothing.
    scale_bits = 0.25 if bits == 4 else 0.0
    linear = architecture.linear_parameters * (bits + scale_bits) / 8
    return linear + 2 * (architecture.embedding_parameters + architecture.vision_parameters)


def kv_bytes_per_token(architecture: ModelArchitecture, kv_cache_dtype: str) -> int:
    """Bytes of KV cache one token takes, all GPUs together: layers x KV heads x head dimension x 2 (K and V) x bytes."""
    width = 1 if kv_cache_dtype.startswith("fp8") else 2
    return architecture.num_hidden_layers * architecture.num_key_value_heads * architecture.head_dim * 2 * width


def default_batch(gpu: GpuSpec) -> tuple[int, int]:
    """vLLM's own (max_num_batched_tokens, max_num_seqs) for the GPU."""
    return (8192, 1024) if gpu.large else (2048, 256)


def overhead_gib(architecture: ModelArchitecture, tensor_parallel: int, batched_tokens: int, sequences: int) -> float:
    """Peak working memory of one GPU beside weights and cache: the larger of forward pass and sampler."""
    inner = max(architecture.intermediate_size, architecture.moe_intermediate_size)
    forward = batched_tokens * (3 * inner / tensor_parallel + 4 * architecture.hidden_size) * 2
    sampler = sequences * architecture.vocab_size * SAMPLER_BYTES_PER_LOGIT
    vision = 1.0 if architecture.sees else 0.0
    peak = max(forward / GIB, sampler / GIB, LEAST_ACTIVATION_GIB)
    return NON_TORCH_GIB + (TENSOR_PARALLEL_GIB if tensor_parallel > 1 else 0) + vision + peak


def fit(
    architecture: ModelArchitecture,
    gpu: GpuSpec,
    *,
    gpu_memory_gib: float,
    tensor_parallel: int,
    utilization: float,
    quantization: str,
    kv_cache_dtype: str,
    max_model_len: int,
    batched_tokens: int,
    sequences: int,
) -> MemoryFit:
    """Divide a GPU's memory.

    ``max_model_len`` of 0 takes the longest length, up to the model's own, of which two fit at once (or, where that is
    less than 1,024 tokens, of which one fits).
    """
    usable = gpu_memory_gib * utilization
    weights = weight_bytes(architecture, quantization) * WEIGHTS_OVERHEAD / tensor_parallel / GIB
    batched = batched_tokens or default_batch(gpu)[0]
    overhead = overhead_gib(architecture, tensor_parallel, batched, sequences or default_batch(gpu)[1])
    per_token = kv_bytes_per_token(architecture, kv_cache_dtype)
    # A GPU holds its share of the KV heads; with fewer heads than GPUs, heads are kept more than once.
    share = max(architecture.num_key_value_heads // tensor_parallel, 1) / architecture.num_key_value_heads
    free = usable - weights - overhead
    blocks = int(max(free, 0.0) * GIB / (per_token * share)) // KV_BLOCK_TOKENS
    tokens = blocks * KV_BLOCK_TOKENS
    length = max_model_len or _automatic_length(architecture.max_position_embeddings, tokens)
    return MemoryFit(
        fits=free > 0 and 0 < length <= tokens,
        gpu_memory_gib=gpu_memory_gib,
        usable_gib=round(usable, 2),
        weights_gib=round(weights, 2),
        overhead_gib=round(overhead, 2),
        kv_cache_gib=round(max(free, 0.0), 2),
        kv_bytes_per_token=per_token,
        kv_cache_tokens=tokens,
        max_model_len=length,
        max_full_length_sequences=round(tokens / length, 1) if length else 0.0,
    )


def _automatic_length(limit: int, tokens: int) -> int:
    if tokens // 2 >= limit:
        return limit
    step = AUTOMATIC_LENGTH_STEP_TOKENS
    return min(limit, max(tokens // 2 // step * step, min(step, tokens)))
