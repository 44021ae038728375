"""The model's properties as the settings change them: baseModel, --hf-overrides, weightsGib and kvBytesPerToken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from infra.engine_options import engine_options
from infra.errors import PlanError
from infra.planning.architecture.caches import Cache
from infra.planning.catalog.models import GIB, FetchConfig, ModelArchitecture, UnknownModelError
from infra.planning.hf_overrides import find_changed_model
from infra.settings import Settings

_ADVICE = "to one of infra/planning/catalog/models.json, or run this with access to the Hub"


def architecture_of(settings: Settings, fetch: FetchConfig, overrides: Mapping[str, Any]) -> ModelArchitecture:
    """The model's properties with ``--hf-overrides``, or those of baseModel if the model cannot be read.

    Raises:
        PlanError: neither can be read.
    """
    try:
        return find_changed_model(settings.model, settings.model_revision, fetch, overrides)
    except UnknownModelError as error:
        if not settings.base_model:
            raise PlanError([f"model: {error}. {error.advice or f'Set model {_ADVICE}'}"]) from None
        doubt = f"its figures are those of {settings.base_model} ({error})"
    try:
        base = find_changed_model(settings.base_model, "", fetch, overrides)
    except UnknownModelError as error:
        raise PlanError([f"baseModel: {error}. Set baseModel {_ADVICE}"]) from None
    return replace(base, doubts=(*base.doubts, doubt), source="baseModel")


def overridden(architecture: ModelArchitecture, settings: Settings) -> ModelArchitecture:
    """The architecture with ``weightsGib``, ``kvBytesPerToken`` and engineArgs' ``--runner`` in place of what was read or computed.

    With both set nothing is estimated any more, so that the doubts about the config no longer matter.
    """
    runner = next(iter(engine_options(settings.engine_args).get("--runner", ())), "auto")
    if runner in ("generate", "pooling") and architecture.kind in ("generate", "pooling"):
        architecture = replace(architecture, kind=runner)
    if settings.weights_gib:
        architecture = replace(architecture, checkpoint_bytes=int(settings.weights_gib * GIB), stored_bits=16)
    if settings.kv_bytes_per_token and architecture.keeps_cache:
        states = tuple(cache for cache in architecture.caches if cache.kind in ("state", "cross"))
        # The bytes are those of the cache's own data type.
        grown = Cache("full", 1, heads=architecture.num_key_value_heads, index_bytes=settings.kv_bytes_per_token)
        architecture = replace(architecture, caches=(*states, grown))
    if settings.weights_gib and (settings.kv_bytes_per_token or not architecture.keeps_cache):
        architecture = replace(architecture, doubts=())
    return architecture
