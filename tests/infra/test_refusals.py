"""docs/refusals.md lists every problem with its exact message. `UPDATE_DOCS=1 make test` regenerates it."""

import os
from pathlib import Path
from typing import Any

import pytest

from infra.errors import PlanError, SettingsError
from infra.planning import make_plan
from infra.planning.deployment import deployment_problems
from infra.preflight import not_offered, vcpu_quota
from infra.stack_files import load_stack

DOCUMENT = Path(__file__).parents[2] / "docs/refusals.md"
HEADING = """# Problems reported before anything is created

`pulumi preview`, `pulumi up` and `python -m infra.planning` reject settings that cannot work. They report all problems at
once, each with what to set instead. A test generates this table from the code, so it shows the exact messages.

| problem | stack and settings | message |
|---|---|---|
"""
W4A8 = {
    "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "vocab_size": 128_256, "max_position_embeddings": 32_768,
    "quantization_config": {"quant_method": "compressed-tensors", "config_groups": {
        "group_0": {"weights": {"num_bits": 4}, "input_activations": {"num_bits": 8, "type": "float"}}}},
}  # fmt: skip
# What is wrong, the stack it was tried on, the settings that were changed.
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("the model does not fit", "prod", {"gpu": "a10g"}),
    ("one sequence does not fit", "dev", {"maxModelLen": 262_144}),
    ("tensor parallelism does not divide the heads", "dev", {"gpuCount": 8, "model": "Qwen/Qwen2.5-VL-7B-Instruct"}),
    ("FP8 KV cache on an A10G", "dev", {"kvCacheDtype": "fp8"}),
    ("a quantization that the GPU cannot run", "dev", {"model": "acme/Model-W4A8"}),
    ("a quantization that is not the checkpoint's", "dev", {"quantization": "fp8", "model": "Qwen/Qwen3-8B-AWQ"}),
    ("maxModelLen beyond the model's", "dev", {"maxModelLen": 300_000}),
    ("a parser that vLLM does not have", "prod", {"reasoningParser": "deepseek-r1"}),
    ("a folder of this machine", "dev", {"model": "./my-model"}),
    (
        "a folder in the image that cannot be read",
        "dev",
        {"model": "/models/mine", "engineImage": "example.com/mine:1"},
    ),
    ("an object store that is not supported", "dev", {"model": "gs://acme-models/mine"}),
    ("a revision of a model in S3", "dev", {"model": "s3://acme-models/mine", "modelRevision": "v1"}),
    ("shared memory too small", "dev", {"gpuCount": 4, "sharedMemoryGib": 1}),
    ("memory below what prefetch needs", "dev", {"instanceTypes": ["g5.xlarge"], "model": "Qwen/Qwen3-8B"}),
    ("images without a vision model", "dev", {"imageLimit": 1}),
    ("cooldown below the cold start", "dev", {"scaleDownMinutes": 1}),
    ("startup timeout below the cold start", "dev", {"startupTimeoutMinutes": 2}),
    ("certificate in another region", "dev", {"certificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/x"}),
    ("a Fargate size that does not exist", "dev", {"gatewayMemoryMib": 8192}),
    ("plain HTTP from everywhere", "dev", {"allowedCidrs": ["0.0.0.0/0"]}),
    ("a web page's origin that is not one", "dev", {"allowedOrigins": ["https://app.example.com/"]}),
    ("a gateway's setting that the stack sets", "dev", {"gatewayEnvironment": ["GATEWAY_COUNT=2"]}),
    ("a gateway's setting with a bad value", "dev", {"gatewayEnvironment": ["GATEWAY_MAX_TOKENS=many"]}),
    ("a credential in the clear", "dev", {"gatewayEnvironment": ["OTEL_EXPORTER_OTLP_HEADERS=x-api-key=..."]}),
    ("a keys document with a bad field", "dev", {"apiKeysDocument": '{"alice": {"key": "...", "expires": "soon"}}'}),
    ("an unknown key", "dev", {"gppu": "h100"}),
    ("a bad value", "dev", {"gpuCount": 3}),
    ("an argument that a setting sets", "dev", {"engineArgs": ["--max-model-len", "16k"]}),
    ("an argument that vLLM does not have", "dev", {"engineArgs": ["--gpu-memory-utilisation=0.9"]}),
    ("two words in one item of engineArgs", "dev", {"engineArgs": ["--seed 1"]}),
    ("an argument with a bad value", "dev", {"engineArgs": ["--max-logprobs", "many"]}),
    ("a parser that vLLM does not have", "dev", {"toolCallParser": "hermes2"}),
    ("more sequences than tokens per batch", "dev", {"maxNumSeqs": 4096}),
    ("text for a list", "dev", {"allowedCidrs": "203.0.113.0/24"}),
    ("a secret where nothing is encrypted", "dev", {"engineEnvironment": ["HF_TOKEN=..."]}),
    ("a variable that is an argument", "dev", {"engineEnvironment": ["KV_CACHE_DTYPE=fp8"]}),
    ("GPU not offered in the region", "dev", {}),
    ("vCPU quota too low", "prod", {}),
]


class Quotas:
    def get_service_quota(self, **_: str) -> dict[str, Any]:
        return {"Quota": {"Value": 8.0}}


def message(title: str, stack: str, overrides: dict[str, Any]) -> str:
    try:
        settings = load_stack(stack, overrides)
        fetch = (lambda *_: W4A8) if settings.model.endswith("W4A8") else None
        plan = make_plan(settings, fetch=fetch)
    except SettingsError as error:
        (problem,) = error.problems
        return problem
    except PlanError as error:
        (reason,) = error.problems
        return reason
    if title.startswith("GPU not offered"):
        return not_offered(plan.replicas.instance_types, "eu-north-1")
    if title.startswith("vCPU quota"):
        (refusal,) = vcpu_quota(settings, plan, "us-east-1", Quotas).refusals
        return refusal
    (refusal,) = deployment_problems(settings, plan, "us-east-1")
    return refusal


def row(title: str, stack: str, overrides: dict[str, Any]) -> str:
    tried = ", ".join([stack, *(f"{key}: {value}" for key, value in overrides.items())])
    return f"| {title} | `{tried}` | {message(title, stack, overrides)} |"


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_a_refusal_is_at_most_two_lines_and_says_what_to_set(case: tuple[str, str, dict[str, Any]]) -> None:
    text = message(*case)
    assert "\n" not in text
    assert len(text) < 420  # two lines of a wide terminal
    assert any(word in text for word in ("Set ", "Set:", "set ", "Remove ", "did you mean"))


def test_the_table_in_the_docs_is_what_users_see() -> None:
    table = HEADING + "\n".join(row(*case) for case in CASES) + "\n"
    if os.environ.get("UPDATE_DOCS"):
        DOCUMENT.write_text(table)
    assert DOCUMENT.read_text() == table
