"""Estimates weights, working memory and KV cache of one GPU, in GiB.

vLLM uses ``gpu_memory_utilization`` of the memory that CUDA reports. It loads the weights, runs a batch of the maximum size
to measure peak activation memory, and allocates the rest to the KV cache. This module predicts all three. Its constants
were measured on an H200 with vLLM 0.26 (docs/benchmarks/engine compares predictions with every measured configuration).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from infra.planning.architecture.caches import bytes_per_token, sequence_bytes, state_blocks, width_of
from infra.planning.catalog.gpus import GpuSpec
from infra.planning.catalog.models import GIB, ModelArchitecture
from infra.planning.plan import MemoryFit
from infra.planning.weights import weights_gib

MIB = 1 << 20
# Memory that the driver, cuBLAS and the runtime allocate outside PyTorch before the cache is sized.
NON_TORCH_GIB = 0.22
TENSOR_PARALLEL_GIB = (
    0.35  # buffers for all-reduce: between -0.2 and 0.35 was measured on two and four GPUs; a conservative value
)
PEAK_REST_GIB = 0.03  # small buffers, independent of the batch
# vLLM's second model runner stores a batch's logits in 16 bits and samples from them directly. The first one, which vLLM
# uses for mixtures of experts, stores them in 16 bits and four times in 32 bits.
LOGIT_BYTES, LOGIT_BYTES_OF_FIRST_RUNNER = 2, 18
# Speculative decoding uses the logits of each draft token and of the token before, in 16 and in 32 bits.
LOGIT_BYTES_OF_A_GUESS = 6
VISION_GIB = 1.0  # memory of an encoder's batch; not measured
# CUDA graphs: a constant per layer, and per layer and sequence of the largest graph.
GRAPH_GIB_PER_LAYER, GRAPH_GIB_PER_LAYER_AND_SEQUENCE = 0.0025, 0.000037
LARGEST_GRAPH = 512
# A start with VLLM_ENABLE_STARTUP_PLAN leaves this and the graphs' memory free; a first start does not.
STARTUP_PLAN_MARGIN_GIB = 150 * MIB / GIB
KV_BLOCK_TOKENS = 16
AUTOMATIC_LENGTH_STEP_TOKENS = 1024
STATE_BLOCKS_SHARE = (
    0.9  # vLLM does not start with one sequence too many, so that the estimate must not be above the truth
)


@dataclass(frozen=True)
class Extras:
    """What is loaded in addition to the model: a draft model, adapters. GiB and bytes are totals over tensor-parallel GPUs.

    ``draft_tokens`` is the number of draft tokens per sequence in a step of speculative decoding.
    """

    weights_gib: float = 0.0
    kv_bytes_per_token: int = 0
    draft_tokens: int = 0


NOTHING = Extras()


def kv_bytes_per_token(architecture: ModelArchitecture, kv_cache_dtype: str) -> int:
    """KV cache bytes that each token adds, over all GPUs: of the layers that attend to the whole context."""
    return bytes_per_token(architecture.caches, width_of(kv_cache_dtype))


def default_batch(gpu: GpuSpec, performance_mode: str = "balanced") -> tuple[int, int]:
    """vLLM's default (max_num_batched_tokens, max_num_seqs) for the GPU; ``throughput`` doubles both."""
    tokens, sequences = (8192, 1024) if gpu.large else (2048, 256)
    return (2 * tokens, 2 * sequences) if performance_mode == "throughput" else (tokens, sequences)


def overhead_gib(
    architecture: ModelArchitecture,
    tensor_parallel: int,
    batched_tokens: int,
    sequences: int,
    *,
    eight_bit: bool = False,
    compiles: bool = True,
    draft_tokens: int = 0,
) -> float:
    """Peak working memory of one GPU, in addition to weights and cache.

    It is the largest of three: the widest point of a forward pass, the logits of a full batch, and, during a start that
    compiles, a second copy of the embedding table plus the hidden states.
    """
    hidden = architecture.hidden_size
    inner = max(architecture.intermediate_size, architecture.moe_intermediate_size)
    states = batched_tokens * hidden * 2 * 2
    forward = batched_tokens * (3 * inner / tensor_parallel + 4 * hidden) * 2
    if architecture.num_experts:
        # Each token is routed to several experts: the inputs and outputs of each, and the combined result.
        rows = batched_tokens * architecture.experts_per_token
        forward = 2 * rows * (3 * architecture.moe_intermediate_size / tensor_parallel + hidden) * 2 + states
    elif eight_bit:
        forward += batched_tokens * (inner / tensor_parallel - hidden)  # an 8-bit copy of the activation
    width = LOGIT_BYTES_OF_FIRST_RUNNER if architecture.num_experts else LOGIT_BYTES
    if draft_tokens:
        width = max(width, LOGIT_BYTES_OF_A_GUESS * (1 + draft_tokens))
    logits = sequences * architecture.vocab_size * width + states
    embedding = architecture.vocab_size * hidden * 2 / tensor_parallel + states if compiles else 0.0
    peak = max(forward, logits, embedding) / GIB + PEAK_REST_GIB
    parallel = TENSOR_PARALLEL_GIB if tensor_parallel > 1 else 0.0
    return NON_TORCH_GIB + parallel + (VISION_GIB if architecture.sees else 0.0) + peak


def graphs_gib(architecture: ModelArchitecture, sequences: int) -> float:
    """Memory of the CUDA graphs for batches of up to this many sequences."""
    largest = min(2 * sequences, LARGEST_GRAPH)
    per_layer = GRAPH_GIB_PER_LAYER + GRAPH_GIB_PER_LAYER_AND_SEQUENCE * min(largest, sequences)
    return architecture.num_hidden_layers * per_layer


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
    performance_mode: str = "balanced",
    compiles: bool = True,
    startup_plan: bool = False,
    prefix_caching: bool = True,
    extras: Extras = NOTHING,
    pipeline_parallel: int = 1,
    cpu_offload_gib: float = 0.0,
) -> MemoryFit:
    """Divide a GPU's memory.

    With ``max_model_len`` 0, it is the longest context length, up to the model's own, of which two sequences fit (or one, if
    it would otherwise be below 1,024 tokens). ``startup_plan`` accounts for the memory that a second start leaves free.
    With ``pipeline_parallel``, the GPU is one of the largest group of layers. ``cpu_offload_gib`` of its weights stay in the
    instance's memory.
    """
    usable = gpu_memory_gib * utilization
    weights = weights_gib(architecture, quantization, tensor_parallel)
    layers = -(-architecture.num_hidden_layers // pipeline_parallel) / architecture.num_hidden_layers
    if pipeline_parallel > 1:  # the first and the last group also hold a table each: embeddings, output head
        table = 2 * architecture.vocab_size * architecture.hidden_size / tensor_parallel / GIB
        tables = table if architecture.tie_word_embeddings else 2 * table
        weights = max(weights - tables, 0.0) * layers + table
    weights += extras.weights_gib / tensor_parallel
    weights -= min(cpu_offload_gib, weights)
    default_tokens, default_sequences = default_batch(gpu, performance_mode)
    batched, batch = batched_tokens or default_tokens, sequences or default_sequences
    eight_bit = quantization == "fp8" or (architecture.quantization != "" and architecture.weight_bits == 8)
    overhead = overhead_gib(
        architecture,
        tensor_parallel,
        batched,
        batch,
        eight_bit=eight_bit,
        compiles=compiles,
        draft_tokens=extras.draft_tokens,
    )
    if startup_plan:
        overhead += graphs_gib(architecture, batch) + STARTUP_PLAN_MARGIN_GIB
    per_token = kv_bytes_per_token(architecture, kv_cache_dtype) + extras.kv_bytes_per_token
    free = usable - weights - overhead
    room, states = max(free, 0.0) * GIB, 2 if prefix_caching else 1

    def taken(length: int) -> float:
        own = sequence_bytes(architecture.caches, length, width_of(kv_cache_dtype), tensor_parallel, batched, states)
        return own * layers + extras.kv_bytes_per_token * length * _head_share(architecture, tensor_parallel)

    limit = architecture.max_position_embeddings
    if not architecture.keeps_cache:
        length, tokens = max_model_len or limit, 0
    else:
        length = max_model_len or _automatic_length(limit, room, taken, 1 if architecture.kind == "pooling" else 2)
        tokens = int(room / taken(length) * length) // KV_BLOCK_TOKENS * KV_BLOCK_TOKENS if length else 0
    blocks = int(
        state_blocks(architecture.caches, room, width_of(kv_cache_dtype), tensor_parallel) * STATE_BLOCKS_SHARE
    )
    return MemoryFit(
        fits=free > 0 and length > 0 and (length <= tokens or not architecture.keeps_cache),
        gpu_memory_gib=gpu_memory_gib,
        usable_gib=round(usable, 2),
        weights_gib=round(weights, 2),
        overhead_gib=round(overhead, 2),
        kv_cache_gib=round(max(free, 0.0), 2),
        kv_bytes_per_token=per_token,
        kv_cache_tokens=tokens,
        max_model_len=length,
        max_full_length_sequences=round(tokens / length, 1) if length else 0.0,
        most_sequences=blocks if 0 < blocks < batch else 0,
    )


def _head_share(architecture: ModelArchitecture, tensor_parallel: int) -> float:
    # With fewer KV heads than GPUs, heads are replicated.
    return max(architecture.num_key_value_heads // tensor_parallel, 1) / architecture.num_key_value_heads


def _automatic_length(limit: int, room: float, taken: Callable[[int], float], whole: int) -> int:
    """The model's own length if ``whole`` sequences of it fit, else the longest, in steps, of which two do, or one."""
    if whole * taken(limit) <= room:
        return limit
    step = AUTOMATIC_LENGTH_STEP_TOKENS
    low, high = 0, -(-limit // step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if 2 * taken(middle * step) <= room else (low, middle)
    if low:
        return min(limit, low * step)
    shortest = min(step, limit)
    return shortest if taken(shortest) <= room else min(int(room / max(taken(1), 1.0)), shortest)
