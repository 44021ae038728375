"""The size of a model's weights: bytes of the checkpoint, and GiB of GPU memory once loaded by vLLM."""

from __future__ import annotations

from collections.abc import Iterator

from infra.planning.catalog.models import GIB, ModelArchitecture

MIB = 1 << 20
# PyTorch rounds tensors of 10 MiB and more to 2 MiB, and does not split off a remainder of 1 MiB or less.
LARGE_TENSOR_BYTES, STEP_BYTES, SMALLEST_REST_BYTES = 10 * MIB, 2 * MIB, MIB
NORMS_GIB, EIGHT_BIT_SCALES_GIB = 0.012, 0.035  # measured in the same runs, independent of the model's size


def weight_bits(architecture: ModelArchitecture, quantization: str) -> int:
    """Bits of a linear weight once loaded; ``quantization`` is vLLM's argument, empty for the checkpoint's own."""
    if architecture.weight_bits != 16:
        return architecture.weight_bits
    return {"fp8": 8, "bitsandbytes": 4}.get(quantization, 16)


def weight_bytes(architecture: ModelArchitecture, quantization: str) -> float:
    """Bytes of the weights as loaded by vLLM, over all GPUs.

    ``quantization`` of ``fp8`` on a 16-bit checkpoint quantizes its linear layers at load.
    """
    if architecture.checkpoint_bytes and not shrinks(architecture, quantization):
        return _checkpoint_loaded(architecture)
    return _computed_bytes(architecture, quantization) * measured_share(architecture)


def file_bytes(architecture: ModelArchitecture) -> float:
    """Bytes of the files: what is downloaded, cached and read. 32-bit files are twice as large as their loaded weights."""
    if architecture.checkpoint_bytes:
        return architecture.checkpoint_bytes
    return weight_bytes(architecture, "") * architecture.stored_bits / 16


def _checkpoint_loaded(architecture: ModelArchitecture) -> float:
    return architecture.checkpoint_bytes * 16 / architecture.stored_bits


def shrinks(architecture: ModelArchitecture, quantization: str) -> bool:
    """Whether vLLM quantizes a 16-bit checkpoint while it loads."""
    return architecture.weight_bits == 16 and weight_bits(architecture, quantization) != 16


def measured_share(architecture: ModelArchitecture) -> float:
    """The checkpoint's size where it was read, as a share of the computed one; 1 where it was not."""
    return (
        _checkpoint_loaded(architecture) / _computed_bytes(architecture, "") if architecture.checkpoint_bytes else 1.0
    )


def _computed_bytes(architecture: ModelArchitecture, quantization: str) -> float:
    smaller = _bytes_per_weight(weight_bits(architecture, quantization)) if shrinks(architecture, quantization) else 0
    linear = sum(tensor.elements * (smaller or tensor.bits / 8) for tensor in architecture.tensors if tensor.linear)
    layer = architecture.linear_parameters * architecture.draft_bits / 8 if architecture.draft_bits else linear
    draft = layer / architecture.num_hidden_layers * architecture.draft_layers
    return linear + draft + 2 * (architecture.embedding_parameters + architecture.vision_parameters)


def weights_gib(architecture: ModelArchitecture, quantization: str, tensor_parallel: int) -> float:
    """GiB of the weights on one GPU: each tensor's share, rounded like PyTorch's allocator."""
    bits = weight_bits(architecture, quantization)
    total = sum(
        count * _allocated(size)
        for count, size in _tensors(architecture, bits if shrinks(architecture, quantization) else 0, tensor_parallel)
    )
    scales = EIGHT_BIT_SCALES_GIB if bits == 8 else 0.0
    return total * measured_share(architecture) / GIB + NORMS_GIB + scales


def lora_bytes(architecture: ModelArchitecture, rank: int, adapters: int) -> float:
    """Bytes of the buffers for this many adapters of a rank: two low-rank 16-bit matrices per linear layer."""
    hidden, head = architecture.hidden_size, architecture.head_dim
    heads, kv_heads = architecture.num_attention_heads * head, architecture.num_key_value_heads * head
    attention = (hidden + heads) + 2 * (hidden + kv_heads) + (heads + hidden)
    inner = architecture.moe_intermediate_size if architecture.num_experts else architecture.intermediate_size
    feed_forward = max(architecture.num_experts, 1) * 3 * (hidden + inner)
    return 2.0 * adapters * rank * architecture.num_hidden_layers * (attention + feed_forward)


def _bytes_per_weight(bits: int) -> float:
    # A group of 128 weights has a 16-bit scale (and a zero point in AWQ and GPTQ); the scales of 128 x 128 FP8 blocks are
    # negligible.
    return (bits + (0.25 if bits == 4 else 0.0)) / 8


def _tensors(architecture: ModelArchitecture, smaller: int, tensor_parallel: int) -> Iterator[tuple[int, float]]:
    """(count, bytes each) of the tensors on one GPU. ``smaller`` is the width that linear layers are quantized to at load, or 0."""
    for tensor in architecture.tensors:
        width = _bytes_per_weight(smaller) if smaller and tensor.linear else tensor.bits / 8
        heads = max(architecture.num_key_value_heads / tensor_parallel, 1) / architecture.num_key_value_heads
        yield tensor.count, (tensor.split / tensor_parallel + tensor.kv * heads + tensor.whole) * width
    tables = 1 if architecture.tie_word_embeddings else 2
    yield tables, 2.0 * architecture.vocab_size * architecture.hidden_size / tensor_parallel
    if architecture.extra_parameters:
        yield 1, 2.0 * architecture.extra_parameters
    if architecture.sees:  # replicated on each GPU: --mm-encoder-tp-mode data
        yield 1, 2.0 * architecture.vision_parameters


def _allocated(size: float) -> float:
    rest = -size % STEP_BYTES
    return size + rest if size >= LARGE_TENSOR_BYTES and rest <= SMALLEST_REST_BYTES else size
