"""The plugin's schema, as Pulumi's CLI gets and checks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.plugin import version
from infra.schema import current
from tests.pulumi_engine.plugin_copy import repository_copy
from tests.pulumi_engine.scene import Scene


@pytest.fixture
def package(tmp_path: Path) -> Scene:
    """A folder with the repository's copy in it, its name with a space, and no program of ours."""
    repository_copy(tmp_path / "a package")
    return Scene(tmp_path / "scene", root=Path(__file__).with_name("foreign_plugin"))


def promised(schema: dict[str, Any]) -> dict[str, Any]:
    """Each argument and output: its description, and whether it is plain or secret."""
    return {
        f"{token} {kind} {name}": [entry.get(key) for key in ("description", "plain", "secret", "type")]
        for token, resource in schema["resources"].items()
        for kind in ("inputProperties", "properties")
        for name, entry in resource[kind].items()
    }


def test_the_schema_is_got_from_another_folder_and_is_clean(package: Scene, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(package.run("package", "get-schema", str(tmp_path / "a package")).output)
    got = json.loads(path.read_text())
    assert got["version"] == version()
    assert package.run("schema", "check", str(path)).output == ""
    # The CLI reads the schema and writes it again, without the descriptions of a list's items.
    assert promised(got) == promised(current())
    got["resources"]["vllm-endpoint:index:VllmEndpoint"]["properties"]["region"]["type"] = "text"
    path.write_text(json.dumps(got))
    assert "region" in package.run("schema", "check", str(path), ok=False).output
