"""Models: the values of config.json that memory and parallelism depend on."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image.engine.s3 import is_in_s3
from infra.planning.architecture.caches import Cache
from infra.planning.architecture.config import UnusableConfigError
from infra.planning.architecture.normalize import ModelFields, normalized_fields
from infra.planning.architecture.tensors import Tensor
from infra.planning.catalog.model_repository import UNUSABLE_ADVICE, WEIGHTS_BYTES, UnknownModelError
from infra.planning.catalog.sources import FetchConfig, fetch_config

_DATA = Path(__file__).with_name("models.json")
GIB = 1 << 30
__all__ = ["GIB", "FetchConfig", "ModelArchitecture", "UnknownModelError", "catalog", "fetch_config", "find_model"]


@dataclass(frozen=True)
class ModelArchitecture:
    """The properties of a model that determine memory and parallelism. Sizes are numbers of elements, not bytes.

    ``quantization`` is the checkpoint's own method (fp8, awq, gptq, compressed-tensors) or empty.
    ``weight_bits`` is the width of a quantized linear weight, 16 if it is not quantized.
    ``weight_block`` is the number of weights that share a scale, 0 if a tensor can be split at any element.
    ``draft_layers`` is the number of layers that predict additional tokens (MTP), ``draft_bits`` their width if it is another.
    ``stored_bits`` is the width of an unquantized weight in the files, 32 or 16; vLLM loads both into 16 bits.
    ``cache_dtype`` is the KV cache's data type that the checkpoint chooses where ``kvCacheDtype`` does not.
    ``problem`` says why vLLM cannot run the model; empty if it can.
    ``model_type`` is that of config.json, which names the class that loads the model.
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
    weight_block: int
    experts_per_token: int
    draft_layers: int
    vision_parameters: int
    source: str
    tensors: tuple[Tensor, ...] = ()
    caches: tuple[Cache, ...] = ()
    kind: str = "generate"
    checkpoint_bytes: int = 0
    extra_parameters: int = 0
    stored_bits: int = 16
    cache_dtype: str = ""
    draft_bits: int = 0
    problem: str = ""
    doubts: tuple[str, ...] = ()
    model_type: str = ""

    @property
    def sees(self) -> bool:
        """Whether the model supports images."""
        return self.vision_parameters > 0

    @property
    def keeps_cache(self) -> bool:
        """Whether a sequence keeps keys and values between steps. An encoder reads its input once."""
        return bool(self.caches)

    @property
    def linear_parameters(self) -> int:
        """Parameters of attention and feed-forward weights, which quantization shrinks."""
        return round(sum(tensor.elements for tensor in self.tensors if tensor.linear))

    @property
    def embedding_parameters(self) -> int:
        """Parameters that remain in 16 bits: token embeddings, output head, expert routers, positions."""
        tables = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return round(tables + self.extra_parameters + sum(t.elements for t in self.tensors if not t.linear))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> ModelArchitecture:
        """Read a Hugging Face config.json.

        Raises:
            UnknownModelError: a value is missing, so the memory cannot be computed.
        """
        try:
            fields: ModelFields = normalized_fields(config)
        except UnusableConfigError as error:
            raise UnknownModelError(f"config.json from {source} {error}", UNUSABLE_ADVICE) from None
        kind = config.get("model_type")
        return cls(
            **fields,
            checkpoint_bytes=_bytes(config.get(WEIGHTS_BYTES)),
            source=source,
            model_type=kind if isinstance(kind, str) else "",
        )


def _bytes(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 50 else 0


@functools.cache
def catalog_rows() -> dict[str, dict[str, Any]]:
    """The catalog's configurations, by Hub id."""
    return {name: row for name, row in json.loads(_DATA.read_text()).items() if not name.startswith("_")}


@functools.cache
def catalog() -> dict[str, ModelArchitecture]:
    """The models of the catalog, by Hub id."""
    rows = json.loads(_DATA.read_text())
    return {
        name: ModelArchitecture.from_config(row, "catalog") for name, row in rows.items() if not name.startswith("_")
    }


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
        return ModelArchitecture.from_config(fetch(model, revision), source_of(model))
    except UnknownModelError as error:
        if known:
            return known
        raise unlisted(model, error) from None


def source_of(model: str) -> str:
    """Where the config.json of a model outside the catalog is."""
    return "S3" if is_in_s3(model) else "folder" if Path(model).is_dir() else "hub"


def unlisted(model: str, error: UnknownModelError) -> UnknownModelError:
    """Why a model has no figures: it is not in the catalog, and its config.json is not usable either."""
    return UnknownModelError(f"{model} is not in the catalog, and {error}", error.advice)
