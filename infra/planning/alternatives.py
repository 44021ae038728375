"""The smallest changes to a stack's settings that would make its model fit."""

from __future__ import annotations

from typing import Any

from infra.errors import PlanError
from infra.planning.catalog.gpus import gpu_specs, known_instance_types
from infra.planning.catalog.models import GIB, ModelArchitecture
from infra.planning.fit import memory_fit
from infra.planning.instances import choose_instances
from infra.planning.memory import AUTOMATIC_LENGTH_STEP_TOKENS, NOTHING, Extras
from infra.planning.refusals import refusals
from infra.planning.weights import file_bytes
from infra.settings import Gpu, Settings

SHORTEST_USEFUL_LENGTH_TOKENS = 2048
MOST_SUGGESTIONS = 3


def suggest(settings: Settings, architecture: ModelArchitecture, extras: Extras = NOTHING) -> list[str]:
    """Changes that fit, as ``key: value`` texts with prices: changes of one setting before changes of two, cheapest first."""
    single: list[dict[str, Any]] = []
    if settings.max_model_len > SHORTEST_USEFUL_LENGTH_TOKENS:
        single.append({"max_model_len": 0})
    if settings.quantization in ("", "auto") and not architecture.quantization:
        single.append({"quantization": "fp8"})
    single += [{"gpu_count": count} for count in (1, 2, 4, 8) if count > settings.gpu_count]
    single += [{"gpu": gpu} for gpu in Gpu if gpu is not settings.gpu]
    double = [{"gpu": gpu, "gpu_count": count} for gpu in Gpu for count in (1, 2, 4, 8) if count != settings.gpu_count]
    for changes in (single, double):
        found = [(price, text) for change in changes for price, text in _priced(settings, architecture, change, extras)]
        if found:
            return [text for _, text in sorted(found)][:MOST_SUGGESTIONS]
    return []


def _priced(
    settings: Settings, architecture: ModelArchitecture, change: dict[str, Any], extras: Extras
) -> list[tuple[float, str]]:
    """The price and the text of one change, or None if it does not fit either."""
    # instanceTypes for another GPU class must be removed.
    fresh = {"instance_types": ()} if "gpu" in change or "gpu_count" in change else {}
    changed = settings.model_copy(update=change | fresh)
    gpu = gpu_specs()[changed.gpu]
    if refusals(changed, architecture, gpu):
        return []
    try:
        instance_types = choose_instances(changed, gpu, known_instance_types(), file_bytes(architecture) / GIB)
    except PlanError:
        return []
    memory = memory_fit(changed, architecture, gpu, instance_types, extras)
    if not memory.fits or memory.max_model_len < min(
        SHORTEST_USEFUL_LENGTH_TOKENS, architecture.max_position_embeddings
    ):
        return []
    names = {"gpu": "gpu", "gpu_count": "gpuCount", "quantization": "quantization", "max_model_len": "maxModelLen"}
    longest = memory.kv_cache_tokens // AUTOMATIC_LENGTH_STEP_TOKENS * AUTOMATIC_LENGTH_STEP_TOKENS
    values = {**change, **({"max_model_len": longest} if "max_model_len" in change else {})}
    text = " with ".join(f"{names[key]}: {value}" for key, value in values.items())
    return [
        (
            instance_types[0].usd_per_hour,
            f"{text} ({instance_types[0].name}, ${instance_types[0].usd_per_hour:.2f} an hour)",
        )
    ]
