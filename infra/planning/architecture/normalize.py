"""Turns any config.json into the fields of a ``ModelArchitecture``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from infra.planning.architecture.caches import Cache
from infra.planning.architecture.config import Reader, UnusableConfigError, known_type, readers
from infra.planning.architecture.layers import layers_of
from infra.planning.architecture.length import context_length
from infra.planning.architecture.quantized import quantized
from infra.planning.architecture.runners import is_bidirectional, runner_of, unsupported
from infra.planning.architecture.tensors import Sizes, caches_of, gated, parts
from infra.planning.architecture.towers import sees, tower_parameters

ModelFields = dict[str, Any]
ENCODERS = frozenset({
    "bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "distilbert", "electra", "mpnet", "nomic_bert", "modernbert", "new", "gte", "deberta",
    "deberta-v2", "jina_bert", "eurobert", "albert", "ernie", "siglip", "clip",
})  # fmt: skip
# Layers for multi-token prediction that the checkpoint has and config.json does not mention: its size includes one.
_UNTOLD_DRAFT_LAYERS = {"qwen3_next": 1}
_LARGEST = {"hidden_size": 1 << 17, "num_hidden_layers": 1024, "num_attention_heads": 1 << 14, "vocab_size": 1 << 24}


def normalized_fields(config: Mapping[str, Any]) -> ModelFields:
    """The fields.

    Raises:
        UnusableConfigError: a value is missing or impossible, so the memory cannot be computed.
    """
    if not isinstance(config, Mapping):
        raise UnusableConfigError("is not a JSON object")
    whole, text = readers(config)
    if not text.number("num_hidden_layers"):
        text = Reader(
            {**text.values, "num_hidden_layers": len(text.text("hybrid_override_pattern")) or None}, text.defaults
        )
    listed = text.values.get("block_configs") or text.values.get("layers_block_type")
    if isinstance(listed, list) and listed and not Reader(text.values).number("num_hidden_layers"):
        text = Reader({**text.values, "num_hidden_layers": len(listed)}, text.defaults)
    encodes = whole.flag("is_encoder_decoder") and whole.text("model_type") == "whisper"
    if encodes:
        text = Reader(
            {
                **text.values,
                "num_hidden_layers": text.number("decoder_layers"),
                "intermediate_size": text.number("decoder_ffn_dim"),
            },
            text.defaults,
        )
    for key, most in _LARGEST.items():
        if not 0 < text.number(key) <= most and not (
            key == "num_attention_heads" and text.number("ssm_state_size") + text.number("state_size")
        ):
            raise UnusableConfigError(f"has no usable {key!r}")
    hidden, heads = text.number("hidden_size"), text.number("num_attention_heads") or 1
    kv_heads = heads if encodes else _kv_heads(text, heads)
    head = text.number("head_dim") or max(hidden // heads, 1)
    inner = text.number("intermediate_size") or 4 * hidden
    if text.text("model_type") in ("qwen", "molmo"):
        inner = max(inner // 2, 1)  # these count both halves of their gated matrix
    elif text.text("model_type") == "lfm2":
        inner = _adjusted(text, inner)
    experts = text.number("num_experts")
    sizes = Sizes(hidden, heads, kv_heads, head, inner, experts, _moe_inner(text, inner), 3 if gated(text) else 2)
    layers = layers_of(text, experts)
    if not layers:
        raise UnusableConfigError("has no usable layers")
    quantization = quantized(config, text.values, sum(layers.values()))
    tensors = tuple(parts(text, sizes, layers, quantization))
    caches = caches_of(text, sizes, layers)
    kind, extra, vision = "generate", _positions(text) * hidden, tower_parameters(whole, hidden)
    if text.text("model_type") in ENCODERS:
        kind, caches = "pooling", ()
    elif runner_of(config) == "pooling":
        # A causal decoder that pools allocates its cache all the same, for chunked prefill and shared prefixes.
        kind, caches = "pooling", () if is_bidirectional({**text.values, **config}) else caches
    elif encodes:
        kind = "transcribe"
        caches, extra = _with_encoder(whole, text, hidden, caches, extra)
    elif per_layer := text.number("hidden_size_per_layer_input"):
        extra += sum(layers.values()) * (text.number("vocab_size_per_layer_input") * per_layer + 3 * hidden * per_layer)
    length, sure = context_length(whole, text, config.get("tokenizer_model_max_length"))
    kind_name = text.text("model_type") or whole.text("model_type")
    doubts = []
    if kind_name and not known_type(kind_name):
        doubts.append(f"model_type {kind_name[:40]} is not known")
    if quantization.method and not quantization.known:
        doubts.append(f"quantization method {quantization.method[:40]} is not one of vLLM's")
    for key in ("hidden_size", "num_hidden_layers"):
        if not text.gives(key) and not whole.gives(key):
            doubts.append(f"the config gives no {key}, that of its class ({text.number(key):,}) is assumed")
    missing, certain = unsupported(config)
    if missing and not certain:
        doubts.append(missing)
    if not sure:
        doubts.append(f"the config gives no context length, {length:,} tokens are assumed")
    tied = text.raw("tie_word_embeddings")
    if not isinstance(tied, bool):
        tied = whole.flag("tie_word_embeddings")
    return {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": sum(layers.values()), "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head, "vocab_size": text.number("vocab_size"), "max_position_embeddings": length,
        "tie_word_embeddings": tied or kind == "pooling", "quantization": quantization.method, "weight_bits": quantization.bits,
        "minimum_capability": quantization.capability, "num_experts": experts, "moe_intermediate_size": sizes.moe_inner,
        "weight_block": quantization.block, "experts_per_token": text.number("experts_per_token"),
        "draft_layers": min(text.number("num_nextn_predict_layers") or text.number("mtp_num_hidden_layers") or _UNTOLD_DRAFT_LAYERS.get(kind_name, 0), 64),
        "vision_parameters": vision if sees(whole) else 0, "tensors": tensors, "caches": caches, "kind": kind,
        "problem": missing if certain else "", "stored_bits": _stored_bits(whole, text), "cache_dtype": quantization.cache_dtype, "draft_bits": quantization.draft_bits,
        "extra_parameters": extra + (0 if sees(whole) else vision), "doubts": tuple(doubts),
    }  # fmt: skip


def _adjusted(text: Reader, inner: int) -> int:
    """LFM2 derives the feed-forward size: two thirds, rounded up."""
    inner = text.number("block_ff_dim") or inner
    if not text.flag("block_auto_adjust_ff_dim", True):
        return inner
    multiplier, step = text.raw("block_ffn_dim_multiplier"), text.number("block_multiple_of") or 256
    inner = int(2 * inner / 3)
    if isinstance(multiplier, int | float) and not isinstance(multiplier, bool) and 0 < multiplier < 64:
        inner = int(multiplier * inner)
    return max(-(-inner // step) * step, 1)


def _stored_bits(whole: Reader, text: Reader) -> int:
    """Bits of an unquantized weight in the files. vLLM loads 32-bit weights into 16 bits."""
    kind = next((t for part in (whole, text) for key in ("dtype", "torch_dtype") if (t := part.text(key))), "")
    return 32 if kind in ("float32", "float") else 16


def _kv_heads(text: Reader, heads: int) -> int:
    if text.flag("multi_query") and not text.flag("new_decoder_architecture"):
        return 1
    own = Reader(text.values).number("num_key_value_heads")
    return own or min(text.number("num_key_value_heads") or heads, heads)


def _moe_inner(text: Reader, inner: int) -> int:
    own = Reader(text.values)
    if listed := own.numbers("moe_intermediate_size"):
        return max(listed[0], 1)
    return own.number("moe_intermediate_size") or (
        inner
        if own.number("intermediate_size") and not text.has("moe_intermediate_size")
        else text.number("moe_intermediate_size") or inner
    )


def _positions(text: Reader) -> int:
    """Rows of learned position and token type embeddings."""
    kind = text.text("model_type")
    if kind in (
        "gpt2",
        "opt",
        "gpt_bigcode",
        "bert",
        "roberta",
        "xlm-roberta",
        "camembert",
        "distilbert",
        "electra",
        "mpnet",
    ):
        return max(text.number("n_positions"), text.number("max_position_embeddings")) + text.number("type_vocab_size")
    return 0


def _with_encoder(
    whole: Reader, text: Reader, hidden: int, caches: tuple[Cache, ...], extra: int
) -> tuple[tuple[Cache, ...], int]:
    """Whisper: an encoder, and a decoder whose layers attend to the encoder's output as well as to themselves."""
    layers, inner, decoders = (
        whole.number("encoder_layers"),
        whole.number("encoder_ffn_dim"),
        text.number("decoder_layers"),
    )
    source = whole.number("max_source_positions", 1500)
    encoder = layers * (4 * hidden * hidden + 2 * hidden * inner) + decoders * 4 * hidden * hidden
    rows = source + text.number("max_target_positions", 448)
    crossing = tuple(replace(cache, kind="cross", window=source) for cache in caches)
    return (*caches, *crossing), extra + encoder + rows * hidden + 3 * hidden * (
        hidden + whole.number("num_mel_bins", 80)
    )
