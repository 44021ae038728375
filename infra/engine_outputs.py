"""The outputs that every rendering has."""

from __future__ import annotations

import shlex
from typing import Any

from infra.planning.plan import ServingPlan
from infra.settings import Settings

WAYS_IN = {
    "everybody": "pulumi config set domain llm.example.com",
    "networks": "pulumi config set --path 'allowedCidrs[0]' 203.0.113.7/32",
}
"""The commands that publish an endpoint: over HTTPS for everybody, over plain HTTP for networks that are named."""


def engine_outputs(settings: Settings, plan: ServingPlan) -> dict[str, Any]:
    """What a benchmark keeps beside its figures: the model's revision, the engine's image and arguments, and a replica's price."""
    return {
        "modelRevision": settings.model_revision or "main",
        "engineImage": plan.engine.image,
        # One text, because Pulumi shows a list a line each.
        "engineArguments": shlex.join(plan.engine.args),
        "usdPerHourReplica": plan.capacity.instance_types[0].usd_per_hour,
    }
