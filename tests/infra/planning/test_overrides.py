"""The model's properties as settings change them: baseModel, --hf-overrides, weightsGib and kvBytesPerToken."""

import json
from typing import Any

import pytest

from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.catalog.sources import config_reader
from infra.planning.plan import ServingPlan
from infra.stack_files import load_stack

UNKNOWN: dict[str, Any] = {
    "model_type": "brand_new", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip


def plan(**settings: Any) -> ServingPlan:
    values = {"model": "acme/new", "gpu": "l40s", "maxModelLen": 0, **settings}
    return make_plan(load_stack("dev", values), fetch=lambda model, revision: UNKNOWN)


def estimates(found: ServingPlan) -> list[str]:
    return [warning for warning in found.warnings if "estimate" in warning]


def test_a_model_that_is_not_known_is_an_estimate_until_both_are_set() -> None:
    (warning,) = estimates(plan())
    assert "model_type brand_new is not known" in warning
    assert "set weightsGib" in warning
    assert "weights is computed" not in estimates(plan(weightsGib=20))[0]
    assert estimates(plan(weightsGib=20, kvBytesPerToken=100_000)) == []


def test_the_settings_are_what_the_plan_counts_with() -> None:
    found = plan(weightsGib=20, kvBytesPerToken=100_000)
    assert found.engine.checkpoint_gib == 20
    assert abs(found.memory.weights_gib - 20) < 0.2
    assert found.memory.kv_bytes_per_token == 100_000
    assert abs(found.memory.kv_cache_tokens - found.memory.kv_cache_gib * (1 << 30) / 100_000) < 200


def test_they_apply_to_a_model_of_the_catalog_too() -> None:
    found = make_plan(load_stack("dev", {"weightsGib": 12, "kvBytesPerToken": 200_000}))
    assert (found.engine.checkpoint_gib, found.memory.kv_bytes_per_token) == (12, 200_000)


@pytest.mark.parametrize("changed", [{}, {"engineArgs": ["--hf-overrides", '{"max_position_embeddings": 8192}']}])
def test_a_model_that_cannot_be_read_gets_the_same_advice_with_hf_overrides(changed: dict[str, Any]) -> None:
    def problem(config: dict[str, Any] | None = None, **settings: Any) -> str:
        chosen = load_stack("dev", {**settings, **changed})
        read = config_reader(chosen, {"HF_ENDPOINT": "http://127.0.0.1:9"})
        with pytest.raises(PlanError) as raised:
            make_plan(chosen, fetch=read if config is None else lambda model, revision: config)
        (line,) = raised.value.problems
        return line

    inside: dict[str, Any] = {"model": "/models/x", "engineImage": "acme/vllm:1"}
    assert problem(**inside).endswith("Set baseModel to plan it without reading it")
    unusable = problem({"architectures": ["X"]}, model="s3://acme-models/x")
    assert "config.json from S3 has no usable" in unusable
    assert unusable.endswith("Set baseModel to a model with the same architecture, or another model")
    for base in ("acme/unreachable", "s3://acme-models/base", "/models/base"):
        line = problem(**inside, baseModel=base)
        assert line.startswith(f"baseModel: {base} is not in the catalog")
        assert "Set baseModel to one of" in line


def test_the_runner_of_engine_args_decides_what_the_model_does() -> None:
    """A pooling model has no parsers, in its arguments and in /info; without the runner, the same model has both."""

    def parsers(runner: str, **settings: Any) -> tuple[bool, str]:
        arguments = {"engineArgs": ["--runner", runner]} if runner else {}
        found = make_plan(load_stack("dev", {**settings, **arguments}))
        info = json.loads(found.gateway.environment["GATEWAY_INFO"])
        return "--reasoning-parser" in found.engine.args, info["tool_call_parser"]

    assert parsers("", model="Qwen/Qwen3-4B") == parsers("generate", model="Qwen/Qwen3-4B") == (True, "hermes")
    assert parsers("pooling", model="Qwen/Qwen3-4B", reasoningParser="qwen3") == (False, "")
    assert parsers("", model="Qwen/Qwen3-Embedding-0.6B", toolCallParser="hermes") == (False, "")
