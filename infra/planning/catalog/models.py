"""Models: the values of config.json that memory and parallelism depend on."""

from __future__ import annotations

import functools
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.web_address import open_url

_DATA = Path(__file__).with_name("models.json")
HUB_TIMEOUT_SECONDS = 5
GIB = 1 << 30

FetchConfig = Callable[[str, str], Mapping[str, Any]]


class UnknownModelError(LookupError):
    """A model is not in the catalog, and its config.json cannot be read or is not usable."""


@dataclass(frozen=True)
class ModelArchitecture:
    """The properties of a model that determine memory and parallelism. Sizes are numbers of elements, not bytes.

    ``quantization`` is the checkpoint's own method (fp8, awq, gptq, compressed-tensors) or empty.
    ``weight_bits`` is the width of a quantized linear weight, 16 if it is not quantized.
    ``weight_block`` is the number of weights that share a scale, 0 if a tensor can be split at any element.
    ``draft_layers`` is the number of layers that predict additional tokens (MTP).
    ``minimum_capability`` is ten times the lowest SM version on which vLLM supports the checkpoint's quantization.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    quantization: str
    weight_bits: int
    minimum_capability: int
    num_experts: int
    moe_intermediate_size: int
    gated_mlp: bool
    weight_block: int
    experts_per_token: int
    draft_layers: int
    vision_parameters: int
    source: str

    @property
    def sees(self) -> bool:
        """Whether the model supports images."""
        return self.vision_parameters > 0

    @property
    def linear_parameters(self) -> int:
        """Parameters of attention and feed-forward weights, which quantization shrinks."""
        heads, kv_heads, hidden = self.num_attention_heads, self.num_key_value_heads, self.hidden_size
        attention = hidden * self.head_dim * (2 * heads + 2 * kv_heads)
        matrices = 3 if self.gated_mlp else 2
        if self.num_experts:
            feed_forward = self.num_experts * matrices * hidden * self.moe_intermediate_size
        else:
            feed_forward = matrices * hidden * self.intermediate_size
        return self.num_hidden_layers * (attention + feed_forward)

    @property
    def embedding_parameters(self) -> int:
        """Parameters that remain in 16 bits: token embeddings, output head, expert routers."""
        tables = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return tables + self.num_hidden_layers * self.num_experts * self.hidden_size

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> ModelArchitecture:
        """Read a Hugging Face config.json.

        Raises:
            UnknownModelError: a value is missing, so the memory cannot be computed.
        """
        text = {**config, **(config.get("text_config") or {})}
        try:
            hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
            layers, vocabulary = int(text["num_hidden_layers"]), int(text["vocab_size"])
        except (KeyError, TypeError, ValueError) as error:
            raise UnknownModelError(f"config.json from {source} has no usable {error}") from None
        kv_heads = 1 if text.get("multi_query") else int(text.get("num_key_value_heads") or heads)
        intermediate = int(text.get("intermediate_size") or text.get("ffn_hidden_size") or 4 * hidden)
        experts = int(text.get("num_experts") or text.get("num_local_experts") or text.get("n_routed_experts") or 0)
        quantization = config.get("quantization_config") or text.get("quantization_config") or {}
        method = str(quantization.get("quant_method", ""))
        bits = int(quantization.get("bits") or (8 if method == "fp8" else 0)) or _compressed_bits(quantization)
        vision = int(config.get("vision_parameters") or 0)
        if not vision and (config.get("vision_config") or config.get("vision_tower")):
            vision = _vision_parameters(config.get("vision_config") or {})
        return cls(
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=int(text.get("head_dim") or hidden // heads),
            vocab_size=vocabulary,
            max_position_embeddings=int(text.get("max_position_embeddings") or 2048),
            tie_word_embeddings=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
            quantization=method,
            weight_bits=bits,
            minimum_capability=_minimum_capability(method, quantization),
            num_experts=experts,
            moe_intermediate_size=int(text.get("moe_intermediate_size") or intermediate),
            gated_mlp=bool(text.get("gated_mlp", True)),
            experts_per_token=int(text.get("num_experts_per_tok") or text.get("moe_topk") or 0),
            weight_block=int((quantization.get("weight_block_size") or [quantization.get("group_size") or 0])[0]),
            draft_layers=int(text.get("num_nextn_predict_layers") or text.get("mtp_num_hidden_layers") or 0),
            vision_parameters=vision,
            source=source,
        )


# Minimum compute capability of each weight quantization, from vLLM 0.32's classes.
MINIMUM_CAPABILITY = {
    "awq": 75, "bitsandbytes": 70, "compressed-tensors": 70, "experts_int8": 80, "fbgemm_fp8": 80, "fp8": 75,
    "fp_quant": 100, "gptq": 60, "modelopt": 75, "mxfp4": 80, "torchao": 75,
}  # fmt: skip
_W4A8_CAPABILITY = 90  # 4-bit weights with FP8 activations require Hopper or newer


def _minimum_capability(method: str, quantization: Mapping[str, Any]) -> int:
    for group in (quantization.get("config_groups") or {}).values():
        weights, activations = group.get("weights") or {}, group.get("input_activations") or {}
        if weights.get("num_bits") == 4 and activations.get("num_bits") == 8 and activations.get("type") == "float":
            return _W4A8_CAPABILITY
    return MINIMUM_CAPABILITY.get(method, 0)


def _compressed_bits(quantization: Mapping[str, Any]) -> int:
    groups = quantization.get("config_groups") or {}
    widths = [group["weights"]["num_bits"] for group in groups.values() if group.get("weights")]
    return int(min(widths)) if widths else 16


def _vision_parameters(vision: Mapping[str, Any]) -> int:
    """A vision tower's parameters, from its config: a plain transformer of ``depth`` layers."""
    width = int(vision.get("hidden_size") or vision.get("embed_dim") or 1024)
    depth = int(vision.get("num_hidden_layers") or vision.get("depth") or 24)
    inner = int(vision.get("intermediate_size") or 4 * width)
    return depth * (4 * width * width + 2 * width * inner)


@functools.cache
def catalog() -> dict[str, ModelArchitecture]:
    """The models of the catalog, by Hub id."""
    rows = json.loads(_DATA.read_text())
    return {
        name: ModelArchitecture.from_config(row, "catalog") for name, row in rows.items() if not name.startswith("_")
    }


def fetch_config(model: str, revision: str) -> Mapping[str, Any]:
    """A model's config.json from the Hub, or from a folder if ``model`` is one.

    Raises:
        UnknownModelError: it cannot be read; contains the reason.
    """
    folder = Path(model)
    if folder.is_dir():
        try:
            return dict(json.loads((folder / "config.json").read_text()))
        except (OSError, ValueError) as error:
            raise UnknownModelError(f"the folder {model} has no readable config.json ({error})") from None
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if not endpoint.startswith(("https://", "http://")):
        raise UnknownModelError(f"HF_ENDPOINT is {endpoint}, not an http address")
    request = urllib.request.Request(f"{endpoint}/{model}/resolve/{revision or 'main'}/config.json")  # noqa: S310 - checked above
    if token := os.environ.get("HF_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with open_url(request, HUB_TIMEOUT_SECONDS) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        reason = {
            401: "it does not exist, or is gated and needs HF_TOKEN",
            403: "it is gated: HF_TOKEN has no access",
            404: "it does not exist",
        }
        raise UnknownModelError(f"the Hub returned {error.code}: {reason.get(error.code, error.reason)}") from None
    except (OSError, ValueError) as error:
        raise UnknownModelError(f"the Hub cannot be reached ({getattr(error, 'reason', error)})") from None


def find_model(model: str, revision: str = "", fetch: FetchConfig = fetch_config) -> ModelArchitecture:
    """The properties of a model: from the catalog if it is listed and no revision is set, else from its config.json.

    The catalog takes precedence, so that the plan of a known model does not depend on network access.

    Raises:
        UnknownModelError: the model is in neither.
    """
    known = catalog().get(model)
    if known and not revision:
        return known
    try:
        return ModelArchitecture.from_config(fetch(model, revision), "hub" if not Path(model).is_dir() else "folder")
    except UnknownModelError as error:
        if known:
            return known
        raise UnknownModelError(f"{model} is not in the catalog, and {error}") from None
