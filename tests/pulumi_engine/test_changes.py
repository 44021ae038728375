"""Every setting, there and back, on three deployed stacks: what docs/changes.md says, and nothing lost that it does not name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from infra.settings import Settings
from tests.pulumi_engine.alternatives import ALTERNATIVES, JUSTIFIED, STACKS, alternative
from tests.pulumi_engine.changes import Change, refusal, stale_revisions
from tests.pulumi_engine.changes_document import DOCUMENT, missing, parse, record, render
from tests.pulumi_engine.conftest import Deployed
from tests.pulumi_engine.scene import Scene, stack_settings

# Of every kind of change one, on the stack where most depends on it; make test-pulumi-all tries them all.
OFTEN = {("allowedCidrs", "dev"), ("port", "domain"), ("subnetIds", "vpc")}
CASES = [
    pytest.param(key, stack, marks=[] if (key, stack) in OFTEN else pytest.mark.whole_matrix, id=f"{key}-{stack}")
    for key in ALTERNATIVES
    for stack in STACKS
    if alternative(key, stack)
]


@pytest.mark.parametrize(("key", "stack"), CASES)
def test_there_and_back(deployed: Deployed, tmp_path: Path, key: str, stack: str) -> None:
    found = alternative(key, stack)
    assert found
    before = {**STACKS[stack], **found.given}
    scene = Scene(tmp_path / "scene", like=deployed(before))
    scene.plant(found.planted)
    change = there_and_back(scene, Change(key, stack), found.change(key), before)
    row = change.row()
    if os.environ.get("UPDATE_DOCS"):
        record(key, stack, row)
    allowed = JUSTIFIED[key].kinds if key in JUSTIFIED else frozenset()
    assert change.lost <= allowed, f"{key}: {change.lost - allowed} replaced or deleted, and no reason given"
    assert stale_revisions(change.there) + stale_revisions(change.back) == []
    known = parse(DOCUMENT.read_text()).get((key, stack))
    assert known in (None, row)  # the document lists the changes that it has no row for


def there_and_back(scene: Scene, change: Change, after: dict[str, Any], before: dict[str, Any]) -> Change:
    """Change a stack, and change it back; a second ``up`` must find nothing to do after either."""
    original = stack_settings("dev") | before
    scene.write(after)
    there = scene.up(ok=None)
    if there.code:
        assert not there.steps, f"{change.key} fails half-way\n{there.output[-3000:]}"
        change = Change(change.key, change.stack, refused=refusal(there))
    elif not there.steps:
        return change  # the program asks for the same resources, now and when it is changed back
    else:
        assert scene.up().unchanged
    scene.write({key: original.get(key) for key in after})
    back = scene.up()
    assert scene.up().unchanged
    if change.refused:
        assert not back.steps
        return change
    return Change(change.key, change.stack, there.steps, back.steps)


def test_every_setting_has_another_value() -> None:
    assert {to_camel(name) for name in Settings.model_fields} == ALTERNATIVES.keys()
    assert set(JUSTIFIED) <= ALTERNATIVES.keys()


def test_the_document_is_as_the_tests_write_it() -> None:
    text = DOCUMENT.read_text()
    assert render(parse(text)) == text


def test_the_document_has_a_row_for_every_change_of_dev() -> None:
    assert [key for key, stack in missing(parse(DOCUMENT.read_text())) if stack == "dev"] == []
