"""An endpoint of somebody else's program, found by its name in the state of a stack, and the error if it is not."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from infra.identity import Identity
from smoke_tests import api_key, history, summary
from smoke_tests.components import is_of_stack_file, project_here
from smoke_tests.errors import TargetError
from smoke_tests.history_entry import checked_name, name_of
from smoke_tests.pulumi_command import json_in
from smoke_tests.stack import PROJECT_FOLDER, read_stack
from tests.smoke_tests.fake_pulumi import DETAILS, KUBERNETES, SECRET, UNKNOWN, install, row, state

STACK = "acme/platform/prod"
ESCAPE = "\x1b[31m"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda stdout="", stderr="", code=0: install(tmp_path / "bin", monkeypatch, stdout, stderr, code)


def project(folder: Path, name: str, file: str = "Pulumi.yaml") -> Path:
    folder.mkdir(exist_ok=True)
    text = json.dumps({"runtime": "nodejs", "name": name}, indent=2) if file.endswith("json") else f"name: {name}\n"
    (folder / file).write_text(text)
    return folder


@pytest.mark.parametrize("named", ["chat", "", "urn:pulumi:prod::platform::vllm-endpoint:index:VllmEndpoint::chat"])
def test_the_only_endpoint_needs_no_name(pulumi: Any, named: str) -> None:
    called = pulumi(state(row("chat")))
    found = read_stack(STACK, named)
    assert (found.endpoint, found.region, found.identity) == (
        "https://llm.example.com", "eu-central-1", Identity("prod", "platform", "chat"),
    )  # fmt: skip
    assert found.outputs["engineArguments"] == ["--max-model-len", "4096"]
    assert "stack export --non-interactive --stack acme/platform/prod [true]" in called.read_text()
    assert "--show-secrets" not in called.read_text()


def test_a_component_inside_another_is_found_and_one_that_was_replaced_is_not(pulumi: Any) -> None:
    pulumi(state(row("chat", parent="acme:index:Platform$"), row("old", delete=True)))
    assert read_stack(STACK).identity.endpoint == "chat"


@pytest.mark.parametrize(
    ("exported", "named", "line"),
    [
        (state(row("chat"), row("batch")), "", "has 2 endpoints; give --endpoint-name, one of: batch, chat"),
        (state(row("chat"), row("batch")), "caht", "no endpoint named caht; give --endpoint-name, one of: batch, chat"),
        (state(row("chat"), row("chat", parent="a:b:C$")), "chat", "has 2 endpoints named chat; give the urn, one of: urn:"),
        (state(row("bucket", kind="aws:s3/bucket:Bucket")), "", "has no endpoint: neither VllmEndpoint nor"),
        ('{"version": 3, "deployment": {"resources": null}}', "", "acme/platform/prod is not deployed; run pulumi up first"),
        ('{"version": 3}', "chat", "acme/platform/prod is not deployed; run pulumi up first"),
        (state(row("chat", {})), "chat", "endpoint chat of stack acme/platform/prod is not completely deployed"),
        (state(row("chat", {"details": UNKNOWN})), "chat", "is not completely deployed; run pulumi up again"),
        (state(row("chat", {"endpointUrl": "http://a"})), "chat", "no output `details`: an earlier version of the component"),
        (state(row("chat", {"details": SECRET})), "chat", "is encrypted, because the program passes a secret"),
        (state(row("chat", {"details": {"model": "m"}})), "chat", "no output `endpoint`; run pulumi up again"),
        (state(row("chat", {"details": DETAILS | {"endpoint": SECRET}})), "chat", "no output `endpoint`"),
        ("Please choose a stack", "", "printed no JSON"),
    ],
)  # fmt: skip
def test_no_single_deployed_endpoint_is_one_line(pulumi: Any, exported: str, named: str, line: str) -> None:
    pulumi(exported)
    with pytest.raises(TargetError) as refused:
        read_stack(STACK, named)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "v1:abc" not in str(refused.value)


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("error: no stack named 'prod' found\n", "no stack named 'prod' found; pulumi stack ls lists the stacks"),
        (
            "error: PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions\n",
            "must be set for login during non-interactive CLI sessions; run pulumi login, or set PULUMI_ACCESS_TOKEN",
        ),
        (
            "warning: A new version of Pulumi is available.\nLogging in using access token from PULUMI_ACCESS_TOKEN\n"
            "error: performing HTTP request: connection refused\n",
            "failed: performing HTTP request: connection refused",
        ),
        (
            f"{ESCAPE}error: {ESCAPE}organization name must be 'organization'\n",
            "give --stack organization/PROJECT/STACK",
        ),
        ("error: no Pulumi.yaml project file found; either\n", "or run this in the program's folder"),
        ("error: incorrect passphrase\n", "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE"),
        (
            "error: failed to load checkpoint: EOF\n",
            "run this again when it has ended",
        ),  # a file is read while it is written
        ("error: unable to open state directory\n", "set PULUMI_BACKEND_URL to the backend of the stack"),
    ],
)
def test_what_pulumi_refuses_is_one_line_with_what_to_do(pulumi: Any, stderr: str, line: str) -> None:
    pulumi("", stderr, 255)
    with pytest.raises(TargetError) as refused:
        read_stack(STACK, "chat")
    assert line in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("stack", ["", "acme/platform/", "a/b/c/d", " "])
def test_an_empty_name_is_never_the_selected_stack(pulumi: Any, stack: str) -> None:
    called = pulumi(state(row("chat")))
    with pytest.raises(TargetError, match="set STACK, or ORG/PROJECT/STACK"):
        read_stack(stack, "chat")
    assert not called.exists()


@pytest.mark.parametrize(
    "printed",
    [
        '{"a": 1}\nwarning: A new version of Pulumi is available.\n',
        'SDK 2026/06/16 15:59:16 WARN Response has no supported checksum.\n{\n  "a": 1\n}\n',
        'warning: {braces}\n{not json}\n{"a": 1}',
    ],
)
def test_json_is_found_between_the_warnings_of_the_cli(printed: str) -> None:
    assert json_in(printed) == {"a": 1}


def test_the_current_folders_project_decides_what_a_short_name_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_of_stack_file("dev")  # outside of every project
    monkeypatch.chdir(project(tmp_path / "theirs", "platform"))
    assert not is_of_stack_file("dev")
    assert is_of_stack_file("acme/vllm-endpoint/dev")
    (tmp_path / "theirs" / "deep").mkdir()
    assert project_here(tmp_path / "theirs" / "deep") == "platform"
    assert project_here(project(tmp_path / "json", "platform", "Pulumi.json")) == "platform"
    monkeypatch.chdir(PROJECT_FOLDER)
    assert is_of_stack_file("dev")
    assert is_of_stack_file("acme/dev")
    assert not is_of_stack_file("acme/platform/dev")
    assert not is_of_stack_file("dev", "chat")


def test_a_stack_of_theirs_with_a_name_of_ours_is_theirs(
    pulumi: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = pulumi(state(row("chat")))
    monkeypatch.chdir(project(tmp_path / "theirs", "platform"))
    assert read_stack("dev").identity.tag == "platform/prod/chat"
    assert called.read_text().startswith(f"{tmp_path / 'theirs'}: stack export")


def test_history_is_kept_by_project_stack_and_name(
    pulumi: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called = pulumi()
    arguments = ["--stack", STACK, "--endpoint-name", "chat", "--folder", str(tmp_path)]
    assert history.main(arguments) == 0
    assert "has no results of platform-prod-chat-7a6e1f26" in capsys.readouterr().out
    assert not called.exists()  # a folder and a name are enough
    names = [
        name_of(Identity(*parts))
        for parts in [("prod", "a.b", "c"), ("b.prod", "a", "c"), ("prod", "a", "b/c"), ("x" * 100, "y" * 100, "ü")]
    ]
    assert len(set(names)) == 4
    assert [checked_name(name) for name in names] == names
    assert name_of(Identity("dev")) == "dev"


def test_a_key_in_a_cluster_is_read_from_the_endpoints_namespace(
    pulumi: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    details = DETAILS | {
        "namespace": "vllm-chat-7a6e1f26",
        "apiKeySecretName": "api-keys",
        "showApiKeys": "kubectl ...",
    }
    pulumi(state(row("chat", {"details": details}, KUBERNETES)))
    document = base64.b64encode(b'{"default": "sk-cluster"}').decode()
    called = install(tmp_path / "bin", monkeypatch, document, name="kubectl")
    assert api_key.main(["--stack", STACK]) == 0
    assert capsys.readouterr().out == "sk-cluster\n"
    assert "-n vllm-chat-7a6e1f26 get secret api-keys" in called.read_text()


def test_the_summary_names_commands_for_any_folder(pulumi: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pulumi(state(row("chat"), row("batch")))
    assert summary.main(["--stack", STACK, "--endpoint-name", "chat"]) == 0
    told = capsys.readouterr().out
    assert "endpoint chat of stack acme/platform/prod is up" in told
    assert "python -m smoke_tests.api_key --stack acme/platform/prod --endpoint-name chat" in told
    assert "remove chat from the program, then pulumi up" in told
    assert "make " not in told
