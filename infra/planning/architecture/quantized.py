"""The quantization of a checkpoint: bits of a weight with its scales, the modules it covers, the GPU it needs."""

from __future__ import annotations

import fnmatch
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.planning.architecture.config import Reader, mapping

_METHODS = Path(__file__).with_name("quantization_methods.json")
SIXTEEN = 16.0
_W4A8_CAPABILITY = 90  # 4-bit weights with FP8 activations require Hopper or newer
_MODELOPT_ALGORITHMS = frozenset({
    "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "FP8_BLOCK_SCALES", "NVFP4", "W4A16_NVFP4", "MXFP8", "MIXED_PRECISION",
})  # fmt: skip
# What a module of each kind is called in exclusion lists.
MODULES = {
    "attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mixer.q_proj", "mixer.o_proj"),
    "linear": ("linear_attn.in_proj_qkv", "linear_attn.out_proj", "mixer.in_proj", "mixer.out_proj", "mamba.in_proj"),
    "dense": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "feed_forward.down_proj", "mixer.up_proj"),
    "experts": ("mlp.experts.0.up_proj", "mlp.experts.0.down_proj", "feed_forward.experts.0.down_proj", "mixer.experts.0.up_proj"),
    "shared": ("mlp.shared_experts.up_proj", "mlp.shared_expert.up_proj", "feed_forward.shared_expert.up_proj", "mixer.shared_experts.up_proj"),
}  # fmt: skip


@dataclass(frozen=True)
class Method:
    """A quantization method of vLLM: bits of a weight without scales, weights that share a scale, least SM version times ten.

    ``where`` is ``linears`` or ``experts``.
    """

    bits: float
    group: int
    capability: int
    where: str = "linears"


@dataclass(frozen=True)
class Quantized:
    """A checkpoint's own quantization. ``method`` is empty if there is none; ``bits`` is the width of most linear weights."""

    method: str = ""
    bits: int = 16
    block: int = 0
    capability: int = 0
    known: bool = True
    widths: tuple[tuple[str, float], ...] = ()
    """Bits of one weight with its scales, by kind of module; a kind that is not listed has 16."""
    draft_bits: int = 0
    """Bits of the layers that predict additional tokens, where they differ from the others."""
    cache_dtype: str = ""
    """The KV cache's data type that vLLM takes from a ModelOpt checkpoint."""

    def width(self, kind: str) -> float:
        """Bits of one weight of this kind of module, with its share of the scales."""
        return dict(self.widths).get(kind, SIXTEEN)


@functools.cache
def methods() -> dict[str, Method]:
    """The methods that vLLM knows, and some that only other engines do."""
    data = json.loads(_METHODS.read_text())
    return {name: Method(**row) for name, row in {**data["methods"], **data["elsewhere"]}.items()}


@functools.cache
def in_vllm() -> frozenset[str]:
    """The methods of this vLLM version."""
    return frozenset(json.loads(_METHODS.read_text())["methods"])


def quantized(config: Mapping[str, Any], text: Mapping[str, Any], layers: int) -> Quantized:
    """The quantization that the config describes. ``layers`` is the number of layers that exclusions are compared with."""
    given = mapping(
        config.get("quantization_config") or text.get("quantization_config") or config.get("compression_config")
    )
    if not given:
        return Quantized()
    reader = Reader(given)
    name = _name(reader)
    method = methods().get(name)
    bits, group, capability = _widths(reader, name, method)
    if method and method.capability:
        capability = max(capability, method.capability)
    expert_bits = 4.25 if name == "deepseek_v4_fp8" or text.get("expert_dtype") == "fp4" else bits
    where = ("experts",) if method and method.where == "experts" else tuple(MODULES)
    excluded = _excluded(reader, layers)
    mixed = _mixed(reader)
    widths = []
    for kind in where:
        own = mixed.get(kind, expert_bits if kind == "experts" else bits)
        share = excluded.get(kind, 0.0)
        widths.append((kind, own * (1 - share) + SIXTEEN * share))
    return Quantized(
        method=name,
        bits=max(1, min(16, int(bits))),
        block=group if group > 0 else 0,
        capability=capability,
        known=name in in_vllm(),
        widths=tuple(widths),
        draft_bits=16 if _keeps_drafts(reader, layers) else 0,
        cache_dtype=_cache_dtype(reader) if name.startswith("modelopt") else "",
    )


def _cache_dtype(reader: Reader) -> str:
    for source in (reader.part("quantization"), reader):
        scheme = Reader(mapping(source.raw("kv_cache_scheme")))
        if scheme.number("num_bits") == 8 and scheme.text("type") == "float":
            return "fp8"
        # vLLM stores NVFP4 caches in half of this; the plan counts 8 bits.
        if source.text("kv_cache_quant_algo").upper() in ("FP8", "NVFP4"):
            return "fp8"
    return ""


def _name(reader: Reader) -> str:
    method = reader.text("quant_method").lower().replace("compressed_tensors", "compressed-tensors")
    algorithm = (reader.text("quant_algo") or reader.part("quantization").text("quant_algo")).upper()
    modelopt = (
        method.startswith("modelopt")
        or reader.part("producer").text("name") == "modelopt"
        or (not method and algorithm)
    )
    if modelopt:
        if algorithm and algorithm not in _MODELOPT_ALGORITHMS:
            return f"modelopt {algorithm[:30]}"
        if "MIXED" in algorithm:
            return "modelopt_mixed"
        return "modelopt_fp4" if "FP4" in algorithm else "modelopt_mxfp8" if "MXFP8" in algorithm else "modelopt"
    return method or ("compressed-tensors" if reader.part("config_groups").values else "unknown")


def _widths(reader: Reader, name: str, method: Method | None) -> tuple[float, int, int]:
    """Bits of a weight with its scales, weights per scale, least compute capability of the activations."""
    if groups := reader.part("config_groups").values:
        return _groups(groups)
    blocks = reader.raw("weight_block_size")
    block = int(blocks[0]) if isinstance(blocks, list | tuple) and blocks and isinstance(blocks[0], int) else 0
    block = block or (blocks if isinstance(blocks, int) and not isinstance(blocks, bool) else 0)
    if name == "bitsandbytes":
        return (8.0, 0, 70) if reader.flag("load_in_8bit") or reader.flag("_load_in_8bit") else (4.5, 0, 70)
    if name == "torchao":
        return (4.5 if "int4" in json.dumps(reader.values, default=str).lower() else 8.0), 0, 0
    if method is None and name.startswith("modelopt"):
        return (4.125, 128, 0) if "4" in name else (8.0, 0, 0)
    bits = float(reader.number("bits") or reader.number("w_bit") or (method.bits if method else SIXTEEN))
    group = reader.number("group_size") or reader.number("q_group_size") or (method.group if method else 0)
    if name.startswith(("awq", "gptq", "auto_", "inc", "auto-round", "intel", "moe_wna16")) and bits < 16:
        size = group if 0 < group < 4096 else 4096
        return bits + (16 + bits) / size, (group if 0 < group < 4096 else 0), 0
    if method and 0 < method.group <= 32:
        return bits + 8 / method.group, method.group, 0
    return bits, block or (group if name not in ("fp8", "modelopt") else 0), 0


def _groups(groups: Mapping[str, Any]) -> tuple[float, int, int]:
    """compressed-tensors: the group of most linear layers decides; the narrowest where there are several."""
    found = []
    for group in groups.values():
        weights, activations = (
            Reader(mapping(mapping(group).get("weights"))),
            Reader(mapping(mapping(group).get("input_activations"))),
        )
        bits, size = float(weights.number("num_bits")), weights.number("group_size")
        if not bits:
            continue
        scale = 8 if weights.text("type") == "float" and bits == 4 else 16
        capability = (
            _W4A8_CAPABILITY
            if bits == 4 and activations.number("num_bits") == 8 and activations.text("type") == "float"
            else 0
        )
        block = weights.numbers("block_structure")
        found.append((bits + (scale / size if 0 < size < 4096 else 0), size or (block[0] if block else 0), capability))
    return min(found, default=(SIXTEEN, 0, 0))


def _patterns(reader: Reader) -> list[str]:
    """The names and expressions of modules that keep 16 bits."""
    patterns: list[str] = []
    for source in (reader, reader.part("quantization")):
        for key in (
            "modules_to_not_convert",
            "ignored_layers",
            "ignore",
            "exclude_modules",
            "llm_int8_skip_modules",
            "exclude",
        ):
            patterns += source.texts(key)
        # GPTQModel: a minus before a regular expression leaves those modules as they are.
        dynamic = [str(name) for name in mapping(source.raw("dynamic"))]
        patterns += [f"re:{name[2:]}" for name in dynamic if name.startswith("-:")]
    return patterns


def _keeps_drafts(reader: Reader, layers: int) -> bool:
    """Whether the layers that predict additional tokens keep 16 bits."""
    names = (
        "mtp.layers.0.mlp.experts.0.up_proj",
        "mtp.layers.0.self_attn.q_proj",
        f"model.layers.{layers}.mlp.down_proj",
    )
    return any(_matcher(pattern)(name) for pattern in _patterns(reader) for name in names)


def _excluded(reader: Reader, layers: int) -> dict[str, float]:
    """The share of each kind of module that keeps 16 bits."""
    patterns = _patterns(reader)
    if not patterns:
        return {}
    exact, loose = set(), []
    for pattern in patterns:
        tail = (
            pattern[pattern.index("layers.") :] if "layers." in pattern and not pattern.startswith("re:") else pattern
        )
        if tail.startswith("layers.") and not set(tail) & set("*?[\\"):
            exact.add(tail)
        else:
            loose.append(_matcher(pattern))
    # Which kinds of modules are excluded in some layers only can be read from exact names; patterns are tried on two layers.
    counted = range(min(layers, 256))
    found = {}
    for kind, names in MODULES.items():
        hits = [any(f"layers.{i}.{part}" in exact for name in names for part in _prefixes(name)) for i in counted]
        if any(match(f"model.layers.{i}.{name}") for match in loose for i in {1, layers - 1} for name in names):
            found[kind] = 1.0
        elif any(hits):
            found[kind] = sum(hits) / len(hits)
    return found


def _prefixes(name: str) -> Sequence[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _matcher(pattern: str) -> Any:
    if pattern.startswith("re:"):
        try:
            return re.compile(pattern[3:]).match
        except re.error:
            return lambda name: False
    if set(pattern) & set("*?["):
        return re.compile(fnmatch.translate(pattern)).match
    words = re.compile(rf"(^|\.){re.escape(pattern)}(\.|$)")
    return words.search


def _mixed(reader: Reader) -> dict[str, float]:
    """ModelOpt's list of layers with a method each: the average bits of each kind of module."""
    listed = mapping(reader.raw("quantized_layers")) or mapping(reader.part("quantization").raw("quantized_layers"))
    totals: dict[str, list[float]] = {}
    for name, row in listed.items():
        algorithm = str(mapping(row).get("quant_algo", "")).upper()
        bits = 4.5 if "FP4" in algorithm else 8.0 if "8" in algorithm else SIXTEEN
        kind = _kind(name)
        totals.setdefault(kind, []).append(bits)
    return {kind: sum(bits) / len(bits) for kind, bits in totals.items()}


def _kind(name: str) -> str:
    for kind, words in (
        ("shared", ("shared_expert",)),
        ("experts", (".experts",)),
        ("attention", ("self_attn", "q_proj", "k_proj", "v_proj", "o_proj")),
    ):
        if any(word in name for word in words):
            return kind
    return "linear" if any(word in name for word in ("in_proj", "out_proj", "linear_attn")) else "dense"
