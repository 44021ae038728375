"""A change of the components' interface is in the changelog."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from infra.plugin import COMPONENTS
from infra.schema import current, differences, outputs_table, released, text

ROOT = Path(__file__).parents[2]
COMPONENT = "vllm-endpoint:index:VllmEndpoint"


def unreleased(changelog: str) -> str:
    """The section Unreleased, its line breaks removed."""
    found = re.search(r"^## Unreleased\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def missing(changes: list[str], changelog: str) -> list[str]:
    """The changes that the changelog does not name."""
    section = unreleased(changelog)
    return [change for change in changes if change not in section]


def test_each_change_since_the_last_release_is_named_in_the_changelog() -> None:
    changes = differences(released(), current())
    left = missing(changes, (ROOT / "CHANGELOG.md").read_text())
    assert not left, f"name in CHANGELOG.md under Unreleased, in these words: {', '.join(left)}"


def test_the_file_has_the_form_in_which_it_is_written() -> None:
    assert (ROOT / "infra" / "schema.json").read_text() == text(released()), (
        "python -m infra.schema > infra/schema.json"
    )
    assert "version" not in released()


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.__name__)
def test_the_tables_of_outputs_in_the_documentation_are_generated(component: type) -> None:
    page = (ROOT / "docs" / "component.md").read_text()
    found = page.split(f"<!-- {component.__name__} outputs -->\n")[1].split("<!-- end -->")[0]
    assert found == "\n".join(outputs_table(component)) + "\n", "paste: python -m infra.schema outputs"


@pytest.fixture
def changed() -> dict[str, Any]:
    """The released schema, to be changed."""
    return copy.deepcopy(released())


def test_every_kind_of_change_is_noticed(changed: dict[str, Any]) -> None:
    resources = changed["resources"]
    one = resources[COMPONENT]
    one["inputProperties"]["newOne"] = {"type": "string", "plain": True}
    del one["inputProperties"]["warmPool"]
    one["inputProperties"]["model"]["type"] = "integer"
    one["inputProperties"]["vpcId"]["plain"] = True
    one["inputProperties"]["gpu"]["description"] = "GPU class. Default: l4."
    one["requiredInputs"] = ["domain"]
    del one["properties"]["region"]
    one["required"].remove("region")
    one["required"].remove("clusterName")
    one["description"] = "An endpoint."
    resources["vllm-endpoint:index:Another"] = resources.pop("vllm-endpoint:index:VllmEndpointOnKubernetes")
    assert differences(released(), changed) == [
        "component `Another` added",
        "component `VllmEndpointOnKubernetes` removed",
        "argument `domain` changed",
        "argument `gpu` changed",
        "argument `model` changed",
        "argument `newOne` added",
        "argument `vpcId` changed",
        "argument `warmPool` removed",
        "output `clusterName` changed",
        "output `region` removed",
        "component `VllmEndpoint` changed",
    ]
    assert differences(released(), released() | {"dependencies": ["aws"]}) == ["package `vllm-endpoint` changed"]
    assert differences(released(), released()) == []


def test_only_the_words_under_unreleased_count(changed: dict[str, Any]) -> None:
    changed["resources"][COMPONENT]["inputProperties"]["newOne"] = {"type": "string"}
    changes = differences(released(), changed)
    assert missing(
        changes, "# Changelog\n\n## Unreleased\n\n- `newOne` is here.\n\n## 0.1.0\n\n- argument `newOne` added\n"
    )
    assert not missing(changes, "# Changelog\n\n## Unreleased\n\n- Components: argument\n  `newOne` added.\n")
