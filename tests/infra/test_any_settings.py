"""With any settings, either the whole program runs, or each problem is reported in one line. Never a traceback."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from infra.errors import UserError
from infra.planning import make_plan
from infra.planning.deployment import deployment_problems
from infra.planning.engine import SHUTDOWN_TIMEOUT_SECONDS
from infra.settings import config_keys, secret_keys
from infra.stack_files import load_stack
from tests.infra.any_settings import FIELDS, any_settings
from tests.infra.aws.rules import broken
from tests.infra.program import RefusedError, run_program

HEADING = re.compile(r"stack dev: \d+ problems? in its settings")
ADVICE = re.compile(r"\b(Set|Remove|Add|set|remove|did you mean)\b")
PROGRAM_EXAMPLES, PLAN_EXAMPLES = 24, 300
REPEATABLE = settings(
    derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def no_model_hub() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there, so only the catalog has models
        yield


def unclear(message: str) -> list[str]:
    """The lines of a refusal that do not say which setting and what to set instead."""
    lines = message.splitlines()
    if HEADING.fullmatch(lines[0]):
        lines = [line.removeprefix("  - ") for line in lines[1:]]
    keys = {*config_keys(), *secret_keys()}
    return [line for line in lines if line.partition(":")[0] not in keys or not ADVICE.search(line)] or (
        [] if lines else ["nothing said"]
    )


def test_every_field_is_tried() -> None:
    assert set(FIELDS) == {*config_keys(), *secret_keys()}


@settings(REPEATABLE, max_examples=PLAN_EXAMPLES)
@given(any_settings())
def test_any_settings_are_planned_or_refused_with_reasons(values: dict[str, Any]) -> None:
    try:
        accepted = load_stack("dev", values)
        plan = make_plan(accepted)
    except UserError as error:
        assert unclear(str(error)) == []
        return
    for reason in deployment_problems(accepted, plan, "us-east-1"):
        assert unclear(reason) == []
    assert plan.memory.fits
    assert plan.cost.usd_per_hour_active >= plan.cost.usd_per_hour_idle > 0
    assert plan.engine.stop_timeout_seconds > SHUTDOWN_TIMEOUT_SECONDS


def test_any_settings_run_or_are_refused_and_break_no_rule() -> None:
    outcomes: list[bool] = []

    @settings(REPEATABLE, max_examples=PROGRAM_EXAMPLES)
    @given(any_settings())
    def run(values: dict[str, Any]) -> None:
        try:
            program = run_program("dev", **values)
        except RefusedError as error:
            outcomes.append(False)
            assert unclear(str(error)) == []
            return
        outcomes.append(True)
        assert program.outputs["endpoint"]
        if values.get("target") != "kubernetes":
            assert broken(program, load_stack("dev", values)) == []

    run()
    assert outcomes.count(True) >= PROGRAM_EXAMPLES // 4, "too few of them are accepted to mean something"


def test_a_refusal_without_advice_is_told() -> None:
    assert unclear("Traceback (most recent call last):") != []
    assert unclear("stack dev: 1 problem in its settings") == ["nothing said"]
    assert unclear("gpu: too small") == ["gpu: too small"]
    assert unclear("gpu: found t4. Set gpu: a10g") == []
