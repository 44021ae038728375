"""The examples in Python, as they are in examples/, on Pulumi's engine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

from tests.pulumi_engine.scene import ROOT, Scene

EXAMPLES = ROOT / "examples"
# In place of pulumi-eks and of the SDK that Pulumi generates, which are not installed here. The arguments that the example
# gives to eks.Cluster are those of pulumi-eks 4.
EKS = """
import pulumi


class Cluster(pulumi.ComponentResource):
    def __init__(self, name, *, instance_type, min_size, max_size, desired_capacity, opts=None):
        super().__init__("eks:index:Cluster", name, None, opts)
        self.kubeconfig_json = pulumi.Output.from_input('{"apiVersion": "v1", "kind": "Config"}')
"""
SDK = """
import os
import sys

sys.path.insert(0, os.environ["SCENE_ROOT"])

from infra.kubernetes.endpoint import VllmEndpointOnKubernetes as VllmEndpointOnKubernetes
"""


def scene_of(example: str, folder: Path, **files: str) -> Scene:
    """A stack of an example, with more files beside it."""
    scene = Scene(folder / "scene", root=EXAMPLES / example)
    for name, text in files.items():
        (scene.project / f"{name}.py").write_text(text)
    project = scene.project / "Pulumi.yaml"
    # What `pulumi install` reads to generate the SDK.
    project.write_text(project.read_text().partition("packages:")[0])
    scene.run("stack", "init", "dev")
    scene.environment["PULUMI_STACK"] = "dev"
    return scene


@pytest.mark.whole_matrix
def test_two_endpoints_in_python(tmp_path: Path) -> None:
    scene = scene_of("python-two-endpoints", tmp_path)
    scene.run("config", "set", "aws:region", "us-east-1")
    assert not [line for line in scene.run("preview").diagnostics if line.startswith("error")]
    scene.up()
    outputs = scene.outputs()
    assert outputs["chatUrl"] == "https://llm.example.com/v1"
    assert outputs["batchUrl"].startswith("http://vllm-batch-")
    assert ":us-east-1:" in outputs["chatKeySecret"]
    assert float(outputs["usdPerHour"]) > 1
    assert scene.up().unchanged
    scene.destroy()
    assert scene.gone


@pytest.mark.whole_matrix
def test_an_endpoint_on_an_eks_cluster(tmp_path: Path) -> None:
    scene = scene_of("kubernetes-eks", tmp_path, pulumi_eks=EKS, pulumi_vllm_endpoint=SDK)
    scene.up()
    outputs = scene.outputs()
    assert outputs["namespace"] in outputs["url"]
    assert scene.up().unchanged
    scene.destroy()
    assert scene.gone


def preview_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Scene, ModuleType]:
    """A clone, and the example that drives the clone's program from this process."""
    scene = Scene(tmp_path / "scene")
    for name in [name for name in os.environ if name.startswith(("AWS_", "PULUMI_"))]:
        monkeypatch.delenv(name)
    for name, value in scene.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    spec = importlib.util.spec_from_file_location(
        "preview_environment", EXAMPLES / "automation-api" / "preview_environment.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", scene.project)
    return scene, module


def test_an_endpoint_for_each_pull_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scene, example = preview_environments(tmp_path, monkeypatch)
    before = {path.name for path in scene.project.iterdir()}
    assert example.main(["up", "123"]) == 0
    assert "base URL: http://vllm-pr-123-" in capfd.readouterr().out
    assert {path.name for path in scene.project.iterdir()} - before == {"Pulumi.pr-123.yaml"}
    assert example.main(["down", "123"]) == 0
    assert {path.name for path in scene.project.iterdir()} == before
    assert scene.cloud() == {}
    assert example.main(["up", "12; rm"]) == 2


@pytest.mark.whole_matrix
def test_pull_requests_do_not_disturb_each_other_nor_the_selected_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scene, example = preview_environments(tmp_path, monkeypatch)
    # The engine's cloud has one network: an internet gateway is not deleted while any stack has a NAT gateway.
    monkeypatch.setitem(example.SETTINGS, "vllm-endpoint:natGateways", "none")
    scene.environment["PULUMI_HOME"] = str(tmp_path / "home")
    scene.run("stack", "init", "mine")
    assert example.main(["up", "1"]) == example.main(["up", "2"]) == 0
    capfd.readouterr()
    assert example.main(["up", "1"]) == 0
    assert " unchanged" in capfd.readouterr().out
    assert example.main(["down", "1"]) == 0
    assert "mine*" in scene.run("stack", "ls").output
    assert {row["inputs"].get("tags", {}).get("Stack") for row in scene.cloud().values()} <= {"pr-2", None}
    assert scene.cloud()


@pytest.mark.parametrize(
    ("error", "line"), [("ConcurrentUpdateError", "another run is changing this endpoint"), ("CommandError", "")]
)
def test_what_pulumi_refuses_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: str, line: str
) -> None:
    _, example = preview_environments(tmp_path, monkeypatch)
    kind = getattr(example.auto, error)
    monkeypatch.setattr(example, "up", lambda _: (_ for _ in ()).throw(kind("stderr: refused")))
    assert example.main(["up", "1"]) == 1
    assert f"error: {line}" in capsys.readouterr().err
