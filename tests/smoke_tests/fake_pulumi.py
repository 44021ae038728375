"""A `pulumi` on the PATH that prints what it is told to, and a state with endpoints of somebody else's program."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ECS, KUBERNETES = "vllm-endpoint:index:VllmEndpoint", "vllm-endpoint:index:VllmEndpointOnKubernetes"
DETAILS = {
    "endpoint": "https://llm.example.com", "openaiBaseUrl": "https://llm.example.com/v1", "model": "Qwen/Qwen3-4B-Instruct-2507",
    "region": "eu-central-1", "profile": "", "gpu": "a10g", "gpuCount": 1, "usdPerHourActive": 1.1, "usdPerHourIdle": 0.06,
    "engineArguments": "--max-model-len 4096",
}  # fmt: skip
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:abc"}
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def row(
    name: str, outputs: Mapping[str, Any] | None = None, kind: str = ECS, parent: str = "", **more: Any
) -> dict[str, Any]:
    """A component in the state of stack `prod` of project `platform`, by default with all outputs."""
    told = {"details": DETAILS} if outputs is None else dict(outputs)
    return {"urn": f"urn:pulumi:prod::platform::{parent}{kind}::{name}", "type": kind, "outputs": told, **more}


def state(*rows: Mapping[str, Any]) -> str:
    """What `pulumi stack export` prints of a deployed stack."""
    stack = {"urn": "urn:pulumi:prod::platform::pulumi:pulumi:Stack::platform-prod", "type": "pulumi:pulumi:Stack"}
    return json.dumps({"version": 3, "deployment": {"resources": [stack, *rows]}}, indent=4)


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    stdout: str = "",
    stderr: str = "",
    code: int = 0,
    name: str = "pulumi",
) -> Path:
    """Put the program on the PATH; returns the file that lists its calls, with the folder each ran in."""
    folder.mkdir(exist_ok=True)
    called = folder / f"{name}-called"
    (folder / f"{name}-out").write_text(stdout)
    (folder / f"{name}-err").write_text(stderr)
    script = folder / name
    script.write_text(
        f'#!/bin/sh\necho "$PWD: $@ [$PULUMI_SKIP_UPDATE_CHECK]" >> {called}\ncat >> {called}\n'
        f"cat {folder}/{name}-out\ncat {folder}/{name}-err >&2\nexit {code}\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    if not os.environ["PATH"].startswith(f"{folder}{os.pathsep}"):
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return called
