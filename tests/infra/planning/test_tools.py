"""Tools and images: the plan's arguments for vLLM and the gateway, and the plan's values in /info."""

import json
from typing import Any

import pytest

from infra.planning import make_plan
from infra.planning.plan import ServingPlan
from infra.stack_files import load_stack


def plan(**overrides: Any) -> ServingPlan:
    return make_plan(load_stack("dev", overrides))


def parser(args: tuple[str, ...]) -> str | None:
    return args[args.index("--tool-call-parser") + 1] if "--tool-call-parser" in args else None


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
