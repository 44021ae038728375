"""What vLLM does with a model: generate, pool (embeddings, scores, classes) or transcribe, decided as vLLM decides it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

Runner = Literal["generate", "pooling"]
_ARCHITECTURES = Path(__file__).with_name("architectures.json")
SENTENCE_TRANSFORMERS = "sentence_transformers"  # added to a config whose repository has a modules.json
SENTENCE_LENGTH = "sentence_length"  # and the max_seq_length of its sentence_bert_config.json
# vLLM's defaults for an architecture that it does not list: the first suffix that matches.
_SUFFIXES: tuple[tuple[str, Runner], ...] = (
    ("ForCausalLM", "generate"), ("ForConditionalGeneration", "generate"), ("ChatModel", "generate"), ("LMHeadModel", "generate"),
    ("ForTextEncoding", "pooling"), ("EmbeddingModel", "pooling"), ("ForSequenceClassification", "pooling"), ("ForTokenClassification", "pooling"),
    ("ForAudioClassification", "pooling"), ("ForImageClassification", "pooling"), ("ForVideoClassification", "pooling"),
    ("ClassificationModel", "pooling"), ("ForRewardModeling", "pooling"), ("RewardModel", "pooling"), ("Model", "pooling"),
)  # fmt: skip
# Each token attends to the whole input, so that nothing is cached.
_BIDIRECTIONAL = ("Bidirectional", "Gemma3TextModel", "GteNewModel", "NewModel")


@functools.cache
def _data() -> Mapping[str, Any]:
    return dict(json.loads(_ARCHITECTURES.read_text()))


def architectures_of(config: Mapping[str, Any]) -> list[str]:
    """The names that the config lists, if it lists any."""
    listed = config.get("architectures")
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def runner_of(config: Mapping[str, Any]) -> Runner:
    """vLLM's ``--runner auto``: a Sentence Transformers repository pools, whatever its architecture is."""
    if config.get(SENTENCE_TRANSFORMERS) is True:
        return "pooling"
    for name in architectures_of(config):
        if name in _data()["generate"]:
            return "generate"
        if name in _data()["pooling"]:
            return "pooling"
        for suffix, runner in _SUFFIXES:
            if name.endswith(suffix):
                return runner
    return "generate"


def is_bidirectional(config: Mapping[str, Any]) -> bool:
    """Whether a pooling model's decoder attends in both directions."""
    if config.get("is_causal") is False or config.get("use_bidirectional_attention") is True:
        return True
    return any(part in name for name in architectures_of(config) for part in _BIDIRECTIONAL)


def unsupported(config: Mapping[str, Any]) -> tuple[str, bool]:
    """Why vLLM may not run the model, and whether that is certain; an empty text if it has an implementation."""
    names = architectures_of(config)
    if not names or any(name in _data()[kind] for name in names for kind in ("generate", "pooling")):
        return "", False
    name, version = names[0][:60], _data()["vllm"]
    if config.get("is_encoder_decoder") is True:
        plugin = ", except through a plugin" if name in _data()["plugins"] else ""
        return f"{name} is an encoder-decoder, which vLLM {version} does not run{plugin}", True
    if last := _data()["removed"].get(name):
        return f"vLLM removed its implementation of {name} after {last}, and may not run it", False
    if any(name.endswith(suffix) for suffix, runner in _SUFFIXES if runner == "pooling"):
        return "", False  # converted from the generating model of the same family
    return f"vLLM {version} has no implementation of {name} and may not run it", False
