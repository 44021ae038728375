"""`make key`: keys are added, rotated, revoked and listed, where they are kept, without a restart and without losing an edit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from image.gateway import keys
from image.gateway.backends import FileKeys, SecretsManagerKeys
from image.gateway.errors import ApiError
from image.gateway.keys_document import parse, rfc_3339, timestamp
from image.gateway.limits import Limits
from image.gateway.telemetry import Telemetry
from local import folders, gateway
from smoke_tests.errors import TargetError
from smoke_tests.keys import __main__ as command
from smoke_tests.keys.__main__ import main as keys_main
from smoke_tests.keys.document import KEPT_AFTER_EXPIRY_SECONDS, Document
from smoke_tests.keys.stores import ConflictError, FileStore, SecretStore

ROOT = Path(__file__).parents[2]
NOW = 1_800_000_000.0


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = command.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


# The document


def test_a_rotated_key_keeps_what_it_may_and_its_old_one_ends() -> None:
    document = Document(
        json.dumps({"alice": {"key": "sk-1", "limits": {"concurrency": 2}, "priority": 5}, "bob": "sk-b"})
    )
    document.rotate("alice", "sk-2", {}, NOW, 3600)
    found = parse(document.text())
    assert list(found) == ["sk-2", "sk-1", "sk-b"], "the newest first"
    assert found["sk-2"].limits == found["sk-1"].limits == Limits(2)
    assert (found["sk-2"].priority, found["sk-2"].expires, found["sk-1"].expires) == (5, None, NOW + 3600)
    document.rotate("alice", "sk-3", {"priority": 1}, NOW + 60, 7200)
    found = parse(document.text())
    assert (found["sk-3"].priority, found["sk-2"].expires, found["sk-1"].expires) == (1, NOW + 7260, NOW + 3600)


def test_a_key_that_ends_by_itself_is_not_made_endless_by_a_rotation() -> None:
    end = rfc_3339(NOW + 100)
    document = Document(json.dumps({"alice": {"key": "sk-1", "expires": end}}))
    document.rotate("alice", "sk-2", {}, NOW, 3600)
    found = parse(document.text())
    assert found["sk-1"].expires == found["sk-2"].expires == NOW + 100
    document.rotate("alice", "sk-3", {}, NOW + 101, 3600)
    assert parse(document.text())["sk-3"].expires is None, "one that has ended is renewed"


def test_expired_keys_are_kept_for_a_while_to_say_when_they_expired() -> None:
    document = Document(json.dumps({"alice": {"key": "sk-1", "expires": rfc_3339(NOW)}, "bob": "sk-b"}))
    document.add("alice", "sk-2", {}, NOW + 10)
    assert list(parse(document.text())) == ["sk-2", "sk-1", "sk-b"]
    document.rotate("bob", "sk-c", {}, NOW + KEPT_AFTER_EXPIRY_SECONDS + 1, 0)
    assert list(parse(document.text())) == ["sk-2", "sk-c", "sk-b"]


@pytest.mark.parametrize("text", ["sk-bare\n", "# team\nalice=sk-a\nbob=sk-b\n", '{"a": "old", "a": "new"}', ""])
def test_any_form_of_a_document_is_taken(text: str) -> None:
    document = Document(text)
    document.add("new", "sk-new", {}, NOW)
    before = parse(text) if text else {}
    assert {key: found.name for key, found in parse(document.text()).items()} == {
        **{key: found.name for key, found in before.items()},
        "sk-new": "new",
    }


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda document: document.add("alice", "sk-x", {}, NOW), "alice has a key already; give it a new one with ROTATE=alice"),
        (lambda document: document.add("a b", "sk-x", {}, NOW), "'a b' is not a name"),
        (lambda document: document.rotate("carol", "sk-x", {}, NOW, 1), "no key named carol"),
        (lambda document: document.revoke("carol"), "no key named carol"),
        (lambda document: document.revoke("alice"), "alice has the only key"),
        (lambda document: (document.add("b", "sk-x", {"priority": 1000}, NOW), document.text()), "priority is 1000"),
        (lambda document: (document.add("b", "sk-x", {"limits": {"concurrency": 0}}, NOW), document.text()), "concurrency is 0"),
    ],
)  # fmt: skip
def test_each_refusal_says_what_to_do(edit: Any, says: str) -> None:
    with pytest.raises(TargetError, match=says) as refused:
        edit(Document('{"alice": "sk-hidden"}'))
    assert "sk-" not in str(refused.value)


# The command, on a file


def test_a_new_key_is_printed_once_and_nowhere_else(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        capsys, "--file", str(path), "--add", "alice", "--concurrency", "2", "--priority", "5", "--health"
    )
    key = out.strip()
    assert (code, len(out.split())) == (0, 1)
    assert key.startswith("sk-")
    assert len(key) > 40
    assert key not in err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = parse(path.read_text())[key]
    assert (found.name, found.limits, found.priority, found.health) == ("alice", Limits(2), 5, True)
    code, out, err = run(capsys, "--file", str(path), "--list")
    assert code == 0
    assert key not in out + err
    assert "alice  good   never    concurrency 2  5         health checks" in out
    _, out, _ = run(capsys, "--file", str(path), "--rotate", "alice", "--grace-hours", "2")
    assert out.strip() != key
    old = parse(path.read_text())[key].expires
    assert old is not None
    assert old == pytest.approx(time.time() + 7200, abs=60)
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"], "no lock and no half-written file is left"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--add", "a", "--expires", "tomorrow"), "--expires: expires is 'tomorrow'; set a date and time"),
        (("--add", "a", "--expires", "2020-01-01T00:00:00Z"), "is past"),
        (("--revoke", "a"), "no key named a"),
    ],
)
def test_a_refusal_is_one_line(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    code, out, err = run(capsys, "--file", str(path), *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not path.exists()


def test_a_document_is_checked_line_by_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text('{"a": {"key": "sk-1", "prio": 1}, "b": {"key": "sk-2", "expires": "soon"}}')
    code, _, err = run(capsys, "--check", str(path))
    assert (code, err.count("error: ")) == (2, 2)
    assert "sk-" not in err
    path.write_text('{"a": ["sk-1", "sk-2"], "b": "sk-3"}')
    assert run(capsys, "--check", str(path)) == (0, "", f"{path}: 3 keys of 2 names\n")


def test_no_edit_is_lost_however_many_write_at_once(path: Path) -> None:
    path.write_text('{"first": "sk-first"}')
    program = "import sys; from smoke_tests.keys.__main__ import main; sys.exit(main(sys.argv[1:]))"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, "--file", str(path), "--add", f"name{n}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    made = {writer.communicate(timeout=50)[0].strip() for writer in writers}
    assert [writer.returncode for writer in writers] == [0] * 4
    assert set(parse(path.read_text())) == {"sk-first", *made}


def test_a_write_on_top_of_another_version_is_refused(path: Path) -> None:
    path.write_text("alice=sk-a")
    store = FileStore(path)
    _, version = store.read()
    path.write_text("alice=sk-a\nbob=sk-b")
    with pytest.raises(ConflictError):
        store.write("{}", version)
    assert "bob" in path.read_text()


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what changes is the ring's, and tells nobody
            await asyncio.sleep(0.01)


def accepts(ring: keys.KeyRing, key: str) -> bool:
    with contextlib.suppress(ApiError):
        return bool(ring.authenticate([(b"authorization", f"Bearer {key}".encode())]).name)
    return False


async def live_a_life(source: keys.KeySource, where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every command, beside a gateway's ring that is never started anew."""
    ring = keys.KeyRing()
    await keys.load(ring, source)
    task = asyncio.create_task(keys.keep_fresh(ring, source, 0.01, Telemetry()))

    async def made(*arguments: str) -> str:
        code, out, _ = await asyncio.to_thread(run, capsys, *where, *arguments)
        assert code == 0
        return out.strip()

    first = await made("--add", "alice")
    await until(lambda: accepts(ring, first))
    second = await made("--rotate", "alice")
    await until(lambda: accepts(ring, second))
    assert accepts(ring, first), "the old key lives for the grace period"
    third = await made("--rotate", "alice", "--grace-hours", "0")
    await until(lambda: accepts(ring, third) and not accepts(ring, second))
    with pytest.raises(ApiError, match="expired on"):
        ring.authenticate([(b"x-api-key", second.encode())])
    assert await made("--revoke", "alice") == ""
    await until(lambda: not accepts(ring, third))
    assert accepts(ring, "sk-default")
    task.cancel()


@pytest.fixture
def with_a_key(path: Path) -> Path:
    path.write_text('{"default": "sk-default"}')
    return path


async def test_a_gateway_takes_up_each_change_of_a_file_without_a_restart(
    with_a_key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = with_a_key
    source = keys.source_of(FileKeys(path))
    assert source is not None
    await live_a_life(source, ["--file", str(path)], capsys)


def test_the_keys_of_this_machine_and_the_files_that_make_local_names_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, file in (("API_KEY", "api-key"), ("API_KEYS", "api-keys.json"), ("CURL_HEADERS", "curl-headers")):
        monkeypatch.setattr(folders, name, tmp_path / file)
    assert "make local" in run(capsys, "--local", "--add", "bob")[2]
    folders.API_KEY.write_text("sk-older-than-the-document\n")
    assert gateway.make_key() == "sk-older-than-the-document"
    _, new, _ = run(capsys, "--local", "--rotate", "default")
    assert folders.API_KEY.read_text() == new
    assert new.strip() in folders.CURL_HEADERS.read_text()
    assert list(parse(folders.API_KEYS.read_text())) == [new.strip(), "sk-older-than-the-document"]
    run(capsys, "--local", "--add", "probe", "--health")
    code, _, err = run(capsys, "--local", "--revoke", "default")
    assert (code, err.splitlines()[-1].startswith("error: the change is made, but every key in")) == (2, True)


# The command, on a stack


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    with mock_aws():
        client = boto3.client("secretsmanager", region_name="eu-west-1")
        yield client.create_secret(Name="vllm-dev-api-keys", SecretString='{"default": "sk-default"}')["ARN"]


def stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **outputs: Any) -> None:
    """A `pulumi` that says these outputs."""
    program = tmp_path / "bin" / "pulumi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps({'endpoint': 'http://lb.example', **outputs})}\nEND\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


async def test_a_gateway_takes_up_each_change_of_a_secret_without_a_restart(
    secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack(monkeypatch, tmp_path, apiKeySecretArn=secret, region="eu-west-1", apiKeysSetBy="make key")
    source = keys.source_of(SecretsManagerKeys(secret))
    assert source is not None
    await live_a_life(source, ["--stack", "dev"], capsys)


def test_an_edit_of_a_secret_in_between_is_kept(secret: str) -> None:
    """Two read the same version; the second one's write is refused, and made anew on top of the first one's."""
    store = SecretStore(secret, "eu-west-1")
    tries = []

    def edit(document: Document) -> None:
        tries.append(1)
        if len(tries) == 1:
            command.change(SecretStore(secret, "eu-west-1"), lambda other: other.add("bob", "sk-b", {}, NOW))
        document.add("alice", "sk-a", {}, NOW)

    command.change(store, edit)
    assert len(tries) == 2
    assert [key.name for key in parse(store.read()[0]).values()] == ["default", "bob", "alice"]
    _, version = store.read()
    command.change(store, lambda document: document.revoke("bob"))
    with pytest.raises(ConflictError):
        store.write('{"x": "sk-x"}', version)
    assert "sk-x" not in store.read()[0]


def test_the_version_that_pulumi_made_stays_and_no_other_label_is_left(secret: str) -> None:
    """Secrets Manager deletes versions without a label; a deploy that misses its own would make it again, as the current one."""
    client = boto3.client("secretsmanager", region_name="eu-west-1")
    (made,) = client.describe_secret(SecretId=secret)["VersionIdsToStages"]
    store = SecretStore(secret, "eu-west-1")
    for number in range(4):
        command.change(store, lambda document, number=number: document.add(f"n{number}", f"sk-{number}", {}, NOW))  # type: ignore[misc]
    stages = client.describe_secret(SecretId=secret)["VersionIdsToStages"]
    labels = [label for found in stages.values() for label in found]
    assert stages[made] == ["pulumi-seed"]
    assert sorted(labels) == ["AWSCURRENT", "AWSPREVIOUS", "pulumi-seed"]


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        (
            {"apiKeySecretArn": "arn", "apiKeysSetBy": "apiKeysDocument"},
            "come from its setting apiKeysDocument; change it there",
        ),
        ({"apiKeySecretArn": "arn", "apiKeysSetBy": "apiKeys"}, "pulumi config rm apiKeys"),
        ({"apiKeySecretName": "api-keys"}, "on Kubernetes set apiKeysDocument"),
        ({"apiKeySecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:none"}, "ResourceNotFoundException"),
    ],
)
def test_a_stack_whose_keys_are_not_here_to_change_is_one_line(
    secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    outputs: dict[str, str], says: str,
) -> None:  # fmt: skip
    stack(monkeypatch, tmp_path, region="eu-west-1", **outputs)
    code, out, err = run(capsys, "--stack", "dev", "--add", "alice")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_make_hands_on_what_it_is_given(path: Path) -> None:
    told = subprocess.run(
        [
            "make", "-n", "key", "STACK=prod", "ROTATE=alice", "GRACE_HOURS=2", "PRIORITY=-5", "CONCURRENCY=3",
            "REQUESTS_PER_MINUTE=60", "TOKENS_PER_MINUTE=900", "EXPIRES=2999-01-01T00:00:00Z", "HEALTH=1",
        ],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},  # of `make test`
    ).stdout.replace("\\\n", "").splitlines()[-1]  # fmt: skip
    words = shlex.split(told)
    options = command._parser().parse_args(words[words.index("smoke_tests.keys") + 1 :])
    assert (options.stack, options.rotate, options.grace_hours, options.priority) == ("prod", "alice", 2, -5)
    assert (options.concurrency, options.requests_per_minute, options.tokens_per_minute) == (3, 60, 900)
    assert timestamp(options.expires) > time.time()
    assert options.health


def test_a_write_that_fails_leaves_no_second_file_of_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"alice": "k"}')
    store = FileStore(path)
    text, version = store.read()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TargetError, match="No space left"):
        store.write('{"bob": "k2"}', version)
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys.json"]
    assert path.read_text() == text


def test_without_an_action_one_line_says_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    for where in (["--stack", "dev"], ["--local"], ["--file", "keys.json"]):
        assert keys_main(where) == 2
        error = capsys.readouterr().err
        assert error == "error: nothing to do; set one of: --add NAME, --rotate NAME, --revoke NAME, --list\n"
    assert keys_main(["--list"]) == 2
    assert capsys.readouterr().err == "error: which endpoint? Give --stack NAME, --local or --file PATH\n"
