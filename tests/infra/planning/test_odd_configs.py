"""Configs with values of the wrong type, missing, negative or huge: one clear line or a plan, and never a silent "fits"."""

import copy
import random
from typing import Any

import pytest

from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.architecture.caches import state_bytes
from infra.planning.catalog.models import ModelArchitecture, UnknownModelError
from infra.planning.memory import kv_bytes_per_token
from infra.planning.weights import weight_bytes
from infra.stack_files import load_stack

DENSE: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128], "ignored_layers": ["lm_head"]},
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
    "num_attention_heads": 128, "num_key_value_heads": 128, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
    "first_k_dense_replace": 3, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "vocab_size": 129280, "max_position_embeddings": 163840,
}  # fmt: skip
NESTED: dict[str, Any] = {
    "model_type": "gemma3", "text_config": {"hidden_size": 5376, "intermediate_size": 21504, "num_attention_heads": 32, "num_hidden_layers": 62,
    "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
    "vision_config": {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "patch_size": 14, "image_size": 896},
    "layer_types": ["full_attention", "sliding_attention"],
}  # fmt: skip
HYBRID: dict[str, Any] = {
    "model_type": "qwen3_next", "architectures": ["Qwen3NextForCausalLM"], "hidden_size": 2048, "intermediate_size": 5120, "num_hidden_layers": 48,
    "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256, "num_experts": 512, "num_experts_per_tok": 10,
    "moe_intermediate_size": 512, "linear_num_key_heads": 16, "linear_num_value_heads": 32, "full_attention_interval": 4, "vocab_size": 151936,
    "max_position_embeddings": 262144, "torch_dtype": "float32", "sentence_transformers": None, "is_encoder_decoder": False,
}  # fmt: skip
ODD: list[Any] = [
    None,
    -1,
    0,
    1,
    3,
    0.5,
    float("nan"),
    float("inf"),
    10**30,
    "",
    "many",
    True,
    False,
    [],
    [1, 2],
    [None],
    ["x"],
    {},
    {"a": 1},
    [[1]],
]


def mutated(number: int) -> dict[str, Any]:
    """One of the configs with up to three values replaced or removed, the same for the same number."""
    chance = random.Random(number)  # noqa: S311 - the same configs each time
    config = copy.deepcopy(chance.choice([DENSE, EXPERTS, NESTED, HYBRID]))
    for _ in range(chance.randint(1, 3)):
        place = config
        while isinstance(inner := place.get(chance.choice(sorted(place)) if place else ""), dict) and inner:
            place = inner
        if not place:
            break
        key = chance.choice(sorted(place))
        if chance.random() < 0.2:
            del place[key]
        else:
            place[key] = chance.choice(ODD)
    return config


def test_two_thousand_odd_configs_are_computed_or_refused_in_one_line() -> None:
    refused = 0
    for number in range(2000):
        config = mutated(number)
        try:
            found = ModelArchitecture.from_config(config, "hub")
        except UnknownModelError as error:
            refused += 1
            assert "\n" not in str(error), config
            continue
        assert weight_bytes(found, "") > 0, config
        assert kv_bytes_per_token(found, "auto") > 0 or state_bytes(found.caches) > 0, config
        assert found.max_position_embeddings > 0, config
    assert 100 < refused < 1500


@pytest.mark.parametrize("number", range(0, 2000, 20))
def test_a_plan_of_an_odd_config_is_made_or_refused(number: int) -> None:
    settings = load_stack("dev", {"model": "acme/odd", "gpu": "h200", "gpuCount": 8, "scaleDownMinutes": 55})
    try:
        plan = make_plan(settings, fetch=lambda model, revision: mutated(number))
    except PlanError as error:
        assert all("\n" not in reason for reason in error.problems)
    else:
        assert plan.memory.weights_gib > 0
        assert plan.memory.kv_cache_tokens >= plan.memory.max_model_len > 0
        assert any("estimate" in warning for warning in plan.warnings)
