"""Which models generate, pool or cannot run, compared with an installed vLLM where there is one."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.engine.architectures import QUANTIZATION, architectures, constants
from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.architecture import quantized, runners
from infra.planning.catalog.models import ModelArchitecture
from infra.planning.memory import kv_bytes_per_token
from infra.planning.plan import ServingPlan
from infra.stack_files import load_stack
from tests.infra.planning.plans import argument

ROOT = Path(__file__).parents[4]
QWEN: dict[str, Any] = {
    "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151669, "max_position_embeddings": 32768,
    "tie_word_embeddings": True, "weights_bytes": 1191586416, "torch_dtype": "bfloat16",
}  # fmt: skip


def plan(config: dict[str, Any], **settings: Any) -> ServingPlan:
    values = {"model": "acme/model", "gpu": "l4", "maxModelLen": 0, **settings}
    return make_plan(load_stack("dev", values), fetch=lambda model, revision: config)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "generate"),
        ({"sentence_transformers": True}, "pooling"),  # Qwen3-Embedding: modules.json beside a generating architecture
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "pooling"),
        ({"architectures": ["Qwen2ForRewardModel"]}, "pooling"),
        ({"architectures": ["MistralModel"]}, "pooling"),  # e5-mistral
        ({"architectures": ["LlamaBidirectionalModel"]}, "pooling"),
        ({"architectures": ["ChatGLMModel"]}, "generate"),  # listed, although it ends in Model
        ({"architectures": None}, "generate"),
        ({"architectures": [3, {}]}, "generate"),
    ],
)
def test_the_runner_is_the_one_that_vllm_chooses(changes: dict[str, Any], kind: str) -> None:
    assert ModelArchitecture.from_config(QWEN | changes, "hub").kind == kind


def test_an_embedding_decoder_keeps_its_cache_and_its_own_length() -> None:
    found = plan(QWEN | {"sentence_transformers": True})
    assert "--max-model-len" not in found.engine.args
    assert found.memory.max_model_len == 32768
    assert found.memory.kv_bytes_per_token == 28 * 8 * 128 * 2 * 2
    assert "tool" not in " ".join(found.engine.args)
    assert not any("estimate" in warning for warning in found.warnings)


def test_an_embedding_decoder_that_cannot_keep_one_input_is_shortened_and_says_so() -> None:
    long = {"sentence_transformers": True, "max_position_embeddings": 1 << 20}
    found = plan(QWEN | long)
    assert int(argument(found.engine.args, "--max-model-len")) == found.memory.max_model_len < 1 << 20
    assert any("of 1,048,576 tokens" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    "mark",
    [{"is_causal": False}, {"use_bidirectional_attention": True}, {"architectures": ["LlamaBidirectionalModel"]}],
)
def test_attention_in_both_directions_caches_nothing(mark: dict[str, Any]) -> None:
    found = ModelArchitecture.from_config(QWEN | {"sentence_transformers": True} | mark, "hub")
    assert kv_bytes_per_token(found, "auto") == 0


def test_thirty_two_bit_files_take_half_of_their_size_once_loaded() -> None:
    found = plan(QWEN | {"torch_dtype": "float32", "weights_bytes": 2 * 1191586416})
    assert found.engine.checkpoint_gib == pytest.approx(2.22, abs=0.01)
    assert found.memory.weights_gib == pytest.approx(1.13, abs=0.05)


def test_an_encoder_decoder_is_refused_unless_the_image_is_the_users() -> None:
    t5 = QWEN | {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}
    with pytest.raises(PlanError, match="encoder-decoder, which vLLM"):
        plan(t5)
    assert plan(t5, engineImage="registry.example/engine:1").memory.fits
    whisper = QWEN | {"architectures": ["WhisperForConditionalGeneration"], "is_encoder_decoder": True}
    assert runners.unsupported(whisper) == ("", False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BambaForCausalLM", "removed its implementation of BambaForCausalLM after 0.23.0"),
        ("NewForCausalLM", "no implementation of NewForCausalLM"),
    ],
)
def test_an_architecture_that_vllm_lacks_is_an_estimate_with_a_warning(name: str, words: str) -> None:
    warnings = plan(QWEN | {"architectures": [name]}).warnings
    assert any("estimate" in warning and words in warning for warning in warnings)


def installed_vllm() -> Path:
    """The folder of vLLM's source where make local installed it; it is read, not imported."""
    found = next(ROOT.glob(".venv-local/lib/python*/site-packages/vllm/version.py"), None)
    if found is None:
        pytest.skip("vLLM is not installed")
    return found.parent


def test_the_architectures_are_those_of_the_installed_vllm() -> None:
    found = architectures(installed_vllm())
    data = json.loads(Path(runners.__file__).with_name("architectures.json").read_text())
    assert found == {key: data[key] for key in found}, "run: python -m benchmarks.engine.architectures"


def test_the_quantization_methods_are_those_of_the_installed_vllm() -> None:
    found = constants(installed_vllm() / QUANTIZATION)
    assert quantized.in_vllm() == found["QuantizationMethods"].keys()
