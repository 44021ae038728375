"""Valid plans that are rejected before a deploy."""

from typing import Any

import pytest

from infra.planning import make_plan
from infra.planning.deployment import FARGATE_MEMORY_MIB, deployment_problems
from infra.stack_files import load_stack

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


def test_a_fixed_size_stack_may_have_any_cooldown() -> None:
    assert refused("prod", scaleDownMinutes=1, maxReplicas=1) == []


def test_what_a_fargate_refusal_suggests_exists() -> None:
    for cpu, (smallest, largest, _) in FARGATE_MEMORY_MIB.items():
        assert refused(gatewayCpu=cpu, gatewayMemoryMib=smallest) == []
        assert refused(gatewayCpu=cpu, gatewayMemoryMib=largest) == []


def test_kubernetes_asks_nothing_of_aws() -> None:
    assert refused(target="kubernetes", gatewayCpu=1000, certificateArn=CERTIFICATE) == []
