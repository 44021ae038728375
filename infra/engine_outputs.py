"""The outputs that every rendering has of its engine."""

from __future__ import annotations

from typing import Any

from infra.planning.plan import ServingPlan
from infra.settings import Settings


def engine_outputs(settings: Settings, plan: ServingPlan) -> dict[str, Any]:
    """What a benchmark keeps beside its figures: the model's revision, the engine's image and arguments, and a replica's price."""
    return {
        "modelRevision": settings.model_revision or "main",
        "engineImage": plan.engine.image,
        "engineArguments": list(plan.engine.args),
        "usdPerHourReplica": plan.capacity.instance_types[0].usd_per_hour,
    }
