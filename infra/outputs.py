"""The outputs shared by all targets, in order: a few for people first, then a nested one for programs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import pulumi

from infra.identity import Identity
from infra.planning.plan import ServingPlan
from infra.settings import Settings

DETAILS = "stackDetails"
"""The nested output. Pulumi sorts outputs by name and truncates strings to 150 characters; this name sorts last."""
FOR_PEOPLE = ("endpoint", "getApiKey", "howToOpen", "model", "openaiBaseUrl")
"""The outputs for people, in the order in which Pulumi shows them."""


def for_people_first(outputs: Mapping[str, pulumi.Input[Any]]) -> dict[str, pulumi.Input[Any]]:
    """The outputs as they are exported; `smoke_tests.stack.flat` is the inverse."""
    first: dict[str, pulumi.Input[Any]] = {name: outputs[name] for name in FOR_PEOPLE if name in outputs}
    rest = {name: value for name, value in outputs.items() if name not in first}
    return {**first, DETAILS: rest}


def key_command(stack: str) -> str:
    """The command that prints an API key, run in the project's folder. It is the same short command for all targets."""
    return f"make api-key STACK={stack}"


def ways_in(identity: Identity) -> dict[str, str]:
    """What publishes an endpoint: over HTTPS to the internet, or over plain HTTP to specific networks.

    Each command includes the stack's name, because another stack may be selected.
    """
    if identity.endpoint:
        return {
            "everybody": 'the argument domain, such as "llm.example.com"',
            "networks": 'the argument allowedCidrs, such as ["203.0.113.7/32"]',
        }
    stack = identity.stack
    return {
        "everybody": f"pulumi config set --stack {stack} domain llm.example.com",
        "networks": f"pulumi config set --stack {stack} --path 'allowedCidrs[0]' 203.0.113.7/32",
    }


def engine_outputs(settings: Settings, plan: ServingPlan) -> dict[str, Any]:
    """Metadata stored with benchmark results: the model's revision, the engine's image and arguments, a replica's price."""
    return {
        "modelRevision": settings.revision,
        "engineImage": plan.engine.image,
        # A single string, because Pulumi prints a list one item per line.
        "engineArguments": shlex.join(plan.engine.args),
        "usdPerHourReplica": plan.replicas.instance_types[0].usd_per_hour,
    }


def verify_output(settings: Settings) -> dict[str, Any]:
    """Where make verify stores results, and the allowed regressions as fractions (0.1 for 10%)."""
    return {
        "resultsBucket": settings.results_bucket,
        "maxSlowdown": settings.verify_max_slowdown_percent / 100,
        "maxTailSlowdown": settings.verify_max_tail_slowdown_percent / 100,
        "maxCostIncrease": settings.verify_max_cost_increase_percent / 100,
        "maxColdStartSlowdown": settings.verify_max_cold_start_slowdown_percent / 100,
        "maxSuccessRateDrop": settings.verify_max_success_rate_drop_percent / 100,
    }
