"""The smallest changes to a stack's settings that would make its model fit."""

from __future__ import annotations

from typing import Any

from infra.errors import PlanError
from infra.planning.catalog.gpus import InstanceType, gpu_specs, known_instance_types
from infra.planning.catalog.models import GIB, ModelArchitecture
from infra.planning.fit import memory_fit
from infra.planning.instances import choose_instances, offers
from infra.planning.memory import AUTOMATIC_LENGTH_STEP_TOKENS, NOTHING, Extras
from infra.planning.plan import MemoryFit
from infra.planning.refusals import refusals
from infra.planning.weights import file_bytes
from infra.settings import Gpu, Settings, Target

SHORTEST_USEFUL_LENGTH_TOKENS = 2048
MOST_SUGGESTIONS = 3
_NAMES = {
    "gpu": "gpu",
    "gpu_count": "gpuCount",
    "quantization": "quantization",
    "max_model_len": "maxModelLen",
    "kv_cache_dtype": "kvCacheDtype",
}


def suggest(
    settings: Settings, architecture: ModelArchitecture, extras: Extras = NOTHING, region: str = ""
) -> list[str]:
    """Changes that fit, as ``key: value`` texts with prices: changes of one setting before changes of two, cheapest first.

    Instance types that the region does not sell this way are suggested only if no other change fits.
    """
    single: list[dict[str, Any]] = []
    if settings.max_model_len > SHORTEST_USEFUL_LENGTH_TOKENS:
        single.append({"max_model_len": 0})
    if settings.quantization in ("", "auto") and not architecture.quantization:
        single.append({"quantization": "fp8"})
    single += [{"gpu_count": count} for count in (1, 2, 4, 8) if count > settings.gpu_count]
    single += [{"gpu": gpu} for gpu in Gpu if gpu is not settings.gpu]
    double = [{"gpu": gpu, "gpu_count": count} for gpu in Gpu for count in (1, 2, 4, 8) if count != settings.gpu_count]
    for changes in (single, double):
        found = [
            (price, place, text)
            for place, change in enumerate(changes)
            for price, text in _priced(settings, architecture, change, extras, region)
        ]
        if found:
            return [text for _, _, text in sorted(found)][:MOST_SUGGESTIONS]
    return suggest(settings, architecture, extras) if region else []


def longer(
    settings: Settings, architecture: ModelArchitecture, extras: Extras, planned_tokens: int, region: str = ""
) -> list[str]:
    """Changes of one setting with which the automatic context length is longer, as texts with length and price, cheapest first."""
    changes: list[dict[str, Any]] = []
    if settings.quantization in ("", "auto") and not architecture.quantization:
        changes.append({"quantization": "fp8"})
    if settings.kv_cache_dtype == "auto":
        changes.append({"kv_cache_dtype": "fp8"})
    changes += [{"gpu_count": count} for count in (1, 2, 4, 8) if count > settings.gpu_count]
    changes += [{"gpu": gpu} for gpu in Gpu if gpu is not settings.gpu]
    found = []
    for change in changes:
        if chosen := _fitting(settings, architecture, change, extras, region):
            memory, instance_type = chosen
            if memory.max_model_len > planned_tokens:
                text = " with ".join(f"{_NAMES[key]}: {value}" for key, value in change.items())
                price = instance_type.usd_per_hour
                found.append(
                    (price, -memory.max_model_len, f"{text} ({memory.max_model_len:,} tokens, ${price:.2f} an hour)")
                )
    return [text for _, _, text in sorted(found)][:MOST_SUGGESTIONS]


def _priced(
    settings: Settings, architecture: ModelArchitecture, change: dict[str, Any], extras: Extras, region: str
) -> list[tuple[float, str]]:
    """The price and the text of one change; empty if it does not fit either."""
    chosen = _fitting(settings, architecture, change, extras, region)
    if not chosen or chosen[0].max_model_len < min(SHORTEST_USEFUL_LENGTH_TOKENS, architecture.max_position_embeddings):
        return []
    memory, instance_type = chosen
    longest = memory.kv_cache_tokens // AUTOMATIC_LENGTH_STEP_TOKENS * AUTOMATIC_LENGTH_STEP_TOKENS
    values = {**change, **({"max_model_len": longest} if "max_model_len" in change else {})}
    text = " with ".join(f"{_NAMES[key]}: {value}" for key, value in values.items())
    price = instance_type.usd_per_hour
    return [(price, f"{text} ({instance_type.name}, ${price:.2f} an hour)")]


def _fitting(
    settings: Settings, architecture: ModelArchitecture, change: dict[str, Any], extras: Extras, region: str
) -> tuple[MemoryFit, InstanceType] | None:
    """The memory and the first instance type of the changed settings; None if they do not work."""
    # instanceTypes for another GPU class must be removed.
    fresh = {"instance_types": ()} if "gpu" in change or "gpu_count" in change else {}
    changed = settings.model_copy(update=change | fresh)
    gpu = gpu_specs()[changed.gpu]
    if refusals(changed, architecture, gpu):
        return None
    try:
        instance_types = choose_instances(changed, gpu, known_instance_types(), file_bytes(architecture) / GIB, region)
    except PlanError:
        return None
    if (
        fresh
        and settings.target is Target.ECS
        and not any(offers(kind, region, settings.capacity, believed=False) for kind in instance_types)
    ):
        return None
    memory = memory_fit(changed, architecture, gpu, instance_types, extras)
    return (memory, instance_types[0]) if memory.fits else None
