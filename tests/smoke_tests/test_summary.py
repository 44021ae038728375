"""The summary that `make up` prints, and `make api-key`: both read the stack's outputs."""

import json
from pathlib import Path
from typing import Any

import pytest

from smoke_tests import api_key
from smoke_tests import summary as command
from smoke_tests.api_key import choose
from smoke_tests.errors import TargetError
from smoke_tests.stack import flat, own_name
from smoke_tests.summary import running_replicas, summary

DEV: dict[str, Any] = {
    "endpoint": "http://lb.example", "openaiBaseUrl": "http://lb.example/v1", "model": "acme/it's", "minReplicas": 0,
    "usdPerHourActive": 1.1493, "usdPerHourIdle": 0.1118, "usdPerHourReplica": 1.006, "scaleDownMinutes": 10,
}  # fmt: skip
PROD = DEV | {"minReplicas": 1, "usdPerHourActive": 7.109, "usdPerHourIdle": 7.109, "usdPerHourReplica": 6.88}


@pytest.mark.parametrize(
    ("outputs", "running", "line"),
    [
        (DEV, None, "$1.149 an hour while the engine runs; $0.112 idle, after 10 minutes without a request"),
        (DEV, 0, "$0.112 an hour now (0 running)"),
        (DEV, 1, "$1.149 an hour now (1 running); $0.112 idle"),
        (PROD, None, "$7.109 an hour, always: 1 running"),
        (PROD, 2, "$13.989 an hour now (2 running); $7.109 idle"),
    ],
)
def test_the_cost_is_that_of_now_where_somebody_knows(outputs: dict[str, Any], running: int | None, line: str) -> None:
    assert line in summary("dev", outputs, running)


def test_the_first_request_can_be_pasted() -> None:
    text = summary("dev", DEV, None)
    assert "curl http://lb.example/v1/chat/completions \\\n" in text
    assert """'"'"'s""" in text  # a name with a quote in it


def test_how_to_open_is_said_only_where_it_is_closed() -> None:
    assert "open" not in summary("dev", DEV, None)
    assert "pulumi config set domain x.example" in summary(
        "dev", DEV | {"howToOpen": {"a": "pulumi config set domain x.example"}}, 0
    )


def test_a_protected_stack_is_unprotected_before_it_is_destroyed() -> None:
    assert summary("dev", DEV | {"retainedAtDestroy": {}}, 0).endswith("\nstop      make destroy STACK=dev")
    told = summary("prod", PROD | {"retainedAtDestroy": {"weights": "fs-1"}}, 1)
    assert told.index("config set --stack prod protect false") < told.index("make up") < told.index("make destroy")


def test_a_stack_without_services_on_aws_is_not_asked_about_them() -> None:
    assert running_replicas(DEV) is None


def test_outputs_read_alike_however_they_are_nested() -> None:
    nested = {"endpoint": "http://a", "stackDetails": {"region": "x", "engineArguments": "--a 'b c'"}}
    assert flat(nested) == {"endpoint": "http://a", "region": "x", "engineArguments": ["--a", "b c"]}
    old = {"endpoint": "http://a", "region": "x", "engineArguments": ["--a"]}
    assert flat(old) == old
    assert own_name("acme/vllm-endpoint/dev") == own_name("dev") == "dev"


def test_a_key_is_chosen_by_name_and_none_is_shown_by_mistake() -> None:
    one, two = json.dumps({"default": "sk-1"}), json.dumps({"alice": {"key": "sk-a"}, "bob": "sk-b"})
    assert choose(one) == choose(one, "default") == "sk-1"
    assert choose(two, "alice") == "sk-a"
    for name, words in (("", "there are 2 keys; give NAME=alice"), ("carol", "no key named carol")):
        with pytest.raises(TargetError, match=words) as raised:
            choose(two, name)
        assert "sk-" not in str(raised.value)
    with pytest.raises(TargetError, match="cannot be used"):
        choose(json.dumps({"alice": {"sha256": "00"}}))


def test_a_clusters_key_is_read_from_the_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = {"endpoint": "http://gateway.vllm", "stackDetails": {"apiKeySecretName": "api-keys", "namespace": "team"}}
    (tmp_path / "pulumi").write_text(f"#!/bin/sh\necho '{json.dumps(outputs)}'\n")
    (tmp_path / "kubectl").write_text(
        '#!/bin/sh\n[ "$*" = "-n team get secret api-keys -o jsonpath={.data.keys\\.json}" ] || exit 9\n'
        'printf \'{"default": "sk-c"}\' | base64\n'
    )
    for name in ("pulumi", "kubectl"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert api_key.main(["--stack", "dev"]) == 0
    assert capsys.readouterr().out == "sk-c\n"
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho 'error: no such cluster' >&2\nexit 1\n")
    assert api_key.main(["--stack", "dev"]) == 1
    assert "no such cluster" in capsys.readouterr().err


def test_a_stack_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pulumi").write_text("#!/bin/sh\necho \"error: no stack named 'dev' found\" >&2\nexit 255\n")
    (tmp_path / "pulumi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert command.main(["--stack", "dev"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
