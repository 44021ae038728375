"""Secrets in plain text are rejected in every setting, and their values are never printed."""

from pathlib import Path
from typing import Any

import pytest

from infra.errors import SettingsError
from infra.settings import PROJECT, secret_keys
from infra.settings_problems import parse_settings
from infra.stack_files import load_stack
from tests.infra.program import RefusedError, run_program

CANARY = "hf_canarycanarycanary0"


def stack_file(folder: Path, text: str) -> Path:
    (folder / "Pulumi.dev.yaml").write_text(f"config:\n{text}\n")
    return folder


@pytest.mark.parametrize("key", sorted(secret_keys()))
def test_every_secret_setting_must_be_encrypted(key: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=f"{key}: found in plain text.*pulumi config set --secret {key}$") as refused:
        run_program("dev", preview=False, encrypted=False, **dict[str, Any]({key: CANARY}))
    with pytest.raises(SettingsError, match=f"{key}: found in plain text") as planned:
        load_stack("dev", root=stack_file(tmp_path, f"  {PROJECT}:{key}: {CANARY}"))
    for error in (refused, planned):
        assert "because it was stored in a file" in str(error.value)
        assert CANARY not in str(error.value)


@pytest.mark.parametrize("key", ["aws:secretKey", "aws:token"])
def test_the_providers_own_secrets_must_be_encrypted(key: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=f"{key}: found in plain text.*pulumi config set --secret {key}"):
        run_program("dev", encrypted=False, **dict[str, Any]({key: CANARY}))
    with pytest.raises(SettingsError, match=f"{key}: found in plain text"):
        load_stack("dev", root=stack_file(tmp_path, f"  {key}: {CANARY}"))


def test_a_secret_in_plain_text_hides_no_other_bad_value() -> None:
    with pytest.raises(RefusedError) as refused:
        run_program("dev", encrypted=False, hfToken=CANARY, gpuCount=-1)
    assert {line.strip(" -").partition(":")[0] for line in str(refused.value).splitlines()} >= {"hfToken", "gpuCount"}


def test_an_encrypted_or_empty_one_is_taken(tmp_path: Path) -> None:
    for value in ("{secure: v1:abc}", "{alice: {secure: v1:abc}}", "''"):
        assert load_stack("dev", root=stack_file(tmp_path, f"  {PROJECT}:apiKeys: {value}")).api_keys == {}
    for value in ("{alice: {secure: v1:abc}, bob: sk-1}", "[{secure: v1:abc}, sk-1]", "[sk-1]"):
        with pytest.raises(SettingsError, match="apiKeys: found in plain text"):
            load_stack("dev", root=stack_file(tmp_path, f"  {PROJECT}:apiKeys: {value}"))


def test_keys_set_one_by_one_are_as_good_as_all_in_one_text() -> None:
    one_by_one = run_program("dev", apiKeys={"alice": "sk-1", "bob": "sk-2"})
    at_once = run_program("dev", apiKeys="alice=sk-1,bob=sk-2")
    assert one_by_one.one("SecretVersion").inputs == at_once.one("SecretVersion").inputs


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"engineEnvironment": ["HF_TOKEN=x"]}, "engineEnvironment: found HF_TOKEN, .* --secret hfToken"),
        ({"engineEnvironment": ["A=b", "HUGGING_FACE_HUB_TOKEN=x"]}, "--secret hfToken"),
        ({"engineEnvironment": ["VLLM_API_KEY=x"]}, "--secret apiKeys"),
        ({"engineEnvironment": ["hf_token=x"]}, "--secret hfToken"),
        ({"engineEnvironment": ["AWS_SECRET_ACCESS_KEY=x"]}, "a role or your own secret instead"),
        ({"engineEnvironment": ["X=AKIAIOSFODNN7EXAMPLE"]}, "an AWS access key"),
        ({"engineArgs": ["--api-key", "x"]}, "engineArgs: found --api-key with its value"),
        ({"engineArgs": ["--hf-token=x"]}, "--secret hfToken"),
        ({"engineArgs": ["--api-key x"]}, "engineArgs: found --api-key with its value"),
        ({"engineArgs": ["--hf_token", "x"]}, "--secret hfToken"),
        ({"owner": CANARY}, "owner: found what looks like a Hugging Face token"),
        ({"modelRevision": CANARY}, "modelRevision: found"),
        ({"servedModelName": "sk-0123456789abcdefghij"}, "an API key"),
    ],
)
def test_a_secret_in_a_setting_that_is_not_encrypted_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as raised:
        parse_settings(values)
    assert len(raised.value.problems) == 1
    for value in values.values():
        secret = str(value[-1] if isinstance(value, list) else value).rpartition("=")[2]
        assert len(secret) < 8 or secret not in str(raised.value)


@pytest.mark.parametrize(
    "values",
    [
        {"engineEnvironment": ["TOKENIZERS_PARALLELISM=false", "VLLM_MAX_TOKENS=4", "HF_TOKEN_PATH=/x", "HF_TOKEN="]},
        {"engineArgs": ["--hf-token"], "model": "acme/sk-learn-a-model-with-a-long-name"},
        {"engineArgs": ["--hf-token", "--max-num-seqs=4"], "owner": "team akia"},
        {"model": "acme/desk-abcdefghijklmnopqrstuvw", "servedModelName": "risk-0123456789abcdefghijklm"},
    ],
)
def test_what_only_sounds_like_a_secret_is_taken(values: dict[str, Any]) -> None:
    parse_settings(values)


def test_a_list_as_people_write_it_is_taken() -> None:
    assert parse_settings({"instanceTypes": '["g5.xlarge"]'}).instance_types == ("g5.xlarge",)
    # `pulumi config set --path` writes whole numbers and true as such.
    assert parse_settings({"engineArgs": ["--seed", 7, True]}).engine_args == ("--seed", "7", "true")


@pytest.mark.parametrize(
    ("key", "value", "command"),
    [
        ("allowedCidrs", "10.0.0.0/8", "pulumi config set --path 'allowedCidrs[0]' 10.0.0.0/8"),
        ("engineArgs", "--seed=7", "pulumi config set --path 'engineArgs[0]' -- --seed=7"),
        ("engineEnvironment", "A=b c", "pulumi config set --path 'engineEnvironment[0]' 'A=b c'"),
        ("instanceTypes", 5, "pulumi config set --path 'instanceTypes[0]' 5"),
        ("subnetIds", "[subnet-a", "pulumi config set --path 'subnetIds[0]' '[subnet-a'"),
    ],
)
def test_text_for_a_list_is_told_the_command(key: str, value: object, command: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_settings({key: value})
    (problem,) = raised.value.problems
    assert problem.startswith(f"{key}: found ")
    assert problem.endswith(f"should be a list. Set: {command}")


def test_a_stack_goes_by_its_own_name_whatever_organization_it_is_in() -> None:
    assert load_stack("acme/vllm-endpoint/prod") == load_stack("prod")
