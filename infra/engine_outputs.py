"""The outputs that every rendering has."""

from __future__ import annotations

import shlex
from typing import Any

from infra.planning.plan import ServingPlan
from infra.settings import Settings


def ways_in(stack: str) -> dict[str, str]:
    """The commands that publish a stack's endpoint: over HTTPS for everybody, over plain HTTP for named networks.

    Each names the stack: the one that `pulumi stack select` chose may be another.
    """
    return {
        "everybody": f"pulumi config set --stack {stack} domain llm.example.com",
        "networks": f"pulumi config set --stack {stack} --path 'allowedCidrs[0]' 203.0.113.7/32",
    }


def engine_outputs(settings: Settings, plan: ServingPlan) -> dict[str, Any]:
    """What a benchmark keeps beside its figures: the model's revision, the engine's image and arguments, and a replica's price."""
    return {
        "modelRevision": settings.model_revision or "main",
        "engineImage": plan.engine.image,
        # One text, because Pulumi shows a list a line each.
        "engineArguments": shlex.join(plan.engine.args),
        "usdPerHourReplica": plan.capacity.instance_types[0].usd_per_hour,
    }
