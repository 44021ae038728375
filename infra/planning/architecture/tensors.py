"""A model's tensors: how many elements each kind of layer has, how GPUs divide them, and in how many bits they are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from infra.planning.architecture.caches import Cache
from infra.planning.architecture.config import Reader, mapping
from infra.planning.architecture.layers import Layer, pure_mamba
from infra.planning.architecture.quantized import SIXTEEN, Quantized

_UNGATED = frozenset({
    "gpt2", "opt", "gpt_neox", "gptj", "gpt_neo", "bloom", "falcon", "mpt", "phi", "starcoder2", "gpt_bigcode", "codegen", "nemotron", "nemotron_h",
    "bert", "roberta", "xlm-roberta", "whisper", "distilbert", "electra", "mpnet", "persimmon", "gpt_neox_japanese", "camembert", "arcee", "RefinedWeb", "RefinedWebModel",
})  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """``count`` tensors of one shape. GPUs divide ``split`` elements, KV heads divide ``kv``, and each GPU has all of ``whole``.

    ``bits`` is the width in the checkpoint, with scales; ``linear`` tensors are those that ``--quantization fp8`` shrinks.
    """

    count: int
    split: float = 0.0
    kv: float = 0.0
    whole: float = 0.0
    bits: float = SIXTEEN
    linear: bool = False

    @property
    def elements(self) -> float:
        """Elements of all of them, over all GPUs."""
        return self.count * (self.split + self.kv + self.whole)


@dataclass(frozen=True)
class Sizes:
    """The numbers that tensors and caches are computed from."""

    hidden: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    experts: int
    moe_inner: int
    matrices: int


def gated(text: Reader) -> bool:
    """Whether a feed-forward part has three matrices instead of two."""
    default = text.text("model_type") not in _UNGATED and not text.text("mlp_hidden_act").startswith("relu")
    return text.flag("gated_mlp", default)


def parts(text: Reader, sizes: Sizes, layers: Counter[Layer], quantized: Quantized) -> Iterator[Tensor]:
    """The tensors of all layers."""
    for layer, count in layers.items():
        yield from _attention(text, sizes, layer, count, quantized)
        if layer.mamba_beside:
            yield from _attention(text, sizes, Layer("mamba2", "none"), count, quantized)
        if layer.feed_forward in ("dense", "both"):
            inner = layer.inner or sizes.inner
            if sizes.experts and layer.feed_forward == "dense":
                inner = text.number("intermediate_size_mlp") or text.number("dense_intermediate_size") or inner
            width = quantized.width("dense")
            yield Tensor(count, split=(sizes.matrices - 1) * sizes.hidden * inner, bits=width, linear=True)
            yield Tensor(count, split=sizes.hidden * inner, bits=width, linear=True)
        if layer.feed_forward in ("experts", "both"):
            yield from _experts(text, sizes, count, quantized)


def _experts(text: Reader, sizes: Sizes, count: int, quantized: Quantized) -> Iterator[Tensor]:
    latent = text.number("moe_latent_size")
    hidden, width = latent or sizes.hidden, quantized.width("experts")
    one = sizes.experts * hidden * sizes.moe_inner
    yield Tensor(count, split=(sizes.matrices - 1) * one, bits=width, linear=True)
    yield Tensor(count, split=one, bits=width, linear=True)
    yield Tensor(count, whole=sizes.experts * sizes.hidden)
    if latent:
        yield Tensor(count, whole=2 * latent * sizes.hidden, bits=quantized.width("shared"), linear=True)
    shared = text.number("shared_expert_intermediate_size") or text.number("moe_shared_expert_intermediate_size")
    shared = shared or text.number("share_expert_dim") or text.number("shared_intermediate_size")
    if not shared:
        number = max(
            text.number(key)
            for key in ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
        )
        number = number or int(text.text("model_type").startswith("llama4"))
        shared = number * sizes.moe_inner
    if shared:
        yield Tensor(count, split=sizes.matrices * sizes.hidden * shared, bits=quantized.width("shared"), linear=True)


def _attention(text: Reader, sizes: Sizes, layer: Layer, count: int, quantized: Quantized) -> Iterator[Tensor]:
    hidden, kind = sizes.hidden, layer.attention
    if kind in ("full", "sliding", "chunked"):
        heads, kv_heads, head, value = attending(text, sizes, layer)
        width = quantized.width("attention")
        gate = 2 if text.flag("attn_output_gate") or text.text("model_type") == "qwen3_next" else 1
        values = 0 if kind == "full" and text.flag("attention_k_eq_v") else value
        yield Tensor(
            count, split=hidden * heads * head * gate, kv=hidden * kv_heads * (head + values), bits=width, linear=True
        )
        yield Tensor(count, split=heads * value * hidden, bits=width, linear=True)
    elif kind == "mla":
        rope, latent, value = (
            text.number("qk_rope_head_dim"),
            text.number("kv_lora_rank"),
            text.number("v_head_dim") or (_own_head(sizes) if _expands(text) else 128),
        )
        nope, rank = text.number("qk_nope_head_dim", 128), text.number("q_lora_rank")
        rank = 0 if "q_lora_rank" in text.values and not text.values["q_lora_rank"] else rank
        query = sizes.heads * (nope + rope)
        split = (rank or hidden) * query + latent * sizes.heads * (nope + value) + sizes.heads * value * hidden
        index = text.number("index_head_dim")
        whole = hidden * (rank + latent + rope) + index * (rank * text.number("index_n_heads") + hidden)
        yield Tensor(count, split=split, whole=whole, bits=quantized.width("attention"), linear=True)
    elif kind == "shared":
        yield from _shared_blocks(text, sizes, count, quantized)
    elif kind != "none":
        yield Tensor(count, split=recurrent(text, sizes, kind)[0], bits=quantized.width("linear"), linear=True)


def _shared_blocks(text: Reader, sizes: Sizes, count: int, quantized: Quantized) -> Iterator[Tensor]:
    """Zamba 2: a few transformer blocks that many layers use, each with adapters of its own."""
    hidden, wide = sizes.hidden, text.number("attention_hidden_size") or 2 * sizes.hidden
    rank, width = text.number("adapter_rank", 128), quantized.width("attention")
    blocks = 3 * wide * wide + wide * hidden + 3 * hidden * sizes.inner
    yield Tensor(max(text.number("num_mem_blocks"), 1), split=blocks, bits=width, linear=True)
    own = hidden * hidden + rank * (hidden + 2 * sizes.inner)
    if text.flag("use_shared_attention_adapter"):
        own += 3 * rank * 2 * wide
    yield Tensor(count, split=own, bits=width, linear=True)


def _expands(text: Reader) -> bool:
    """Whether vLLM caches keys and values although the model compresses them into a latent vector."""
    return text.text("model_type") == "minicpm3"


def _own_head(sizes: Sizes) -> int:
    return max(sizes.hidden // max(sizes.heads, 1), 1)


def attending(text: Reader, sizes: Sizes, layer: Layer) -> tuple[int, int, int, int]:
    """Heads, KV heads, and dimensions of a key and of a value, of one layer."""
    heads, kv_heads, head = sizes.heads, layer.kv_heads or sizes.kv_heads, sizes.head
    if layer.attention == "sliding":
        heads = text.number("swa_num_attention_heads") or heads
        kv_heads, head = text.number("swa_num_key_value_heads") or kv_heads, text.number("swa_head_dim") or head
        return heads, kv_heads, head, text.number("swa_v_head_dim") or text.number("v_head_dim") or head
    head = text.number("global_head_dim") or head
    kv_heads = text.number("num_global_key_value_heads") or kv_heads
    return heads, kv_heads, head, text.number("v_head_dim") or head


def recurrent(text: Reader, sizes: Sizes, kind: str) -> tuple[float, float]:
    """Parameters of a layer without attention, and bytes of its state for one sequence."""
    hidden = sizes.hidden
    wide = 4 if "float32" in (text.text("mamba_ssm_dtype"), text.text("mamba_ssm_cache_dtype")) else 2
    if kind == "gated-delta":
        keys = text.number("linear_num_key_heads", 16) * text.number("linear_key_head_dim", 128)
        value_heads, value = text.number("linear_num_value_heads", 32), text.number("linear_value_head_dim", 128)
        mixed, kernel = 2 * keys + value_heads * value, text.number("linear_conv_kernel_dim", 4)
        state = mixed * (kernel - 1) * 2 + value_heads * value * text.number("linear_key_head_dim", 128) * wide
        return hidden * (
            mixed + value_heads * value + 2 * value_heads
        ) + value_heads * value * hidden + mixed * kernel, max(state, 0)
    if kind == "mamba2":
        pure = pure_mamba(text) is not None
        heads = text.number("mamba_num_heads") or text.number("mamba_n_heads") or text.number("n_mamba_heads")
        heads = heads or (text.number("num_heads") if pure else 0)
        each = text.number("mamba_head_dim") or text.number("mamba_d_head") or text.number("mamba_headdim")
        inner = (
            heads * (each or (text.number("head_dim") if pure else 0) or 64)
            or text.number("mamba_d_ssm")
            or text.number("expand", 2) * hidden
        )
        heads = heads or max(inner // 64, 1)
        groups = text.number("n_groups") or text.number("mamba_n_groups") or text.number("mamba_ngroups") or 1
        size = text.number("ssm_state_size") or text.number("mamba_d_state") or text.number("state_size") or 128
        kernel = text.number("conv_kernel") or text.number("mamba_d_conv") or 4
        mixed = inner + 2 * groups * size
        return hidden * (inner + mixed + heads) + inner * hidden + mixed * kernel, mixed * (
            kernel - 1
        ) * 2 + inner * size * wide
    if kind == "mamba":
        inner = text.number("intermediate_size") if pure_mamba(text) else 0
        inner = inner or (text.number("mamba_expand") or text.number("expand") or 2) * hidden
        size = text.number("mamba_d_state") or text.number("state_size") or 16
        rank = text.number("mamba_dt_rank") or text.number("time_step_rank") or -(-hidden // 16)
        kernel = text.number("mamba_d_conv") or text.number("conv_kernel") or 4
        return 3 * hidden * inner + inner * (2 * rank + 3 * size), inner * (kernel - 1) * 2 + inner * size * wide
    if kind == "conv":
        return 4 * hidden * hidden, hidden * max(text.number("conv_L_cache", 3) - 1, 1) * 2
    linear = Reader(mapping(text.raw("linear_attn_config")))
    heads, head = linear.number("num_heads") or sizes.heads, linear.number("head_dim") or sizes.head
    inner = heads * head
    gates = (
        hidden * inner
        if linear.flag("use_full_rank_gate") or kind == "lightning"
        else 2 * (hidden * head + head * inner)
    )
    return 4 * hidden * inner + gates, inner * head * 4 + 3 * inner * 3 * 2


def caches_of(text: Reader, sizes: Sizes, layers: Counter[Layer]) -> tuple[Cache, ...]:
    """The caches of all layers, those of one kind together."""
    found: Counter[Cache] = Counter()
    for layer, count in layers.items():
        kind = layer.attention
        if layer.mamba_beside:
            found[Cache("state", 0, state_bytes=recurrent(text, sizes, "mamba2")[1])] += count
        if kind == "none" or layer.shared:
            continue
        if kind in ("full", "sliding", "chunked"):
            _, kv_heads, head, value = attending(text, sizes, layer)
            window = 0
            if kind == "sliding":
                window = (
                    text.number("sliding_window") or text.number("sliding_window_size") or text.number("window_size")
                )
            elif kind == "chunked":
                window = text.number("attention_chunk_size", 8192)
            name = "full" if kind == "full" else "sliding" if kind == "sliding" else "chunked"
            found[Cache(name, 0, elements=kv_heads * (head + value), heads=kv_heads, window=window)] += count  # type: ignore[arg-type]
        elif kind == "shared":
            head = text.number("attention_head_dim") or sizes.head
            found[Cache("full", 0, elements=2 * sizes.kv_heads * head, heads=sizes.kv_heads)] += count
        elif kind == "mla" and _expands(text):
            head = text.number("qk_nope_head_dim") + text.number("qk_rope_head_dim")
            found[Cache("full", 0, elements=2 * sizes.heads * head, heads=sizes.heads)] += count
        elif kind == "mla":
            index = text.number("index_head_dim")
            elements = text.number("kv_lora_rank") + text.number("qk_rope_head_dim")
            found[Cache("latent", 0, elements=elements, index_bytes=index + 4 * -(-index // 128))] += count
        else:
            found[Cache("state", 0, state_bytes=recurrent(text, sizes, kind)[1])] += count
    return tuple(
        Cache(c.kind, count, c.elements, c.heads, c.window, c.state_bytes, c.index_bytes) for c, count in found.items()
    )
