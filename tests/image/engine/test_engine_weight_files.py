"""Which of a repository's files vLLM needs."""

from __future__ import annotations

import json

import pytest

from image.engine.weight_files import NoWeightsError, has_layout, missing, required, select

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "safetensors_beside_older_copies": (
        ("model.safetensors", "pytorch_model.bin", "tf_model.h5"),
        ("model.safetensors",),
    ),
    "older_weights_beside_an_adapter": (
        ("pytorch_model.bin", "adapter/adapter_model.safetensors"),
        ("adapter/adapter_model.safetensors", "pytorch_model.bin"),
    ),
    "a_module_in_the_older_format": (
        ("model.safetensors", "2_Dense/pytorch_model.bin"),
        ("2_Dense/pytorch_model.bin", "model.safetensors"),
    ),
    "a_head_of_its_own": (("model.safetensors", "sparse_linear.pt"), ("model.safetensors", "sparse_linear.pt")),
    "other_programs": (("model.safetensors", "onnx/model.bin", "original/consolidated.00.pth"), ("model.safetensors",)),
    "training_state": (("pytorch_model.bin", "optimizer.pt", "training_args.bin"), ("pytorch_model.bin",)),
    "two_layouts": ((*SHARDS, "consolidated.safetensors"), SHARDS),
    "two_layouts_as_vllm_decides": (
        (*SHARDS, "consolidated.safetensors", "params.json"),
        ("consolidated.safetensors",),
    ),
    "mistrals_layout_alone": (("consolidated.safetensors",), ("consolidated.safetensors",)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_weights_are_those_that_vllm_loads(case: str) -> None:
    names, weights = CASES[case]
    found = select(dict.fromkeys(("config.json", "modeling.py", *names), 3))
    assert found.weights == weights
    assert set(found.others) == {"config.json", "modeling.py", *(name for name in names if name == "params.json")}
    assert found.total_bytes == 3 * (len(weights) + len(found.others))


@pytest.mark.parametrize(("mistral", "weights"), [(True, ("consolidated.safetensors",)), (False, SHARDS)])
def test_the_load_format_decides_between_two_layouts(mistral: bool, weights: tuple[str, ...]) -> None:
    names = (*SHARDS, "consolidated.safetensors", "params.json")
    assert select(dict.fromkeys(names, 3), mistral=mistral).weights == weights
    assert has_layout(names, mistral)
    assert has_layout(weights, mistral)
    assert not has_layout(weights, not mistral)


def test_an_adapter_and_a_gguf_quantization_are_selected_by_themselves() -> None:
    adapter = {"model.safetensors": 9, "a/adapter_model.safetensors": 2, "a/adapter_config.json": 1}
    assert select(adapter, adapter="a").total_bytes == 3
    assert select({"m-Q4_K_M.gguf": 4, "m-Q8_0.gguf": 8, "m-IQ4_K_M.gguf": 5}, gguf="q4_k_m").weights == (
        "m-Q4_K_M.gguf",
    )


@pytest.mark.parametrize(("name", "told"), [("m-Q4_K_M.gguf", "GGUF"), ("tokenizer.json", "no weights")])
def test_a_model_without_weights_is_an_error(name: str, told: str) -> None:
    with pytest.raises(NoWeightsError, match=told):
        required(select({"config.json": 1, name: 4}), "org/model")


def test_a_folder_is_whole_if_each_file_and_each_shard_of_the_index_is_there() -> None:
    index = json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}})
    files = select({SHARDS[0]: 5, "config.json": None})
    there = {SHARDS[0]: 5, "config.json": 7}
    assert missing(files, there) == (SHARDS[1],), "the name of the first shard counts two"
    single = select({"model.safetensors": 5})
    assert missing(single, {"model.safetensors": 5}) == ()
    assert missing(files, there, {"model.safetensors.index.json": index}) == (SHARDS[1],)
    assert missing(files, there, {"model.safetensors.index.json": "{"}) == (SHARDS[1], "model.safetensors.index.json")
    assert missing(files, {SHARDS[0]: 6}) == ("config.json", *SHARDS)
