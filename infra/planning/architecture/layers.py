"""The kinds of a model's layers: how each attends, and what its feed-forward part is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from infra.planning.architecture.config import Reader, mapping

Attention = Literal[
    "full", "sliding", "chunked", "mla", "gated-delta", "mamba", "mamba2", "kda", "lightning", "conv", "shared", "none"
]
FeedForward = Literal["dense", "experts", "both", "none"]
MOST_LAYERS = 1024
_ATTENDS: dict[str, Attention] = {
    "full_attention": "full", "attention": "full", "global": "full", "self_attention": "full", "hybrid": "full", "sliding_attention": "sliding",
    "local": "sliding", "sliding_window_attention": "sliding", "chunked_attention": "chunked", "linear_attention": "gated-delta",
    "mamba": "mamba2", "mamba2": "mamba2", "conv": "conv", "short_conv": "conv", "recurrent": "mamba", "lightning_attention": "lightning",
    "full": "full", "sliding": "sliding", "minimax": "lightning", "moe": "none", "mlp": "none",
}  # fmt: skip
# Every n-th layer is full attention where the config gives no list: n, and what the other layers are.
_EVERY: dict[str, tuple[int, Attention]] = {
    "gemma2": (2, "sliding"), "gemma3": (6, "sliding"), "gemma3_text": (6, "sliding"), "gemma3n": (5, "sliding"), "gemma3n_text": (5, "sliding"),
    "gemma4": (6, "sliding"), "gemma4_text": (6, "sliding"), "gpt_oss": (2, "sliding"), "cohere2": (4, "sliding"), "cohere2_vision": (4, "sliding"),
    "llama4": (4, "chunked"), "llama4_text": (4, "chunked"), "exaone4": (4, "sliding"), "olmo3": (4, "sliding"), "qwen3_next": (4, "gated-delta"),
    "qwen3_5": (4, "gated-delta"), "qwen3_5_text": (4, "gated-delta"), "qwen3_5_moe": (4, "gated-delta"), "qwen3_5_moe_text": (4, "gated-delta"),
    "afmoe": (4, "sliding"), "smollm3": (1, "full"), "gpt_neo": (2, "sliding"),
}  # fmt: skip
_SLIDES_EVERYWHERE = {"mistral", "mixtral", "phi3", "phi3_v", "starcoder2", "ministral", "phimoe", "phi3small"}
_MAMBA_ONLY: dict[str, Attention] = {
    "mamba": "mamba",
    "falcon_mamba": "mamba",
    "mamba2": "mamba2",
    "rwkv": "mamba",
    "rwkv5": "mamba",
}
_MAMBA_AND_ATTENTION = {"falcon_h1", "hymba"}
_MLA = {
    "axk1", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "deepseek_v41", "glm_moe_dsa", "glm4_moe_lite", "kimi_k2", "kimi_k25",
    "kimi_linear", "longcat_flash", "pangu_ultra_moe", "bailing_hybrid", "deepseek_vl_v2", "kimi_vl", "kimi_k3", "glm5_next", "hy_v4",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One layer. ``heads`` and ``inner`` are set where the layer differs from the model (DeciLM), ``shared`` if it uses another's cache."""

    attention: Attention
    feed_forward: FeedForward
    kv_heads: int = 0
    inner: int = 0
    shared: bool = False
    mamba_beside: bool = False


def layers_of(text: Reader, experts: int) -> Counter[Layer]:
    """How many layers of each kind there are."""
    count = min(text.number("num_hidden_layers"), MOST_LAYERS)
    kind = text.text("model_type")
    if blocks := _blocks(text):
        return Counter(blocks[:MOST_LAYERS])
    if pattern := text.text("hybrid_override_pattern") or text.text("hybrid_layer_pattern"):
        return Counter(_letters(pattern[:MOST_LAYERS]))
    if kind == "nemotron_h" and (listed := text.texts("layers_block_type")):
        return Counter(
            _letters(
                "".join({"mamba": "M", "moe": "E", "attention": "*", "mlp": "-"}.get(name, "*") for name in listed)
            )
        )
    if kind == "zamba2":
        hybrid = text.texts("layers_block_type").count("hybrid") or len(text.numbers("hybrid_layer_ids"))
        return Counter({Layer("mamba2", "none"): count, Layer("shared", "none"): min(hybrid, MOST_LAYERS)})
    if pure := pure_mamba(text):
        return Counter({Layer(pure, "none"): count})
    if kind == "longcat_flash":  # two of each part and one of experts in a layer
        return Counter({Layer("mla", "both"): count, Layer("mla", "dense"): count})
    attends = _attentions(text, count, kind)
    forwards = _feed_forwards(text, count, experts)
    shared = min(text.number("num_kv_shared_layers"), count)
    double = text.number("intermediate_size") * 2 if text.flag("use_double_wide_mlp") else 0
    return Counter(
        Layer(
            attention,
            forward,
            shared=index >= count - shared,
            inner=double if index >= count - shared else 0,
            mamba_beside=kind in _MAMBA_AND_ATTENTION,
        )
        for index, (attention, forward) in enumerate(zip(attends, forwards, strict=True))
    )


def pure_mamba(text: Reader) -> Attention | None:
    """The kind of a model that has nothing but Mamba layers. Mamba 2 may call itself mamba."""
    kind = _MAMBA_ONLY.get(text.text("model_type"))
    return "mamba2" if kind and "Mamba2ForCausalLM" in text.texts("architectures") else kind


def is_mla(text: Reader) -> bool:
    """Whether attention caches one latent vector a token instead of keys and values, where vLLM supports it."""
    known = text.text("model_type") in _MLA
    return bool(text.number("kv_lora_rank")) and (known or bool(text.number("qk_rope_head_dim")))


def _attentions(text: Reader, count: int, kind: str) -> list[Attention]:
    full: Attention = "mla" if is_mla(text) else "full"
    window = text.number("sliding_window") or text.number("sliding_window_size") or text.number("window_size")
    sliding: Attention = "sliding" if window else full
    listed = (
        text.texts("layer_types")
        or text.texts("layers_block_type")
        or text.texts("block_types")
        or text.texts("layer_block_type")
    )
    if listed:
        known = [_ATTENDS.get(name, full) for name in listed]
        repeated = (known * (count // len(known) + 1))[:count]
        if kind.startswith(("jamba",)):
            repeated = ["mamba" if a == "mamba2" else a for a in repeated]
        return [full if a == "full" else sliding if a == "sliding" else a for a in repeated]
    if linear := mapping(text.raw("linear_attn_config")):
        chosen = set(Reader(linear).numbers("full_attn_layers"))
        other: Attention = "kda" if "kda_layers" in linear or kind == "kimi_linear" else "gated-delta"
        return [full if index + 1 in chosen else other for index in range(count)]
    if pattern := text.numbers("hybrid_layer_pattern"):  # MiMo-V2: 1 slides
        return [sliding if number else full for number in _stretched(pattern, count)]
    if pattern := text.numbers("attn_type_list"):  # MiniMax-01: 0 is linear
        return [full if number else "lightning" for number in _stretched(pattern, count)]
    if period := text.number("attn_layer_period"):  # Jamba
        offset = text.number("attn_layer_offset")
        return [full if index % period == offset else "mamba" for index in range(count)]
    if indices := text.numbers("full_attn_idxs"):  # LFM2
        return [full if index in indices else "conv" for index in range(count)]
    if indices := text.numbers("attn_layer_indices"):  # Bamba
        return [full if index in indices else "mamba2" for index in range(count)]
    if kind == "bamba":
        return ["mamba2"] * count
    if ropeless := text.numbers("no_rope_layers"):  # Llama 4: 0 is a layer without RoPE, which attends to everything
        return ["chunked" if number else full for number in _stretched(ropeless, count)]
    every, other = _EVERY.get(kind, (0, full))
    every = (
        text.number("full_attention_interval")
        or text.number("sliding_window_pattern")
        or text.number("_sliding_window_pattern")
        or every
    )
    if text.has("linear_num_value_heads") and text.number("full_attention_interval"):
        other = "gated-delta"
    elif other == full and every:
        other = sliding
    if every and other == "sliding" and not window:
        every = 0
    if kind in ("llama4", "llama4_text") and not text.number("attention_chunk_size"):
        every = 0
    if every:
        first = 1 if kind == "gpt_oss" else every - 1
        return [full if index % every == first % every else other for index in range(count)]
    if kind in _SLIDES_EVERYWHERE and _number_given(text, "sliding_window"):
        return [sliding] * count
    if text.flag("use_sliding_window") and window:
        spared = text.number("max_window_layers")
        return [sliding if index >= spared else full for index in range(count)]
    return [full] * count


def _number_given(text: Reader, key: str) -> bool:
    # ``"sliding_window": null`` means none, although the class has a default.
    return bool(text.number(key)) and not (key in text.values and text.values[key] is None)


def _stretched(pattern: list[int], count: int) -> list[int]:
    return (pattern * (count // len(pattern) + 1))[:count]


def _feed_forwards(text: Reader, count: int, experts: int) -> list[FeedForward]:
    if text.flag("enable_moe_block") and experts:
        return ["both"] * count
    if not experts:
        return ["dense"] * count
    listed = text.texts("mlp_layer_types")
    if listed:
        return [("dense" if name == "dense" else "experts") for name in (listed * (count // len(listed) + 1))[:count]]
    first = max(
        text.number(key)
        for key in ("first_k_dense_replace", "first_dense_layers", "num_dense_layers", "moe_layer_start_index")
    )
    last = text.number("moe_layer_end_index") or count
    step = (
        text.number("interleave_moe_layer_step")
        or text.number("decoder_sparse_step")
        or text.number("moe_layer_interval")
    )
    step = step or text.number("moe_every_n_layers") or text.number("moe_layer_frequency") or 1
    dense = set(text.numbers("mlp_only_layers"))
    chosen = set(text.numbers("moe_layers")) or _listed_layers(text.text("moe_layers_enum"))
    frequency = text.numbers("moe_layer_freq")
    period, offset = text.number("expert_layer_period"), text.number("expert_layer_offset")
    found: list[FeedForward] = []
    for index in range(count):
        if frequency:
            is_moe = bool(frequency[index % len(frequency)])
        elif chosen:
            is_moe = index in chosen
        elif period:
            is_moe = index % period == offset
        else:
            is_moe = first <= index <= last and (index + 1) % step == 0
        found.append("experts" if is_moe and index not in dense else "dense")
    return found


def _listed_layers(text: str) -> set[int]:
    return {int(part) for part in text.split(",") if part.strip().isdecimal()}


def _letters(pattern: str) -> list[Layer]:
    """Nemotron-H: one part a layer. M is Mamba, * attention, - a feed-forward part, E experts."""
    kinds: dict[str, Layer] = {
        "M": Layer("mamba2", "none"), "*": Layer("full", "none"), "-": Layer("none", "dense"), "E": Layer("none", "experts"),
    }  # fmt: skip
    return [kinds[letter] for letter in pattern if letter in kinds]


def _blocks(text: Reader) -> list[Layer]:
    """Models from a search over architectures: each block has its own heads and feed-forward size, or none (DeciLM, Puzzle)."""
    listed = text.values.get("block_configs")
    if not isinstance(listed, list) or not listed:
        return []
    heads, hidden, found = text.number("num_attention_heads"), text.number("hidden_size"), []
    for block in listed:
        attention, forward = (
            Reader(mapping(mapping(block).get("attention"))),
            Reader(mapping(mapping(block).get("ffn"))),
        )
        if not attention.values and not forward.values:
            return []
        group = attention.number("n_heads_in_group")
        ratio = forward.values.get("ffn_mult")
        inner = forward.number("intermediate_size")
        if not inner and isinstance(ratio, int | float) and not isinstance(ratio, bool) and 0 < ratio < 100:
            inner = -(-int(2 * ratio * hidden / 3) // 256) * 256
        kv = attention.number("num_key_value_heads") or (heads // group if group else 0)
        off = attention.flag("no_op") or attention.flag("replace_with_linear")
        idle = forward.flag("no_op") or forward.flag("replace_with_linear")
        found.append(Layer("none" if off else "full", "none" if idle else "dense", kv_heads=kv, inner=inner))
    return found
