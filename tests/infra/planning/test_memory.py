"""The memory prediction, compared with vLLM's reports and the Hub's figures for each model."""

import pytest

from infra.planning.catalog.gpus import gpu_specs, known_instance_types
from infra.planning.catalog.models import GIB, ModelArchitecture, UnknownModelError, catalog, find_model
from infra.planning.memory import fit, kv_bytes_per_token
from infra.planning.plan import MemoryFit
from infra.planning.weights import weight_bytes
from infra.settings import Gpu


def divide(model: str, gpu: Gpu, **changes: object) -> MemoryFit:
    values: dict[str, object] = {
        "tensor_parallel": 1, "utilization": 0.92, "quantization": "", "kv_cache_dtype": "auto", "max_model_len": 8192,
        "batched_tokens": 0, "sequences": 0, "gpu_memory_gib": gpu_specs()[gpu].memory_gib,
    }  # fmt: skip
    return fit(catalog()[model], gpu_specs()[gpu], **{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("Qwen/Qwen3-0.6B", 0.596),
        ("Qwen/Qwen3-8B", 8.19),
        ("Qwen/Qwen3-32B", 32.76),
        ("Qwen/Qwen3-30B-A3B", 30.53),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1.10),
        ("meta-llama/Llama-3.1-70B-Instruct", 70.55),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.70),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8.29),
        ("tiiuae/falcon-7b-instruct", 6.92),
    ],
)
def test_parameters_are_those_the_hub_states(model: str, billions: float) -> None:
    assert weight_bytes(catalog()[model], "") / 2 / 1e9 == pytest.approx(billions, rel=0.01)


def test_kv_bytes_are_layers_heads_dimension_twice() -> None:
    assert kv_bytes_per_token(catalog()["Qwen/Qwen3-4B"], "auto") == 36 * 8 * 128 * 2 * 2
    assert kv_bytes_per_token(catalog()["Qwen/Qwen3-4B"], "fp8") == 36 * 8 * 128 * 2


def test_quantized_weights_keep_16_bit_embeddings() -> None:
    whole, fp8, awq = (weight_bytes(catalog()[f"Qwen/Qwen3-32B{suffix}"], "") / GIB for suffix in ("", "-FP8", "-AWQ"))
    assert weight_bytes(catalog()["Qwen/Qwen3-32B"], "fp8") / GIB == fp8
    assert whole > fp8 > awq > whole / 4
    assert fp8 > whole / 2


def test_tensor_parallel_splits_weights_and_cache() -> None:
    one, four = divide("Qwen/Qwen3-8B", Gpu.A10G), divide("Qwen/Qwen3-8B", Gpu.A10G, tensor_parallel=4)
    assert four.weights_gib == pytest.approx(one.weights_gib / 4, abs=0.02)  # the allocator rounds
    assert four.kv_cache_tokens > 4 * one.kv_cache_tokens


def test_more_gpus_than_kv_heads_keep_heads_twice() -> None:
    # 4 KV heads on 8 GPUs: each GPU holds one head, not half a head.
    four, eight = (divide("Qwen/Qwen3-30B-A3B", Gpu.H100, tensor_parallel=n) for n in (4, 8))
    assert eight.kv_cache_tokens < 1.3 * four.kv_cache_tokens


def test_what_does_not_fit_says_so() -> None:
    assert not divide("Qwen/Qwen3-32B-FP8", Gpu.A10G).fits
    assert divide("Qwen/Qwen3-32B-FP8", Gpu.A10G).kv_cache_tokens == 0
    assert not divide("Qwen/Qwen3-4B-Instruct-2507", Gpu.A10G, max_model_len=262_144).fits


def test_an_unset_length_leaves_room_for_two_sequences() -> None:
    chosen = divide("Qwen/Qwen3-4B-Instruct-2507", Gpu.A10G, max_model_len=0)
    assert chosen.fits
    assert 2 <= chosen.max_full_length_sequences < 3
    assert divide("Qwen/Qwen3-4B", Gpu.H200, max_model_len=0).max_model_len == 40_960


def test_every_instance_type_is_of_a_known_gpu_with_a_dated_price() -> None:
    for kind in known_instance_types().values():
        assert kind.gpu in gpu_specs()
        assert kind.usd_per_hour > 0
        assert kind.priced_on
    assert {kind.gpu for kind in known_instance_types().values()} == set(Gpu)


def test_an_unknown_model_is_read_from_the_hub_and_a_known_one_is_not() -> None:
    asked = []

    def fetch(model: str, revision: str) -> dict[str, object]:
        asked.append((model, revision))
        return {
            "hidden_size": 64,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "vocab_size": 512,
            "intermediate_size": 128,
        }

    assert find_model("Qwen/Qwen3-4B", fetch=fetch).source == "catalog"
    assert asked == []
    found = find_model("acme/tiny", "v2", fetch=fetch)
    assert (found.head_dim, found.num_key_value_heads, found.source) == (16, 4, "hub")
    assert asked == [("acme/tiny", "v2")]


def test_a_config_without_figures_and_a_hub_out_of_reach_are_refused() -> None:
    def unreachable(model: str, revision: str) -> dict[str, object]:
        raise UnknownModelError("the Hub cannot be reached (timed out)")

    with pytest.raises(UnknownModelError, match=r"acme/tiny is not in the catalog, and the Hub cannot be reached"):
        find_model("acme/tiny", fetch=unreachable)
    with pytest.raises(UnknownModelError, match="hidden_size"):
        ModelArchitecture.from_config({}, "hub")


def test_nested_text_and_vision_configs_are_read() -> None:
    config = {
        "text_config": {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 512},
        "vision_config": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64},
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
        },
    }
    found = ModelArchitecture.from_config(config, "hub")
    assert found.sees
    layers, patches, projection = 2 * (4 * 32 * 32 + 2 * 32 * 64), 3 * 14 * 14 * 32, 32 * 64
    assert found.vision_parameters == layers + patches + projection
    assert (found.quantization, found.weight_bits) == ("compressed-tensors", 4)
