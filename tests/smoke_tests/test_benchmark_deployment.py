"""What a record says of a deployment: the stack's settings without secrets, its outputs, and what the gateway tells."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smoke_tests.benchmark.deployment import read_deployment, ready_replicas
from smoke_tests.errors import TargetError
from smoke_tests.stack import read_config
from smoke_tests.target import Target
from tests.smoke_tests.paced_server import MODEL, PacedServer, paced

CONFIG = {
    "vllm-endpoint:model": {"value": "Qwen/Qwen3-4B-Instruct-2507", "secret": False},
    "vllm-endpoint:apiKeys": {"secret": True},
    "vllm-endpoint:hfToken": {"value": "hf_very_secret", "secret": True},
    "vllm-endpoint:allowedCidrs": {"value": '["203.0.113.0/24"]', "objectValue": ["203.0.113.0/24"], "secret": False},
}
OUTPUTS = {
    "modelRevision": "main", "engineImage": "vllm/vllm-openai:v0.33.0", "engineArguments": ["--max-num-seqs", "256"],
}  # fmt: skip

Pulumi = Callable[[dict[str, Any]], Path]


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pulumi:
    """Put a `pulumi` on the PATH that prints this configuration and writes down how it was called."""

    def install(config: dict[str, Any]) -> Path:
        called, script = tmp_path / "called", tmp_path / "pulumi"
        (tmp_path / "out").write_text(json.dumps(config))
        script.write_text(f'#!/bin/sh\necho "$@" > {called}\ncat {tmp_path}/out\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return called

    return install


def test_the_settings_are_the_stacks_without_secrets(pulumi: Pulumi) -> None:
    called = pulumi(CONFIG)
    assert read_config("dev") == {
        "vllm-endpoint:allowedCidrs": ["203.0.113.0/24"],
        "vllm-endpoint:apiKeys": "[secret]",
        "vllm-endpoint:hfToken": "[secret]",
        "vllm-endpoint:model": "Qwen/Qwen3-4B-Instruct-2507",
    }
    assert called.read_text().split() == ["config", "--json", "--non-interactive", "--stack", "dev"]


def test_a_deployment_is_what_outputs_settings_and_gateway_tell(pulumi: Pulumi) -> None:
    pulumi(CONFIG)
    info = {
        "revision": "abc",
        "engine_version": "0.33.0",
        "gateway_version": "0.1.0",
        "gpu": "a10g",
        "replicas": {"ready": 3},
    }
    with paced(PacedServer(info=info)) as server:
        target = Target(
            server.endpoint,
            "sk-secret",
            MODEL,
            stack="dev",
            gpu="a10g",
            gpu_count=1,
            region="eu-west-1",
            outputs=OUTPUTS,
        )
        told = read_deployment(target)
        assert ready_replicas(target) == 3
    # The gateway is there now; the outputs are of the last deploy.
    assert (told.model_revision, told.engine_version, told.gateway_version) == ("abc", "0.33.0", "0.1.0")
    assert (told.engine_image, told.engine_arguments) == ("vllm/vllm-openai:v0.33.0", ("--max-num-seqs", "256"))
    assert (told.region, told.gpu_count, told.stack) == ("eu-west-1", 1, "dev")
    assert told.config is not None
    assert told.config["vllm-endpoint:apiKeys"] == "[secret]"
    assert "secret" not in told.model_dump_json().replace("[secret]", "")


def test_other_settings_have_another_hash(pulumi: Pulumi) -> None:
    with paced(PacedServer()) as server:
        target = Target(server.endpoint, None, MODEL, stack="dev")
        hashes = []
        for model in ("a", "a", "b"):
            pulumi({"vllm-endpoint:model": {"value": model, "secret": False}})
            hashes.append(read_deployment(target).config_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_bare_endpoint_tells_what_it_can() -> None:
    with paced(PacedServer()) as server:
        told = read_deployment(Target(server.endpoint, None, MODEL))
        assert ready_replicas(Target(server.endpoint)) is None
    assert told.model == MODEL
    assert (told.config, told.config_hash, told.engine_version, told.gpu, told.stand_in) == (
        None,
        None,
        None,
        None,
        False,
    )


def test_settings_that_cannot_be_read_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetError, match="needs the pulumi command"):
        read_config("dev")
