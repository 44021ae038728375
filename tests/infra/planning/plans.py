"""Plans of the committed stacks with changes, without access to the Hub."""

from typing import Any

import pytest

from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.catalog.models import UnknownModelError
from infra.planning.plan import ServingPlan
from infra.stack_files import load_stack


def no_hub(model: str, revision: str) -> dict[str, object]:
    raise UnknownModelError("the Hub cannot be reached (tests never reach it)")


def plan(stack: str = "dev", **overrides: Any) -> ServingPlan:
    return make_plan(load_stack(stack, overrides), fetch=no_hub)


def reasons(stack: str = "dev", **overrides: Any) -> list[str]:
    with pytest.raises(PlanError) as raised:
        plan(stack, **overrides)
    return raised.value.problems


def argument(args: tuple[str, ...], name: str) -> str:
    return args[args.index(name) + 1]
