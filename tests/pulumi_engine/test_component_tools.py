"""The tools find an endpoint of somebody else's program in the state that Pulumi's engine wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smoke_tests import api_key, summary
from smoke_tests import stack as stack_module
from smoke_tests.__main__ import _parser
from smoke_tests.errors import TargetError
from smoke_tests.stack import read_stack
from smoke_tests.target import target_from_options
from smoke_tests.teardown.chosen import choose
from tests.pulumi_engine.scene import Scene

STACK = "organization/platform/prod"
KEY = "sk-of-the-team"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A deployed program that is not ours, with two endpoints in two regions."""
    scene = Scene(tmp_path_factory.mktemp("tools") / "scene", root=Path(__file__).with_name("foreign"))
    scene.run("stack", "init", "prod")
    scene.environment["PULUMI_STACK"] = "prod"
    scene.run("config", "set", "aws:region", "us-east-1")
    scene.up()
    return scene


@pytest.fixture
def elsewhere(foreign: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """This process in a folder without a Pulumi program, and without the passphrase."""
    monkeypatch.chdir(tmp_path)
    for name in ("PATH", "PULUMI_BACKEND_URL", "PULUMI_ENGINE_PYTHON", "SCENE_PYTHON", "SCENE_ROOT", "SCENE_SPAWNER"):
        monkeypatch.setenv(name, foreign.environment[name])
    for name in ("PULUMI_CONFIG_PASSPHRASE", "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return foreign


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Which secrets are read from which region; each holds one key."""
    found: list[tuple[str, str]] = []

    class Secrets:
        def __init__(self, region: str) -> None:
            self.region = region

        def get_secret_value(self, SecretId: str) -> dict[str, Any]:  # noqa: N803 - the SDK's name
            found.append((self.region, SecretId))
            return {"SecretString": json.dumps({"team": KEY})}

    monkeypatch.setattr(stack_module, "aws_client", lambda _, outputs: Secrets(outputs["region"]))
    return found


def test_an_endpoint_is_found_by_its_name_from_any_folder(elsewhere: Scene, asked: list[tuple[str, str]]) -> None:
    outputs = elsewhere.outputs()
    chat, batch = (target(name) for name in ("chat", "batch"))
    assert chat.openai_base_url == outputs["chatUrl"]
    assert batch.openai_base_url == outputs["batchUrl"]
    assert (chat.region, batch.region) == ("us-east-1", "eu-central-1")
    assert (chat.gpu, batch.gpu) == ("a10g", "l4")
    assert chat.usd_per_hour
    assert chat.stack == "platform/prod/chat"
    assert [region for region, _ in asked] == ["us-east-1", "eu-central-1"]
    assert asked[0][1] == outputs["chatKeySecret"]


def target(name: str) -> Any:
    return target_from_options(_parser().parse_args(["--stack", STACK, "--endpoint-name", name]))


@pytest.mark.usefixtures("elsewhere")
def test_several_endpoints_without_a_name_are_refused_with_their_names() -> None:
    with pytest.raises(TargetError, match=r"has 2 endpoints; give --endpoint-name, one of: batch, chat"):
        read_stack(STACK)
    with pytest.raises(TargetError, match=r"no stack named 'organization/platform/other' found"):
        read_stack("organization/platform/other")


@pytest.mark.usefixtures("elsewhere", "asked")
def test_a_key_is_printed_by_the_command_for_it_alone(capfd: pytest.CaptureFixture[str]) -> None:
    found = target("chat")
    assert found.api_key == KEY
    assert KEY not in repr(found)
    assert summary.main(["--stack", STACK, "--endpoint-name", "chat"]) == 0
    assert KEY not in "".join(capfd.readouterr())
    assert api_key.main(["--stack", STACK, "--endpoint-name", "chat"]) == 0
    assert capfd.readouterr().out == f"{KEY}\n"


def test_teardown_claims_the_resources_of_that_endpoint_and_no_others(elsewhere: Scene) -> None:
    said: list[str] = []
    chosen = {name: choose(STACK, name, "vllm-endpoint", Path(), say=said.append) for name in ("chat", "batch")}
    assert [chosen["chat"].region, chosen["batch"].region] == ["us-east-1", "eu-central-1"]
    assert not said
    rows = elsewhere.resources()
    parents = {row["urn"]: row.get("parent", "") for row in rows}

    def owner(urn: str) -> str:
        while urn and "vllm-endpoint:index:VllmEndpoint::" not in urn:
            urn = parents.get(urn, "")
        return urn.rpartition("::")[2]

    counted = dict.fromkeys(("chat", "batch"), 0)
    for row in rows:
        tags = (row.get("inputs") or {}).get("tags")
        if not isinstance(tags, dict) or row["custom"] is False:
            continue
        claimed = [name for name, one in chosen.items() if one.identity.claims("", "", tags)]
        assert claimed == [name for name in [owner(row["urn"])] if name], row["urn"]
        for name in claimed:
            counted[name] += 1
    assert min(counted.values()) > 20
