"""Applies ``--hf-overrides`` of engineArgs to a model's config.json, so that the plan counts what vLLM will run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from infra.planning.catalog.models import (
    FetchConfig,
    ModelArchitecture,
    UnknownModelError,
    catalog_rows,
    find_model,
    source_of,
    unlisted,
)


def find_changed_model(
    model: str, revision: str, fetch: FetchConfig, overrides: Mapping[str, Any]
) -> ModelArchitecture:
    """The properties of a model whose config.json is overridden, such as for YaRN.

    Raises:
        UnknownModelError: the model is neither in the catalog nor on the Hub, or the changed values are not usable.
    """
    if not overrides:
        return find_model(model, revision, fetch)
    row = catalog_rows().get(model)
    if row is not None and not revision:
        return _changed(row, "catalog", overrides)
    try:
        return _changed(fetch(model, revision), source_of(model), overrides)
    except UnknownModelError as error:
        if row is None:
            raise unlisted(model, error) from None
    return _changed(row, "catalog", overrides)


def _changed(config: Mapping[str, Any], source: str, overrides: Mapping[str, Any]) -> ModelArchitecture:
    text = overrides.get("text_config")
    if isinstance(text, Mapping) and "text_config" not in config:  # the catalog has the text model's values at the top
        overrides = {**{key: value for key, value in overrides.items() if key != "text_config"}, **text}
    elif ModelArchitecture.from_config(config, source).sees:
        # vLLM reads the length of a vision model from its text_config.
        overrides = {key: value for key, value in overrides.items() if key != "max_position_embeddings"}
    return ModelArchitecture.from_config(merged(config, overrides), source)


def merged(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with its overridden values; parts of it (text_config) are merged, other objects replaced."""
    found = dict(config)
    for key, value in overrides.items():
        part = found.get(key)
        is_part = key.endswith("_config") and isinstance(value, Mapping) and isinstance(part, Mapping)
        found[key] = merged(part, value) if is_part else value  # type: ignore[arg-type]
    if overrides.keys() & {"rope_scaling", "rope_parameters"}:
        # transformers reads either name, and the override replaces what the file says under the other.
        for other in {"rope_scaling", "rope_parameters"} - overrides.keys():
            found.pop(other, None)
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def longer_context_hint(settings_length: int, architecture: ModelArchitecture, overrides: Mapping[str, Any]) -> str:
    """What is missing in YaRN's overrides for a length beyond the model's; empty if nothing is."""
    rope = overrides.get("rope_parameters") or overrides.get("rope_scaling")
    text = overrides.get("text_config")
    if rope is None and isinstance(text, Mapping):
        rope = text.get("rope_parameters") or text.get("rope_scaling")
    if settings_length <= architecture.max_position_embeddings or not isinstance(rope, Mapping):
        return ""
    return f"; vLLM does not multiply the length by YaRN's factor, so --hf-overrides must also set max_position_embeddings: {settings_length}"
