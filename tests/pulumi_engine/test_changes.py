"""Every setting, there and back, on three deployed stacks: what docs/changes.md says, and nothing lost that it does not name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from infra.settings import Settings
from tests.pulumi_engine.alternatives import ALTERNATIVES, JUSTIFIED, STACKS, alternative
from tests.pulumi_engine.changes import Change, noticed, refusal, stale_revisions
from tests.pulumi_engine.changes_document import DOCUMENT, missing, parse, record, render
from tests.pulumi_engine.conftest import Deployed
from tests.pulumi_engine.scene import COMPONENT, Scene, Step, stack_settings

# Of every kind of change one, on the stack where most depends on it; make test-pulumi-all tries them all.
OFTEN = {("allowedCidrs", "dev"), ("subnetIds", "vpc")}
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
        assert {step.type for step in there.steps} <= {f"{COMPONENT}OnKubernetes"}, (
            f"{change.key} fails half-way\n{there.output[-3000:]}"
        )
        change = Change(change.key, change.stack, refused=refusal(there))
    elif not there.steps:
        return change  # the program asks for the same resources, now and when it is changed back
    else:
        assert scene.up().unchanged
    scene.write({key: original.get(key) for key in after})
    back = scene.up()
    assert scene.up().unchanged
    if change.refused:
        assert {step.type for step in back.steps} <= {f"{COMPONENT}OnKubernetes"}
        return change
    return Change(change.key, change.stack, there.steps, back.steps)


def step(op: str, kind: str, name: str, *changed: str) -> Step:
    return Step(op, f"aws:{kind}", f"urn:pulumi:dev::vllm::type::vllm-dev-{name}", changed)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        # AWS answers with a deployment, whether or not there is a new task definition.
        ([step("update", "ecs/service:Service", "engine", "networkConfiguration")], "Running replicas restart"),
        ([step("update", "ecs/service:Service", "engine", "desiredCount")], "Nothing."),
        ([step("replace", "route53/record:Record", "domain", "name")], "The endpoint's name changes."),
        ([step("delete", "route53/record:Record", "domain")], "The endpoint's name changes."),
        ([step("replace", "route53/record:Record", "domain", "zoneId")], "The endpoint's DNS record moves"),
        ([step("update", "appautoscaling/target:Target", "scaling", "minCapacity")], "Replicas are started or stopped"),
        ([step("update", "appautoscaling/target:Target", "scaling", "tags")], "Nothing."),
        ([step("create", "wafv2/webAcl:WebAcl", "firewall")], "Clients above the limit of requests are blocked."),
    ],
)
def test_what_users_notice_follows_from_the_steps(steps: list[Step], words: str) -> None:
    assert noticed(steps).startswith(words)


def test_every_setting_has_another_value() -> None:
    assert {to_camel(name) for name in Settings.model_fields} == ALTERNATIVES.keys()
    assert set(JUSTIFIED) <= ALTERNATIVES.keys()


def test_the_document_is_as_the_tests_write_it() -> None:
    text = DOCUMENT.read_text()
    assert render(parse(text)) == text


def test_the_document_has_a_row_for_every_change() -> None:
    assert missing(parse(DOCUMENT.read_text())) == []
