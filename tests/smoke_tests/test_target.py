"""The sources of endpoint, model, price and key, and the error if one of them is not available."""

import argparse
import json
import os
import stat
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from image.gateway.keys import KeysError, parse_document
from smoke_tests.errors import TargetError
from smoke_tests.target import Target, add_target_options, first_key, normalize_endpoint, target_from_options

OUTPUTS = (
    '{"endpoint": "http://lb.example:80", "model": "Qwen/Qwen3-4B-Instruct-2507", "region": "eu-west-1", '
    '"gpu": "a10g", "gpuCount": 1, "instanceType": "g5.xlarge", "usdPerHourActive": 1.0493}'
)


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_target_options(parser)
    return parser.parse_args(arguments)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_API_KEY", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    # boto3 caches the credentials of its first use in this process, which may be another test.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a fake `pulumi` on the PATH that prints a given text and records its arguments."""

    def install(stdout: str = "", stderr: str = "", code: int = 0) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        called = folder / "called"
        (folder / "out").write_text(stdout)
        (folder / "err").write_text(stderr)
        script = folder / "pulumi"
        script.write_text(f'#!/bin/sh\necho "$@" > {called}\ncat {folder}/out\ncat {folder}/err >&2\nexit {code}\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return called

    return install


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://a.example/v1/", "https://a.example"),
        (" https://a.example/tenant/v1", "https://a.example/tenant"),
    ],
)
def test_an_endpoint_is_taken_with_or_without_v1(given: str, base: str) -> None:
    assert normalize_endpoint(given) == base


@pytest.mark.parametrize("given", ["a.example", "ftp://a.example", "http://", ""])
def test_what_is_no_url_is_refused(given: str) -> None:
    with pytest.raises(TargetError, match="is not a URL"):
        normalize_endpoint(given)


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ('{"alice": "sk-a", "bob": "sk-b"}', "sk-a"),
        ('{"alice": {"key": "sk-a", "limits": {"concurrency": 2}}}', "sk-a"),
        ("# team\n\nalice=sk-a\nbob=sk-b\n", "sk-a"),
        ("sk-bare\n", "sk-bare"),
        ("c2stYQ==", "c2stYQ=="),
        ("alice=c2stYQ==", "c2stYQ=="),
        ("a+b/c=d", "a+b/c=d"),
        ('{"alice": ["sk-new", {"key": "sk-old", "expires": "2999-01-31T00:00:00Z"}]}', "sk-new"),
    ],
)
def test_the_first_key_is_the_one_the_gateway_reads(document: str, key: str) -> None:
    assert first_key(document) == key
    assert next(iter(parse_document(document))) == key


def test_a_key_that_has_expired_or_is_for_health_checks_is_passed_over() -> None:
    old = {"key": "sk-old", "expires": "2026-01-31T00:00:00Z"}
    assert first_key(json.dumps({"probe": {"key": "sk-probe", "health": True}, "alice": [old, "sk-new"]})) == "sk-new"
    with pytest.raises(TargetError, match="make key ADD=NAME"):
        first_key(json.dumps({"alice": old}))


@pytest.mark.parametrize("document", ["", "# nothing\n", "{}", '{"a": 5}', '{"a": ', "two words", "schlüssel"])
def test_a_useless_keys_document_is_refused_by_both(document: str) -> None:
    with pytest.raises(TargetError) as refused:
        first_key(document)
    assert document == "" or document not in str(refused.value)
    with pytest.raises(KeysError):
        parse_document(document)


def test_a_key_comes_from_the_file_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("sk-file\n")
    assert target_from_options(options("--endpoint", "http://a")).api_key is None
    monkeypatch.setenv("VLLM_API_KEY", "sk-environment")
    assert target_from_options(options("--endpoint", "http://a")).api_key == "sk-environment"
    target = target_from_options(options("--endpoint", "http://a", "--api-key-file", str(file)))
    assert target.api_key == "sk-file"
    with pytest.raises(TargetError, match=r"cannot read .*: No such file"):
        target_from_options(options("--endpoint", "http://a", "--api-key-file", str(tmp_path / "missing")))


def test_a_target_never_shows_its_key() -> None:
    assert "sk-secret" not in repr(Target("http://a", "sk-secret"))


@mock_aws
def test_a_stack_gives_everything(pulumi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    secrets = boto3.client("secretsmanager", region_name="eu-west-1")
    arn = secrets.create_secret(Name="vllm-dev-api-keys", SecretString='{"default": "sk-stack"}')["ARN"]
    called = pulumi(OUTPUTS.replace("{", f'{{"apiKeySecretArn": "{arn}", ', 1))
    assert target_from_options(options("--stack", "dev")) == Target(
        endpoint="http://lb.example:80",
        api_key="sk-stack",
        model="Qwen/Qwen3-4B-Instruct-2507",
        stack="dev",
        gpu="a10g",
        gpu_count=1,
        instance_type="g5.xlarge",
        region="eu-west-1",
        usd_per_hour=1.0493,
    )
    assert "--show-secrets" not in called.read_text()
    assert "--stack dev" in called.read_text()
    monkeypatch.setenv("VLLM_API_KEY", "sk-mine")
    assert target_from_options(options("--stack", "dev", "--model", "other")).api_key == "sk-mine"


def test_a_stack_without_keys_has_none(pulumi: Any) -> None:
    pulumi(OUTPUTS)
    assert target_from_options(options("--stack", "dev")).api_key is None


@pytest.mark.parametrize(
    ("stdout", "stderr", "code", "line"),
    [
        ("{}", "", 0, "stack 'dev' has no outputs; deploy it first: make up STACK=dev"),
        ('{"model": "m"}', "", 0, "has no output `endpoint`; deploy it first"),
        (
            "",
            "error: no stack named 'dev' found\nmore\n",
            255,
            "no stack named 'dev' found; pulumi stack ls lists the stacks",
        ),
        (
            "",
            "error: PULUMI_ACCESS_TOKEN must be set\n",
            1,
            "pulumi stack output --stack dev failed: PULUMI_ACCESS_TOKEN",
        ),
        ("Please choose a stack", "", 0, "printed no JSON"),
    ],
)
def test_a_stack_that_tells_nothing_is_one_line(pulumi: Any, stdout: str, stderr: str, code: int, line: str) -> None:
    pulumi(stdout, stderr, code)
    with pytest.raises(TargetError) as refused:
        target_from_options(options("--stack", "dev"))
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_key_in_a_cluster_is_the_users_to_fetch(pulumi: Any) -> None:
    pulumi(
        '{"endpoint": "http://gateway.vllm", "apiKeySecretName": "api-keys", "showApiKeys": "kubectl -n vllm get secret"}'
    )
    with pytest.raises(TargetError, match=r"save it with: kubectl -n vllm get secret > api-keys\.json"):
        target_from_options(options("--stack", "dev"))


def test_no_pulumi_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetError, match="not on the PATH; install it or use --endpoint URL"):
        target_from_options(options("--stack", "dev"))


@pytest.mark.parametrize("signed_in", [False, True], ids=["no_credentials", "no_such_secret"])
def test_a_key_that_cannot_be_read_is_one_line(
    pulumi: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, signed_in: bool
) -> None:
    arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:gone-AbCdEf"
    pulumi(OUTPUTS.replace("{", f'{{"apiKeySecretArn": "{arn}", ', 1))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    if signed_in:
        with mock_aws(), pytest.raises(TargetError, match=r"ResourceNotFoundException.*--api-key-file") as refused:
            target_from_options(options("--stack", "dev"))
    else:
        with pytest.raises(TargetError, match=r"[Cc]redentials.*--api-key-file") as refused:
            target_from_options(options("--stack", "dev"))
    assert "\n" not in str(refused.value)
