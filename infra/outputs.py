"""The outputs that every rendering has, and their order: few for people first, what programs read nested after them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import pulumi

from infra.planning.plan import ServingPlan
from infra.settings import Settings

DETAILS = "stackDetails"
"""The nested output. Pulumi sorts outputs by name, and shows at most 150 characters of a text: this one comes last."""
FOR_PEOPLE = ("endpoint", "getApiKey", "howToOpen", "model", "openaiBaseUrl")
"""The outputs for people, in the order in which Pulumi shows them."""


def for_people_first(outputs: Mapping[str, pulumi.Input[Any]]) -> dict[str, pulumi.Input[Any]]:
    """The outputs as they are exported; `smoke_tests.stack.flat` is the way back."""
    first: dict[str, pulumi.Input[Any]] = {name: outputs[name] for name in FOR_PEOPLE if name in outputs}
    rest = {name: value for name, value in outputs.items() if name not in first}
    return {**first, DETAILS: rest}


def key_command(stack: str) -> str:
    """The command that prints an API key, run in the project's folder. It is short, whatever the key is kept in."""
    return f"make api-key STACK={stack}"


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
        "usdPerHourReplica": plan.replicas.instance_types[0].usd_per_hour,
    }


def verify_output(settings: Settings) -> dict[str, Any]:
    """Where results are kept, and how much worse is too much: shares, 0.1 for 10%."""
    return {
        "resultsBucket": settings.results_bucket,
        "maxSlowdown": settings.verify_max_slowdown_percent / 100,
        "maxTailSlowdown": settings.verify_max_tail_slowdown_percent / 100,
        "maxCostIncrease": settings.verify_max_cost_increase_percent / 100,
        "maxColdStartSlowdown": settings.verify_max_cold_start_slowdown_percent / 100,
        "maxSuccessRateDrop": settings.verify_max_success_rate_drop_percent / 100,
    }
