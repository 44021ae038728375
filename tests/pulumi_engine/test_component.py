"""The components in somebody else's program, on Pulumi's engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pulumi_engine.scene import Scene, names

FOREIGN = Path(__file__).with_name("foreign")


@pytest.fixture
def foreign(tmp_path: Path) -> Scene:
    """A project that is not ours, in a folder outside the repository."""
    scene = Scene(tmp_path / "scene", root=FOREIGN)
    scene.run("stack", "init", "prod")
    scene.environment["PULUMI_STACK"] = "prod"
    scene.run("config", "set", "aws:region", "us-east-1")
    return scene


def of(scene: Scene, endpoint: str) -> list[dict[str, Any]]:
    """The resources of one endpoint, the component itself included."""
    rows = scene.resources()
    own = {row["urn"] for row in rows if row["urn"].endswith(f"vllm-endpoint:index:VllmEndpoint::{endpoint}")}
    while True:
        grown = own | {row["urn"] for row in rows if row.get("parent") in own}
        if grown == own:
            return [row for row in rows if row["urn"] in own]
        own = grown


def test_two_endpoints_in_two_regions_beside_the_programs_own_network(foreign: Scene) -> None:
    preview = foreign.run("preview")
    assert not [line for line in preview.diagnostics if line.startswith("error")]
    first = foreign.up()
    chat, batch = of(foreign, "chat"), of(foreign, "batch")
    owned = {row["urn"] for row in (*chat, *batch)}
    assert not [row["urn"] for row in foreign.resources() if "vllm" in row["urn"] and row["urn"] not in owned]
    assert len(chat) > 80
    assert len(batch) > 100
    assert "on an Output" not in first.output  # what Pulumi's SDK makes of an output in a text
    outputs = foreign.outputs()
    assert outputs["chatUrl"] == "https://llm.example.com/v1"
    assert outputs["batchRegion"] == "eu-central-1"
    assert foreign.up().unchanged

    foreign.run("config", "set", "scaleDownMinutes", "20")
    changed = foreign.up()
    assert changed.steps
    assert {step.urn for step in changed.steps} <= {row["urn"] for row in (*chat, *of(foreign, "chat"))}

    foreign.run("config", "set", "batch", "false")
    removed = foreign.up()
    assert set(removed.steps_of("delete")) == set(names(batch))
    assert {row["urn"] for row in of(foreign, "chat")} == {row["urn"] for row in chat}

    foreign.destroy()
    assert foreign.gone


def test_two_endpoints_on_one_cluster(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "scene", root=FOREIGN.with_name("foreign_kubernetes"))
    scene.run("stack", "init", "prod")
    scene.environment["PULUMI_STACK"] = "prod"
    scene.up()
    outputs = scene.outputs()
    assert outputs["chatNamespace"] != outputs["batchNamespace"]
    assert outputs["chatNamespace"] in outputs["chatUrl"]
    assert scene.up().unchanged
    scene.run("config", "set", "chatGateways", "2")
    changed = scene.up()
    assert changed.steps
    assert all("chat" in step.name for step in changed.steps)
    scene.destroy()
    assert scene.gone
