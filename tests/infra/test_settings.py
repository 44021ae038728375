"""The settings: all invalid values are reported at once, each with what to set."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic.alias_generators import to_camel

from infra.errors import SettingsError
from infra.settings import Settings, config_keys, secret_text
from infra.settings_problems import parse_settings
from infra.stack_files import load_stack, parse_overrides

ROOT = Path(__file__).parents[2]


def problems(**values: object) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        parse_settings(values, "dev")
    return raised.value.problems


def test_pulumi_yaml_declares_exactly_the_settings() -> None:
    assert yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"] == config_keys()


def test_every_key_is_described_and_has_a_default_but_no_type() -> None:
    for key, entry in config_keys().items():
        # With a type, the engine refuses a value by itself, before the program can say what to set.
        assert set(entry) == {"description", "default"}, key
        assert entry["description"].endswith("."), key


def test_the_keys_that_users_were_promised_exist() -> None:
    promised = (
        "model modelRevision servedModelName gpu gpuCount instanceTypes minReplicas maxReplicas scaleDownMinutes "
        "startupTimeoutMinutes concurrencyPerReplica maxModelLen gpuMemoryUtilization maxNumSeqs maxNumBatchedTokens "
        "quantization kvCacheDtype speculative enablePrefixCaching imageLimit videoLimit fastBoot engineArgs "
        "engineImage gatewayImage port apiKeys hfToken certificateArn domain allowedCidrs capacity warmPool vpcId "
        "subnetIds target ttlHours monthlyBudgetUsd alarmEmail protect"
    )
    assert set(promised.split()) <= {to_camel(name) for name in Settings.model_fields}
    assert config_keys()["concurrencyPerReplica"]["default"] == 16


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_committed_stacks_are_valid_and_hold_no_account_data(stack: str) -> None:
    settings = load_stack(stack)
    assert settings.internal
    assert [settings.vpc_id, settings.certificate_arn, settings.domain] == ["", "", ""]


def test_the_stacks_are_what_the_readme_says() -> None:
    dev, prod = load_stack("dev"), load_stack("prod")
    assert (dev.model, dev.gpu, dev.gpu_count, dev.min_replicas, dev.scale_down_minutes) == (
        "Qwen/Qwen3-4B-Instruct-2507", "a10g", 1, 0, 0,
    )  # fmt: skip
    assert (prod.model, prod.gpu, prod.gpu_count, prod.gateway_count) == ("Qwen/Qwen3-32B-FP8", "h100", 1, 2)
    assert prod.min_replicas >= 1


def test_all_problems_come_in_one_error() -> None:
    found = problems(gppu="h100", gpuCount=3, minReplicas=4, maxModelLen="long")
    assert len(found) == 4
    assert found[0] == "gppu: unknown setting; did you mean gpu?"
    assert any(p.startswith("gpuCount: found 3.") and "1, 2, 4 or 8" in p for p in found)
    assert any(p.startswith("maxModelLen: found 'long'. Set a whole number") for p in found)
    assert "minReplicas: found 4, more than maxReplicas (1). Set maxReplicas to at least 4" in found


@pytest.mark.parametrize(
    ("values", "key", "advice"),
    [
        ({"gpu": "v100"}, "gpu", "a10g"),
        ({"scaleDownMinutes": 1441}, "scaleDownMinutes", "Minutes"),
        ({"startupTimeoutMinutes": 1}, "startupTimeoutMinutes", "2 to 55, or 0"),
        ({"weightsGib": -1}, "weightsGib", "at least 0"),
        ({"kvBytesPerToken": "many"}, "kvBytesPerToken", "whole number"),
        ({"gpuMemoryUtilization": 1.0}, "gpuMemoryUtilization", "0.3 to 0.98"),
        ({"fastBoot": "sometimes"}, "fastBoot", "eager"),
        ({"allowedCidrs": ["10.0.0.0"]}, "allowedCidrs", "CIDR ranges"),
        ({"allowedCidrs": ["0.0.0.0/0"]}, "allowedCidrs", "certificateArn"),
        ({"allowedCidrs": ["::/0"]}, "allowedCidrs", "certificateArn"),
        ({"engineArgs": "--seed 1"}, "engineArgs", "list"),
        ({"engineEnvironment": ["NO_EQUALS"]}, "engineEnvironment", "NAME=value"),
        ({"maxNumSeqs": 64, "maxNumBatchedTokens": 32}, "maxNumSeqs", "64"),
        ({"capacity": "reservation"}, "capacity", "capacityReservationId"),
        ({"capacityReservationId": "cr-1"}, "capacityReservationId", "capacity: reservation"),
        ({"warmPool": 1, "capacity": "spot"}, "warmPool", "on-demand"),
        ({"vpcId": "vpc-1"}, "subnetIds", "two"),
        ({"subnetIds": ["subnet-1", "subnet-2"]}, "vpcId", "VPC"),
        ({"natGateways": "none"}, "natGateways", "single"),
        ({"monthlyBudgetUsd": 100}, "monthlyBudgetUsd", "alarmEmail"),
        ({"certificateArn": "arn:aws:iam::1:role/x"}, "certificateArn", "ACM"),
        ({"certificateArn": "arn:aws:acm:us-east-1:1:certificate/x", "port": 80}, "port", "443"),
    ],
)
def test_each_refusal_names_the_key_and_what_to_set(values: dict[str, object], key: str, advice: str) -> None:
    (found,) = problems(**values)
    assert found.startswith(f"{key}: ")
    assert advice in found
    assert "\n" not in found


def test_a_bad_secret_is_never_shown() -> None:
    (found,) = problems(apiKeys="alice=sk-very-secret,alice=sk-other")
    assert "sk-" not in found
    assert "sk-very-secret" not in repr(parse_settings({"apiKeys": "alice=sk-very-secret", "hfToken": "hf-secret"}))
    assert "hf-secret" not in repr(parse_settings({"hfToken": "hf-secret"}))


def test_api_keys_are_named_or_default() -> None:
    settings = parse_settings({"apiKeys": "alice=sk-1, bob = sk-2"})
    assert {name: secret_text(key) for name, key in dict(settings.api_keys).items()} == {"alice": "sk-1", "bob": "sk-2"}
    assert list(parse_settings({"apiKeys": "sk-lonely"}).api_keys) == ["default"]


def test_a_token_from_a_file_loses_its_newline_and_a_blank_one_is_none() -> None:
    assert secret_text(parse_settings({"hfToken": "hf_1\n"}).hf_token) == "hf_1"
    assert secret_text(parse_settings({"hfToken": " "}).hf_token) == ""


def test_text_from_pulumi_means_the_same_as_yaml() -> None:
    as_text = parse_settings(
        {"gpuCount": "2", "enablePrefixCaching": "false", "fastBoot": "true", "gpuMemoryUtilization": "0.9"}
    )
    as_yaml = parse_settings(
        {"gpuCount": 2, "enablePrefixCaching": False, "fastBoot": True, "gpuMemoryUtilization": 0.9}
    )
    assert as_text == as_yaml


def test_an_unknown_stack_and_broken_yaml_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.ours.yaml").write_text("config: {a: b: c}")
    with pytest.raises(SettingsError, match=r"there is no Pulumi.test.yaml. Set one of: ours"):
        load_stack("test", root=tmp_path)
    with pytest.raises(SettingsError, match="is not valid YAML at line 1"):
        load_stack("ours", root=tmp_path)


def test_encrypted_values_count_as_not_set(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.x.yaml").write_text(
        "config:\n  vllm-endpoint:apiKeys:\n    secure: v1:abc\n  vllm-endpoint:gpu: l4\n"
    )
    settings = load_stack("x", root=tmp_path)
    assert settings.gpu == "l4"
    assert settings.api_keys == {}


def test_overrides_are_read_as_yaml() -> None:
    assert parse_overrides(["gpuCount=2", "engineArgs=[--seed, '1']", "model=a/b", "domain="]) == {
        "gpuCount": 2, "engineArgs": ["--seed", "1"], "model": "a/b", "domain": "",
    }  # fmt: skip
    with pytest.raises(SettingsError, match="key=value"):
        parse_overrides(["gpu"])


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**6), st.text(max_size=12), st.lists(st.text(max_size=8), max_size=3)
)


@given(st.dictionaries(st.sampled_from([to_camel(name) for name in Settings.model_fields]), _VALUES, max_size=6))
def test_any_values_are_accepted_or_refused_with_reasons(values: dict[str, object]) -> None:
    try:
        parse_settings(values)
    except SettingsError as error:
        assert error.problems
        assert all(problem and "\n" not in problem for problem in error.problems)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"gpu": "a10"}, "gpu: found 'a10'. Set 't4', 'a10g', 'l4'"),
        ({"minReplicas": "two"}, "minReplicas: found 'two'. Set a whole number: "),
        ({"scaleDownMinutes": -1}, "scaleDownMinutes: found -1. Set at least 0: "),
        ({"protect": "maybe"}, "protect: found 'maybe'. Set true or false: "),
        ({"alarmEmail": "x"}, "alarmEmail: found 'x', which is not in the expected format. Set: "),
    ],
)
def test_a_bad_value_is_told_with_what_to_set(setting: dict[str, object], line: str) -> None:
    assert problems(**setting)[0].startswith(line)
