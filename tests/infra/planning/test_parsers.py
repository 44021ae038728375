"""Parsers, tools and images: the plan's arguments for vLLM and the gateway, and the plan's values in /info."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.engine.parser_names import registered, version_of
from image.engine.argument_list import versions
from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.catalog.models import catalog
from infra.planning.engine import VLLM_VERSION
from infra.planning.parsers import families, family_of, known_versions, registry
from infra.planning.plan import ServingPlan
from infra.stack_files import load_stack

ROOT = Path(__file__).parents[3]
INSTALLED = sorted(
    vllm.parents[1] for vllm in ROOT.glob(".venv*/lib/python3*/site-packages/vllm/_version.py")
)  # make local installs one
DENSE = {
    "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 64, "vocab_size": 1000, "max_position_embeddings": 8192,
}  # fmt: skip


def plan(**overrides: Any) -> ServingPlan:
    return make_plan(load_stack("dev", overrides))


def value(args: tuple[str, ...], flag: str) -> str | None:
    return args[args.index(flag) + 1] if flag in args else None


def parser(args: tuple[str, ...]) -> str | None:
    return value(args, "--tool-call-parser")


def foreign(model: str, model_type: str, **settings: Any) -> ServingPlan:
    """The plan of a model that is not in the catalog."""
    config = DENSE | {"model_type": model_type}
    return make_plan(load_stack("dev", {"model": model, "maxModelLen": 0, **settings}), fetch=lambda *_: config)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "hermes"),
        ({"model": "Qwen/Qwen3-30B-A3B", "gpu": "h100"}, "hermes"),
        ({"model": "Qwen/Qwen3-8B-AWQ"}, "hermes"),
        ({"model": "meta-llama/Llama-3.1-8B-Instruct", "gpu": "l40s"}, "llama3_json"),
        ({"model": "Qwen/Qwen2.5-VL-7B-Instruct", "gpu": "l40s"}, None),
        ({"model": "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "maxModelLen": 2048}, None),
        ({"toolCallParser": "none"}, None),
        ({"toolCallParser": "qwen3_xml"}, "qwen3_xml"),
    ],
)
def test_tools_are_called_where_the_models_parser_is_known(settings: dict[str, Any], expected: str | None) -> None:
    chosen = plan(**settings)
    assert parser(chosen.engine.args) == expected
    # The one without the other is refused by vLLM.
    assert ("--enable-auto-tool-choice" in chosen.engine.args) == (expected is not None)
    assert json.loads(chosen.gateway.environment["GATEWAY_INFO"])["tool_call_parser"] == (expected or "")


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        ({}, (0, 0)),
        ({"model": "Qwen/Qwen2.5-VL-7B-Instruct", "gpu": "l40s"}, (5, 1)),
        ({"model": "Qwen/Qwen2.5-VL-7B-Instruct", "gpu": "l40s", "imageLimit": 2, "videoLimit": 0}, (2, 0)),
    ],
)
def test_a_model_that_sees_takes_pictures_unless_told_otherwise(
    settings: dict[str, Any], limits: tuple[int, int]
) -> None:
    chosen = plan(**settings)
    info = json.loads(chosen.gateway.environment["GATEWAY_INFO"])
    assert (info["image_limit"], info["video_limit"]) == limits
    args = chosen.engine.args
    assert ("--limit-mm-per-prompt" in args) == (limits != (0, 0))
    if limits != (0, 0):
        told = json.loads(args[args.index("--limit-mm-per-prompt") + 1])
        assert (told["image"], told["video"]) == limits


def test_pictures_are_fetched_from_public_hosts_and_named_ones_and_from_nowhere_else() -> None:
    vision = {"model": "Qwen/Qwen2.5-VL-7B-Instruct", "gpu": "l40s"}
    assert plan(**vision).engine.environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert "VLLM_MEDIA_URL_ALLOW_REDIRECTS" not in plan().engine.environment
    assert "GATEWAY_MEDIA_HOSTS" not in plan(**vision).gateway.environment
    named = plan(**vision, mediaHosts=["media.internal", "10.0.0.7"])
    assert named.gateway.environment["GATEWAY_MEDIA_HOSTS"] == "media.internal,10.0.0.7"


def test_prod_returns_reasoning_apart_from_the_answer_and_dev_does_not_lose_its_answers() -> None:
    prod = make_plan(load_stack("prod"))
    assert value(prod.engine.args, "--reasoning-parser") == "qwen3"
    assert json.loads(prod.gateway.environment["GATEWAY_INFO"])["reasoning_parser"] == "qwen3"
    # With a parser, all of this model's answers would be taken for reasoning: it was not trained to reason.
    assert value(plan(model="Qwen/Qwen3-4B-Instruct-2507").engine.args, "--reasoning-parser") is None
    assert value(make_plan(load_stack("prod", {"reasoningParser": "none"})).engine.args, "--reasoning-parser") is None


@pytest.mark.parametrize(
    ("model", "model_type", "reasoning", "tools"),
    [
        ("openai/gpt-oss-20b", "gpt_oss", "openai_gptoss", "openai"),
        ("acme/support-bot", "gpt_oss", "openai_gptoss", "openai"),
        ("unsloth/Qwen3-14B-GGUF-merged", "qwen3", "qwen3", "hermes"),
        ("acme/Qwen3-8B-finance", "qwen3", "qwen3", "hermes"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", "qwen3_moe", "qwen3", "hermes"),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", "qwen3_next", None, "hermes"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_moe", None, "qwen3_coder"),
        ("Qwen/Qwen3.5-27B", "qwen3_5", "qwen3", "qwen3_coder"),
        ("Qwen/Qwen3-8B-Base", "qwen3", None, None),
        ("Qwen/Qwen3-Embedding-8B", "qwen3", None, None),
        ("Qwen/Qwen3-Reranker-4B", "qwen3", None, None),
        ("Qwen/Qwen3Guard-Gen-8B", "qwen3", None, None),
        ("Qwen/Qwen3-Omni-30B-A3B-Thinking", "qwen3_omni_moe", "qwen3", "hermes"),
        ("NousResearch/Hermes-4-14B", "qwen3", None, "hermes"),
        ("RedHatAI/gemma-4-31B-it-FP8_BLOCK", "gemma4", "gemma4", "gemma4"),
        ("zai-org/GLM-5.1-FP8", "glm_moe_dsa", "glm45", "glm47"),
        ("Qwen/QwQ-32B", "qwen2", "deepseek_r1", "hermes"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "qwen2", "deepseek_r1", None),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama", "deepseek_r1", None),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "qwen3", "deepseek_r1", None),
        ("nvidia/DeepSeek-V3.1-NVFP4", "deepseek_v3", "deepseek_v3", "deepseek_v31"),
        ("acme/llama-3.1-8b-instruct-tuned-with-qwen3-32b", "llama", None, "llama3_json"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama", None, "llama3_json"),
        ("meta-llama/Llama-3.1-8B", "llama", None, None),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama4", None, "llama4_json"),
        ("zai-org/GLM-4.5-Air", "glm4_moe", "glm45", "glm45"),
        ("zai-org/GLM-4.7", "glm4_moe", "glm45", "glm47"),
        ("zai-org/GLM-4.5V", "glm4v_moe", None, None),
        ("moonshotai/Kimi-K2-Thinking", "kimi_k2", "kimi_k2", "kimi_k2"),
        ("moonshotai/Kimi-K2-Instruct", "kimi_k2", None, "kimi_k2"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "nemotron_h", "nemotron_v3", "qwen3_coder"),
        ("google/gemma-4-26B-A4B-it", "gemma4", "gemma4", "gemma4"),
        ("google/gemma-3-27b-it", "gemma3", None, None),
        ("microsoft/phi-4", "phi3", None, None),
        ("microsoft/Phi-4-reasoning-plus", "phi3", "deepseek_r1", None),
        ("ibm-granite/granite-4.0-h-small", "granitemoehybrid", None, "granite4"),
        ("MiniMaxAI/MiniMax-M2.5", "minimax_m2", "minimax_m2", "minimax_m2"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "mistral", None, None),
        ("mistralai/Magistral-Small-2509", "mistral3", "mistral", "mistral"),
        ("s3://acme-models/Qwen3-32B/v7", "qwen3", "qwen3", "hermes"),
    ],
)
def test_a_family_is_found_by_name_and_type(
    model: str, model_type: str, reasoning: str | None, tools: str | None
) -> None:
    family, named = family_of(model, model_type)
    certain = named or model_type not in families()["may_reason"]
    assert (family.get("reasoning_parser") if certain else None, family.get("tool_call_parser")) == (reasoning, tools)


def test_a_fine_tune_gets_its_familys_parsers_and_one_of_unknown_kind_a_warning() -> None:
    known = foreign("acme/my-qwen3-8b", "qwen3")
    assert value(known.engine.args, "--reasoning-parser") == "qwen3"
    unknown = foreign("acme/support-bot", "qwen3")
    assert (value(unknown.engine.args, "--reasoning-parser"), parser(unknown.engine.args)) == (None, "hermes")
    assert any("set reasoningParser: qwen3; if not, set none" in text for text in unknown.warnings)
    for settings in ({"reasoningParser": "none"}, {"baseModel": "Qwen/Qwen3-8B"}):
        assert not any("reasoningParser" in text for text in foreign("acme/support-bot", "qwen3", **settings).warnings)
    tuned = foreign("acme/support-bot", "qwen3", baseModel="Qwen/Qwen3-8B")
    assert value(tuned.engine.args, "--reasoning-parser") == "qwen3"


def test_mistrals_own_format_is_used_for_mistrals_own_repositories() -> None:
    own = foreign("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "mistral3", gpu="h100").engine.args
    assert [value(own, flag) for flag in ("--tokenizer-mode", "--config-format", "--load-format")] == ["mistral"] * 3
    # A fine-tune need not have the files; its tools are called in the same way.
    other = foreign("unsloth/Mistral-Small-3.2-24B-Instruct-2506", "mistral3", gpu="h100").engine.args
    assert ("--tokenizer-mode" in other, "--load-format" in other, parser(other)) == (False, False, "mistral")
    plain = foreign("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "mistral3", gpu="h100", tokenizerMode="hf")
    assert [value(plain.engine.args, flag) for flag in ("--tokenizer-mode", "--config-format", "--load-format")] == [
        "hf"
    ] * 3
    off = foreign("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "mistral3", gpu="h100", tokenizerMode="none")
    assert not {"--tokenizer-mode", "--config-format", "--load-format"} & set(off.engine.args)


@pytest.mark.parametrize(
    ("model", "engine_args"),
    [
        ("mistralai/Ministral-3-3B-Instruct-2512-GGUF", []),
        ("mistralai/Ministral-3-3B-Instruct-2512-BF16", []),
        ("mistralai/Ministral-3-3B-Instruct-2512", ["--load-format", "runai_streamer"]),
        ("mistralai/Ministral-3-3B-Instruct-2512", ["--config-format", "hf"]),
    ],
)
def test_a_conversion_and_another_loader_do_not_get_half_of_mistrals_format(model: str, engine_args: list[str]) -> None:
    args = foreign(model, "mistral3", engineArgs=engine_args).engine.args
    assert [word for word in args if "format" in word.partition("=")[0]] == [
        w for w in engine_args if "format" in w.partition("=")[0]
    ]


def test_a_parser_among_the_arguments_is_refused_naming_the_setting() -> None:
    with pytest.raises(PlanError) as raised:
        plan(engineArgs=["--tool-call-parser=qwen3_xml", "--reasoning_parser=qwen3"])
    told = "\n".join(raised.value.problems)
    assert "Remove it, and set toolCallParser: qwen3_xml" in told
    assert "Remove it, and set reasoningParser: qwen3" in told


@pytest.mark.parametrize(
    ("key", "found", "near"),
    [("reasoningParser", "deepseek-r1", "deepseek_r1"), ("toolCallParser", "hermes2", "hermes"), ("tokenizerMode", "mistrall", "mistral")],
)  # fmt: skip
def test_a_parser_that_vllm_does_not_have_is_refused_with_the_nearest(key: str, found: str, near: str) -> None:
    with pytest.raises(PlanError) as raised:
        plan(**{key: found})
    (problem,) = raised.value.problems
    assert problem.startswith(f"{key}: found {found}, which vLLM {VLLM_VERSION} does not have. Set {near}")
    assert plan(**{key: found}, engineImage="registry.example/mine:1").engine.args  # it may have others
    with pytest.raises(PlanError):
        plan(**{key: found}, engineImage=f"docker.io/vllm/vllm-openai:v{VLLM_VERSION}")


def test_wrong_parsers_are_reported_with_an_unknown_model_and_by_kind_of_plugin() -> None:
    wrong = {"reasoningParser": "mine", "toolCallParser": "mine", "tokenizerMode": "mine"}

    def keys(**values: Any) -> list[str]:
        with pytest.raises(PlanError) as raised:
            plan(**wrong, **values)
        return sorted(problem.partition(":")[0] for problem in raised.value.problems)

    assert keys(model="./no-such-model") == ["model", *sorted(wrong)]
    assert keys(engineArgs=["--tool-parser-plugin", "/x.py"]) == ["reasoningParser", "tokenizerMode"]
    assert keys(engineArgs=["--reasoning-parser-plugin=/x.py"]) == ["tokenizerMode", "toolCallParser"]


def test_every_parser_of_a_family_is_one_that_vllm_registers() -> None:
    names = registry(VLLM_VERSION)
    for family in families()["families"]:
        assert family.get("reasoning_parser", "qwen3") in names["reasoning"], family
        assert family.get("tool_call_parser", "hermes") in names["tool_call"], family
        assert family.get("tokenizer_mode", "hf") in names["tokenizer_modes"], family
        assert family["source"] in families()["sources"]
    known = {family["family"] for family in families()["families"]}
    assert set(families()["types"].values()) <= known
    assert set(families()["may_reason"].values()) <= set(names["reasoning"])


def test_the_names_are_those_of_every_installed_vllm() -> None:
    assert VLLM_VERSION in known_versions()
    assert set(versions()) == set(known_versions())  # those whose arguments are known
    for site_packages in INSTALLED:  # none until make local was run
        version = version_of(site_packages)
        assert {kind: list(names) for kind, names in registry(version).items()} == registered(site_packages)


def test_every_model_of_the_catalog_that_reasons_has_a_parser() -> None:
    for model, architecture in catalog().items():
        chats = not any(word in model for word in ("Embedding", "Reranker"))
        if chats and architecture.model_type in families()["may_reason"]:
            assert family_of(model, architecture.model_type)[1], model
