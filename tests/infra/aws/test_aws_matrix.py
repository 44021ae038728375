"""Every configuration of policy/matrix.yaml renders, as an update and as a preview, and breaks no rule."""

from typing import Any

import pytest

from policy.matrix import Entry, load_matrix
from tests.infra.aws.rules import broken
from tests.infra.program import run_program

MATRIX = load_matrix()


def test_the_matrix_holds_what_was_promised() -> None:
    changed = {key for entry in MATRIX.values() for key in entry.settings}
    assert len(MATRIX) >= 12
    assert {"vpcId", "domain", "certificateArn", "allowedCidrs", "warmPool", "ttlHours", "monthlyBudgetUsd"} <= changed
    values: list[Any] = [entry.settings.get("capacity") for entry in MATRIX.values()]
    assert {"spot", "reservation"} <= set(values)


@pytest.mark.parametrize("entry", MATRIX.values(), ids=list(MATRIX))
def test_a_configuration_renders_alike_in_preview_and_breaks_no_rule(entry: Entry) -> None:
    values = entry.values()
    program = run_program(entry.stack_name, **values)
    preview = run_program(entry.stack_name, preview=True, **values)
    assert {r.urn for r in preview.resources} == {r.urn for r in program.resources}
    assert broken(program, entry.parsed()) == []
