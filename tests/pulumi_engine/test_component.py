"""The components in somebody else's program, on Pulumi's engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.pulumi_engine.plugin_copy import repository_copy
from tests.pulumi_engine.scene import Ran, Scene, names

FOREIGN = Path(__file__).with_name("foreign")
# The traceback of Pulumi's SDK in the program that declares a refused remote component (pulumi.runtime.settings).
SDK_ALONE = "Exception: resource monitor shut down"


def started(folder: Path, root: Path) -> Scene:
    scene = Scene(folder, root=root)
    scene.run("stack", "init", "prod")
    scene.environment["PULUMI_STACK"] = "prod"
    scene.run("config", "set", "aws:region", "us-east-1")
    return scene


@pytest.fixture
def foreign(tmp_path: Path) -> Scene:
    """A project that is not ours, in a folder outside the repository."""
    return started(tmp_path / "scene", FOREIGN)


@pytest.fixture
def foreign_kubernetes(tmp_path: Path) -> Scene:
    """A project that is not ours, with two endpoints on one cluster."""
    return started(tmp_path / "scene", FOREIGN.with_name("foreign_kubernetes"))


@pytest.fixture
def consumer(tmp_path: Path) -> Scene:
    """The same with none of our code: the package is a plugin, a copy of the repository elsewhere."""
    scene = started(tmp_path / "scene", FOREIGN.with_name("foreign_plugin"))
    project = scene.project / "Pulumi.yaml"
    package = repository_copy(tmp_path / "package")
    project.write_text(f"{project.read_text()}packages:\n  vllm-endpoint: {package}\n")
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


def accounts(rows: list[dict[str, Any]]) -> set[str]:
    """The regions and accounts in the ARNs of an endpoint's resources, inputs and outputs."""
    return set(re.findall(r"arn:aws:[\w-]+:([a-z]+-[a-z]+-\d:\d{12}):", json.dumps(rows)))


def test_two_endpoints_in_two_regions_and_accounts_beside_the_programs_own_network(foreign: Scene) -> None:
    preview = foreign.run("preview")
    assert not [line for line in preview.diagnostics if line.startswith("error")]
    first = foreign.up()
    chat, batch = of(foreign, "chat"), of(foreign, "batch")
    owned = {row["urn"] for row in (*chat, *batch)}
    assert not [row["urn"] for row in foreign.resources() if "vllm" in row["urn"] and row["urn"] not in owned]
    assert len(chat) > 80
    assert len(batch) > 100
    assert accounts(chat) == {"us-east-1:123456789012"}
    assert accounts(batch) == {"eu-central-1:210987654321"}
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


def test_two_endpoints_on_one_cluster(foreign_kubernetes: Scene) -> None:
    scene = foreign_kubernetes
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


def test_a_program_uses_the_components_as_a_plugin(consumer: Scene) -> None:
    preview = consumer.run("preview")  # the VPC, the zone and the keys are unknown
    assert not [line for line in preview.diagnostics if line.startswith("error")]
    assert "on an Output" not in preview.output
    consumer.up()
    chat, batch = of(consumer, "chat"), of(consumer, "batch")
    assert len(chat) > 80
    assert len(batch) > 100
    outputs = consumer.outputs()
    assert outputs["chatUrl"] == "https://llm.example.com/v1"
    assert outputs["batchRegion"] == "eu-central-1"
    providers = {row["provider"].split("::")[-2] for row in batch if row["type"].startswith("aws:")}
    assert providers == {"frankfurt"}
    state = consumer.run("stack", "export").output
    assert "hf_hidden" not in state  # marked as a secret by the program
    assert "sk-plain" not in state  # by the schema
    assert consumer.up().unchanged

    change(consumer, scaleDownMinutes=20)
    changed = consumer.up()
    assert changed.steps
    assert {step.urn for step in changed.steps} <= {row["urn"] for row in chat}

    consumer.run("config", "set", "batch", "false")
    removed = consumer.up()
    assert set(removed.steps_of("delete")) == set(names(batch))
    assert {row["urn"] for row in of(consumer, "chat")} == {row["urn"] for row in chat}

    consumer.destroy()
    assert consumer.gone


def change(scene: Scene, **arguments: Any) -> None:
    """Set arguments of the consumer's endpoint chat; ``{"of": "vpcId"}`` is the output that another argument has."""
    scene.run("config", "set", "arguments", json.dumps(arguments))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"gppu": "l4"}, "gppu: unknown setting; did you mean gpu?"),
    ({"kubernetesNamespace": "llm"}, "kubernetesNamespace: not an argument of VllmEndpoint. Remove it"),
    ({"minReplicas": "two"}, "minReplicas: found 'two'. Set a whole number"),
    ({"gatewayCount": 1.5}, "gatewayCount: found 1.5. Set a whole number"),
    (
        {"minReplicas": {"of": "vpcId"}},
        "minReplicas: found an output of another resource, but planning needs the value",
    ),
    ({"model": "Qwen/Qwen3-32B-FP8"}, "gpu: Qwen/Qwen3-32B-FP8 does not fit on one NVIDIA A10G"),
    ({"subnetIds": "subnet-1"}, "subnetIds: found 'subnet-1', should be a list. Set: [\"subnet-1\"]"),
    ({"dockerHubCredentialsArn": "x", "vpcId": ""}, "dockerHubCredentialsArn: found 'x'"),
]


def refusal(ran: Ran) -> str:
    """The only error that is ours."""
    (error,) = [line for line in ran.diagnostics if line.startswith("error") and SDK_ALONE not in line]
    assert "Traceback" not in error
    assert 'File "' not in error
    assert "Unexpected" not in error
    assert "property" not in error.partition("VllmEndpoint chat: ")[0]
    return error


@pytest.mark.whole_matrix
def test_a_refusal_of_the_plugin_is_the_components_sentence_at_preview_and_in_an_apply(consumer: Scene) -> None:
    consumer.run("config", "set", "batch", "false")
    for arguments, words in REFUSED:
        change(consumer, **arguments)
        assert words in refusal(consumer.run("preview", ok=False))
    change(consumer, kmsKeyArn={"of": "vpcId"})
    consumer.run("preview")  # it is not known yet
    told = refusal(consumer.up(ok=False))
    assert "has a problem: VllmEndpoint chat: kmsKeyArn: found 'vpc-" in told
    consumer.destroy()
    assert consumer.gone
