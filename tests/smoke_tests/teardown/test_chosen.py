"""A sweep for an endpoint that another program declares, beside a stack of this project with the same stack name."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.identity import Identity as Owner
from policy.emulator import REGION
from smoke_tests.teardown import __main__ as command
from smoke_tests.teardown.identity import Identity
from tests.smoke_tests.fake_pulumi import DETAILS, KUBERNETES, install, row, state
from tests.smoke_tests.teardown.planted import Planted

STACK = "organization/platform/prod"
MINE = "platform/prod/chat"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = command.main(["--stack", STACK, "--json", "--this-region-only", "--quiet", *arguments])
    return code, json.loads(capsys.readouterr().out)


def names(found: dict[str, Any]) -> set[str]:
    return {entry["identifier"] for entry in found["left"]}


@pytest.mark.parametrize("is_in_the_state", [True, False], ids=["deployed", "removed"])
def test_only_that_endpoints_resources_are_found_and_deleted(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    is_in_the_state: bool,
) -> None:  # fmt: skip
    details = DETAILS | {"region": REGION}
    rows = [row("chat", {"details": details}), row("batch", {"details": details})]
    install(tmp_path / "bin", monkeypatch, state(*rows if is_in_the_state else rows[1:]))
    ours, batch = Planted(aws, "prod").everything(), Planted(aws, "platform/prod/batch")
    batch.network()
    mine = Planted(aws, MINE)
    mine.network()
    code, found = told(capsys, "--endpoint-name", "chat")
    assert (code, found["stack"]) == (1, MINE)
    expected = {one for identifiers in mine.identifiers.values() for one in identifiers}
    assert names(found) == expected
    others = {one for planted in (ours, batch) for each in planted.identifiers.values() for one in each}
    assert not names(found) & others
    code, found = told(capsys, "--endpoint-name", "chat", "--fix", "--yes")
    assert (code, names(found)) == (0, set())
    code, found = told(capsys, "--endpoint-name", "batch")
    assert names(found) == {one for each in batch.identifiers.values() for one in each}


@pytest.mark.parametrize(
    ("exported", "arguments", "line"),
    [
        (state(row("chat"), row("batch")), (), "has 2 endpoints; give --endpoint-name, one of: batch, chat"),
        (state(), (), "has no endpoint"),
        (
            state(row("chat", kind=KUBERNETES)),
            ("--endpoint-name", "chat"),
            "runs on Kubernetes; kubectl get namespaces",
        ),
    ],
)
def test_nothing_is_swept_where_no_endpoint_is_named(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    exported: str, arguments: tuple[str, ...], line: str,
) -> None:  # fmt: skip
    install(tmp_path / "bin", monkeypatch, exported)
    Planted(aws, "prod").network()
    assert command.main(["--stack", STACK, *arguments]) == 2
    assert line in capsys.readouterr().err


def test_a_name_that_the_state_does_not_have_is_looked_for_and_said(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", monkeypatch, "", "error: no stack named 'prod' found\n", 6)
    assert command.main(["--stack", STACK, "--endpoint-name", "chat", "--this-region-only"]) == 0
    assert "note: no stack named 'prod' found" in capsys.readouterr().err
    (tmp_path / "Pulumi.yaml").write_text("name: vllm-endpoint\n")
    assert command.main(["--stack", "prod", "--endpoint-name", "chat", "--this-region-only"]) == 2
    assert "another program's stack is ORG/PROJECT/STACK" in capsys.readouterr().err


def test_the_region_is_the_states_and_not_the_environments(
    aws: boto3.Session, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", monkeypatch, state(row("chat")))
    _, found = told(capsys)
    assert found["regions"][0] == DETAILS["region"] != REGION


def test_a_name_without_tags_counts_by_the_endpoints_own_prefix() -> None:
    chat, batch = (Identity.of(Owner("prod", "platform", name)) for name in ("chat", "batch"))
    named = f"{chat.prefix}-gpu-1a2b3c4"
    assert chat.claims("ECS cluster", named, {}) == "name"
    assert batch.claims("ECS cluster", named, {}) == Identity("prod").claims("ECS cluster", named, {}) == ""
    assert chat.claims("ECS cluster", named, {"Project": "vllm-endpoint", "Stack": "prod"}) == ""
