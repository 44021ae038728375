"""A checkpoint's own quantization: ModelOpt's algorithms and cache, what vLLM cannot read, and what it cannot make."""

from typing import Any

import pytest

from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.catalog.models import ModelArchitecture
from infra.planning.plan import ServingPlan
from infra.stack_files import load_stack

LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip


def described(algorithm: str, **more: Any) -> dict[str, Any]:
    return LLAMA | {
        "quantization_config": {"quant_method": "modelopt", "quantization": {"quant_algo": algorithm} | more}
    }


def plan(config: dict[str, Any], **settings: Any) -> ServingPlan:
    values = {"model": "acme/model", "gpu": "l4", "maxModelLen": 8192, **settings}
    return make_plan(load_stack("dev", values), fetch=lambda model, revision: config)


@pytest.mark.parametrize(
    ("algorithm", "method"),
    [("FP8", "modelopt"), ("fp8_pb_wo", "modelopt"), ("NVFP4", "modelopt_fp4"), ("MXFP8", "modelopt_mxfp8"), ("MIXED_PRECISION", "modelopt_mixed")],
)  # fmt: skip
def test_the_algorithms_of_modelopt_have_vllms_names(algorithm: str, method: str) -> None:
    found = ModelArchitecture.from_config(described(algorithm), "hub")
    assert (found.quantization, found.doubts) == (method, ())


def test_an_algorithm_that_vllm_rejects_is_an_estimate() -> None:
    warnings = plan(described("W4A8_AWQ")).warnings
    assert any("modelopt W4A8_AWQ is not one of vLLM's" in warning for warning in warnings)


@pytest.mark.parametrize(
    "more", [{"kv_cache_quant_algo": "FP8"}, {"kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False}}]
)
def test_the_cache_of_a_modelopt_checkpoint_has_its_own_width(more: dict[str, Any]) -> None:
    assert plan(described("FP8", **more)).memory.kv_bytes_per_token == 32 * 8 * 128 * 2
    assert plan(described("FP8", **more), kvCacheDtype="bfloat16").memory.kv_bytes_per_token == 32 * 8 * 128 * 2 * 2


def test_a_checkpoint_whose_cache_the_gpu_cannot_keep_is_refused_with_the_way_out() -> None:
    config = described("FP8", kv_cache_quant_algo="FP8")
    with pytest.raises(
        PlanError, match="kvCacheDtype: found auto, which is fp8 for acme/model, which vLLM does not support"
    ):
        plan(config, gpu="a10g")
    assert plan(config, gpu="a10g", kvCacheDtype="bfloat16").memory.fits


def test_a_quantization_that_vllm_reads_but_does_not_make_is_refused() -> None:
    with pytest.raises(PlanError, match="compressed-tensors, but acme/model is not such a checkpoint"):
        plan(LLAMA, quantization="compressed-tensors")


def test_a_method_that_left_vllm_is_refused_unless_the_image_is_the_users() -> None:
    with pytest.raises(PlanError, match="bitsandbytes, which vLLM no longer supports"):
        plan(LLAMA, quantization="bitsandbytes")
    assert plan(LLAMA, quantization="bitsandbytes", engineImage="registry.example/engine:1").memory.fits
