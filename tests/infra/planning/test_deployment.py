"""Valid plans that are rejected before a deploy."""

from typing import Any

import pytest

from infra.planning import make_plan
from infra.planning.deployment import FARGATE_MEMORY_MIB, deployment_problems
from infra.planning.plan import ServingPlan
from infra.settings import Settings
from infra.stack_files import load_stack

LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
CERTIFICATE = "arn:aws:acm:eu-west-1:123456789012:certificate/x"


def refused(stack: str = "dev", **overrides: Any) -> list[str]:
    settings = load_stack(stack, overrides)
    return deployment_problems(settings, make_plan(settings), "us-east-1")


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_committed_stacks_can_be_deployed(stack: str) -> None:
    assert refused(stack) == []


@pytest.mark.parametrize(
    ("overrides", "key", "advice"),
    [
        ({"scaleDownMinutes": 1}, "scaleDownMinutes", "at least 5"),
        ({"startupTimeoutMinutes": 2}, "startupTimeoutMinutes", "at least 5"),
        ({"gatewayCpu": 1000}, "gatewayCpu", "1024"),
        ({"gatewayMemoryMib": 8192}, "gatewayMemoryMib", "4096"),
        ({"gatewayCpu": 256, "gatewayMemoryMib": 768}, "gatewayMemoryMib", "512"),
        ({"certificateArn": CERTIFICATE}, "certificateArn", "aws:region: eu-west-1"),
        ({"gpuCount": 4, "sharedMemoryGib": 1}, "sharedMemoryGib", "at least 4"),
        ({"sharedMemoryGib": 15}, "sharedMemoryGib", "at most 7"),
    ],
)
def test_each_refusal_is_one_line_that_says_what_to_set(overrides: dict[str, Any], key: str, advice: str) -> None:
    (found,) = refused(**overrides)
    assert found.startswith(f"{key}: ")
    assert advice in found
    assert "\n" not in found


BIG = {"model": "acme/big", "gpu": "h200", "gpuCount": 8}


def plan_of(gib: float, **overrides: Any) -> tuple[Settings, ServingPlan]:
    settings = load_stack("dev", {**BIG, **overrides})
    return settings, make_plan(settings, fetch=lambda model, revision: LLAMA | {"weights_bytes": int(gib * (1 << 30))})


@pytest.mark.parametrize(("gib", "startup_minutes", "scale_down_minutes"), [(15, 20, 10), (250, 39, 20), (640, 55, 43)])
def test_the_times_follow_the_cold_start_unless_they_are_set(
    gib: float, startup_minutes: int, scale_down_minutes: int
) -> None:
    settings, found = plan_of(gib)
    assert deployment_problems(settings, found, "us-east-1") == []
    replicas = found.replicas
    assert replicas.startup_timeout_seconds == startup_minutes * 60
    assert replicas.scale_down_seconds == scale_down_minutes * 60
    assert found.gateway.environment["GATEWAY_HOLD_TIMEOUT_SECONDS"] == str(replicas.startup_timeout_seconds)
    _, fixed = plan_of(gib, startupTimeoutMinutes=50, scaleDownMinutes=45)
    assert (fixed.replicas.startup_timeout_seconds, fixed.replicas.scale_down_seconds) == (3000, 2700)


def test_a_cold_start_longer_than_any_timeout_is_one_problem() -> None:
    settings, found = plan_of(980)
    (problem,) = deployment_problems(settings, found, "us-east-1")
    assert "longer than the longest startup timeout of 55 minutes" in problem
    assert "weightsThroughput: elastic" in problem
    settings, found = plan_of(980, weightsThroughput="elastic")
    assert deployment_problems(settings, found, "us-east-1") == []


def test_a_shortened_context_says_what_would_make_it_longer() -> None:
    settings = load_stack("dev", {"model": "acme/llama", "gpu": "a10g", "maxModelLen": 0})
    found = make_plan(settings, fetch=lambda model, revision: LLAMA | {"weights_bytes": 16_060_522_496})
    (warning,) = [warning for warning in found.warnings if warning.startswith("maxModelLen: planned")]
    assert f"planned {found.memory.max_model_len:,} of 131,072 tokens; for more: " in warning
    assert "gpu: " in warning
    chosen = make_plan(settings.model_copy(update={"max_model_len": 4096}), fetch=lambda model, revision: LLAMA)
    assert not any("planned" in warning for warning in chosen.warnings)


def test_a_fixed_size_stack_may_have_any_cooldown() -> None:
    assert refused("prod", scaleDownMinutes=1, maxReplicas=1) == []


def test_what_a_fargate_refusal_suggests_exists() -> None:
    for cpu, (smallest, largest, _) in FARGATE_MEMORY_MIB.items():
        assert refused(gatewayCpu=cpu, gatewayMemoryMib=smallest) == []
        assert refused(gatewayCpu=cpu, gatewayMemoryMib=largest) == []


def test_kubernetes_asks_nothing_of_aws() -> None:
    assert refused(target="kubernetes", gatewayCpu=1000, certificateArn=CERTIFICATE) == []
