"""Reads a config.json that may lack keys, nest them, or contain values of the wrong type.

A missing key has the default of transformers' configuration class for the ``model_type`` (``class_defaults.json``, written by
``python -m benchmarks.engine.class_defaults`` with the version of transformers).
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DEFAULTS = Path(__file__).with_name("class_defaults.json")
NESTED = (
    "text_config",
    "llm_config",
    "language_config",
    "thinker_config",
    "language_model_config",
    "decoder",
    "talker_text_config",
)
TOWERS = (
    "vision_config",
    "audio_config",
    "speech_config",
    "vision_encoder_config",
    "sound_config",
    "audio_encoder_config",
)
# Without a class in transformers, but compared with the published size of a real model (tests/infra/planning/real_models.json).
CONFIRMED = frozenset(
    {"kimi_k2", "kimi_k25", "kimi_linear", "mimo", "nemotron-nas", "PanguEmbedded", "exaone", "internlm2", "qwen"}
)
LARGEST_NUMBER = 1 << 36
# Names of one value in different families, the usual one first.
NAMES = {
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model", "dim", "embed_dim"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "num_heads"),
    "num_key_value_heads": ("n_head_kv", "kv_n_heads", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups"),
    "head_dim": ("head_dim", "hidden_size_per_head", "kv_channels", "attention_head_dim", "d_kv"),
    "intermediate_size": ("intermediate_size", "ff_intermediate_size", "ffn_hidden_size", "n_inner", "decoder_ffn_dim", "ffn_dim", "d_ff", "hidden_dim"),
    "vocab_size": ("vocab_size", "padded_vocab_size"),
    "num_experts": ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts", "num_moe_experts", "moe_num_primary_experts"),
    "experts_per_token": (
        "num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k", "experts_per_token", "num_selected_experts",
    ),
    "moe_intermediate_size": ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size", "expert_hidden_size"),
}  # fmt: skip


class UnusableConfigError(ValueError):
    """The config lacks a value without which nothing can be computed."""


class Reader:
    """Values of one part of a config, of the expected type or a default. Never raises for a value of the wrong type."""

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any] = {}) -> None:
        """Values of the file come first, then those of the configuration class."""
        self.values, self.defaults = values, defaults

    def raw(self, key: str) -> Any:
        """The value as written, or the class's default. ``null`` in the file means none, whatever the class has."""
        return self.values[key] if key in self.values else self.defaults.get(key)

    def number(self, key: str, default: int = 0) -> int:
        """A whole number that is not negative. A list counts as its largest number."""
        found = self._first(self.values, key)
        if found is None and not self.is_null(key):
            found = self._first(self.defaults, key)
        return default if found is None else found

    def gives(self, key: str) -> bool:
        """Whether the file has a usable number under one of its names."""
        return self._first(self.values, key) is not None

    def is_null(self, key: str) -> bool:
        """Whether the file says ``null``: the model has no such value, although its class may have a default."""
        return any(name in self.values and self.values[name] is None for name in NAMES.get(key, (key,)))

    def _first(self, source: Mapping[str, Any], key: str) -> int | None:
        for name in NAMES.get(key, (key,)):
            if (number := _number(source.get(name))) is not None:
                return number
        return None

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self.raw(key)
        return value if isinstance(value, bool) else default

    def text(self, key: str) -> str:
        """A text, or an empty one."""
        value = self.raw(key)
        return value if isinstance(value, str) else ""

    def numbers(self, key: str) -> list[int]:
        """A list of whole numbers; empty if it is anything else."""
        value = self.values.get(key)
        if not isinstance(value, list | tuple):
            return []
        found = [_number(item) for item in value]
        return [] if None in found else [number for number in found if number is not None]

    def texts(self, key: str) -> list[str]:
        """A list of texts; empty if it is anything else."""
        value = self.values.get(key)
        return list(value) if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value) else []

    def part(self, key: str) -> Reader:
        """A nested part; empty if there is none."""
        return Reader(mapping(self.values.get(key)), mapping(self.defaults.get(key)))

    def has(self, key: str) -> bool:
        """Whether the file or the class gives the value."""
        return any(self.raw(name) is not None for name in NAMES.get(key, (key,)))


def _number(value: Any) -> int | None:
    if isinstance(value, list | tuple):
        numbers = [number for item in value[:4096] if (number := _number(item)) is not None]
        return max(numbers, default=None)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value <= LARGEST_NUMBER else None


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


@functools.cache
def class_defaults() -> dict[str, Any]:
    """Defaults by model_type; ``""`` has the version of transformers."""
    return dict(json.loads(_DEFAULTS.read_text()))


def known_type(model_type: str) -> bool:
    """Whether transformers has a configuration class of this name, or a real model of it was compared."""
    return bool(model_type) and (model_type in class_defaults() or model_type in CONFIRMED)


def readers(config: Mapping[str, Any]) -> tuple[Reader, Reader]:
    """The whole config, and its language model, each with the defaults of its class."""
    top = str(config.get("model_type") or "")
    defaults: Mapping[str, Any] = _flat(mapping(class_defaults().get(top)))
    config = _flat(config)
    whole = Reader(config, defaults)
    values, inner = config, defaults
    for _ in range(3):  # thinker_config contains a text_config
        name = next(
            (
                name
                for name in NESTED
                if mapping(values.get(name)) or (not values.get("hidden_size") and mapping(inner.get(name)))
            ),
            "",
        )
        if not name:
            break
        nested = mapping(values.get(name))
        kind = str(nested.get("model_type") or mapping(inner.get(name)).get("model_type") or "")
        inner = {**mapping(class_defaults().get(kind)), **mapping(inner.get(name))} or mapping(
            class_defaults().get(kind)
        )
        values = {**_shared(values), **nested}
    if values is config:
        return whole, whole
    return whole, Reader(values, inner)


def _shared(values: Mapping[str, Any]) -> dict[str, Any]:
    """What an outer part says for its language model, too."""
    kept = ("tie_word_embeddings", "quantization_config", "vocab_size", "gated_mlp", "mtp_num_hidden_layers")
    return {key: values[key] for key in kept if values.get(key) is not None}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """DBRX and MPT describe attention and feed-forward parts in a mapping each."""
    inner = {**mapping(values.get("attn_config")), **mapping(values.get("ffn_config"))}
    return {**{key: value for key, value in inner.items() if key != "model_type"}, **values}
