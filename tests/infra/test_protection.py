"""``protect``: a destroy fails at the guard first, and each resource that serves clients is protected too."""

from __future__ import annotations

from typing import Any

import pytest

from infra.protection import SERVING
from tests.infra.program import Program, Registered, run_program

GUARD = "vllm:index:Guard"
STACKS: dict[str, dict[str, Any]] = {
    "ecs": {"domain": "llm.example.com", "alarmEmail": "ops@example.com", "ttlHours": 12},
    "kubernetes": {"target": "kubernetes", "domain": "llm.example.com"},
}


def split(program: Program) -> tuple[Registered, list[Registered]]:
    """The guard, and everything that exists outside Pulumi's state."""
    (guard,) = [resource for resource in program.resources if resource.type == GUARD]
    return guard, [
        resource for resource in program.resources if not resource.type.startswith(("vllm:", "vllm-endpoint:"))
    ]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("protect", [True, False])
def test_the_guard_depends_on_everything_and_is_deleted_first(stack: str, protect: bool) -> None:
    guard, others = split(run_program("dev", protect=protect, **STACKS[stack]))
    assert {resource.urn for resource in others} <= set(guard.depends_on)
    assert guard.protected is protect


@pytest.mark.parametrize("stack", STACKS)
def test_what_clients_notice_is_protected_from_a_replacement_and_nothing_else_is(stack: str) -> None:
    _, others = split(run_program("dev", protect=True, **STACKS[stack]))
    assert {resource.type for resource in others if resource.protected} == SERVING & {r.type for r in others}
    assert {resource.type for resource in others if resource.type in SERVING and not resource.protected} == set()
    _, others = split(run_program("dev", protect=False, **STACKS[stack]))
    assert not any(resource.protected for resource in others)


def test_the_kinds_that_serve_are_those_of_both_targets() -> None:
    kinds = {resource.type for stack in STACKS.values() for resource in split(run_program("dev", **stack))[1]}
    assert kinds >= SERVING, "a misspelt kind protects nothing"
    # What a replacement takes from clients: the address, the weights, and what answers.
    assert {
        "aws:ecs/cluster:Cluster", "aws:ecs/service:Service", "aws:efs/accessPoint:AccessPoint",
        "aws:efs/fileSystem:FileSystem", "aws:lb/loadBalancer:LoadBalancer", "kubernetes:apps/v1:Deployment",
        "kubernetes:networking.k8s.io/v1:Ingress",
    } <= SERVING  # fmt: skip
