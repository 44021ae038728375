"""Nothing starts before, or is deleted after, the resources that it needs, for every configuration of the matrix.

The engine creates along dependencies and deletes against them, so that one chain of dependencies is both promises.
"""

from __future__ import annotations

from typing import Any

import pytest

from policy.matrix import load_matrix
from tests.infra.needs import RUNNERS, Graph, of_program
from tests.infra.program import run_program

MATRIX = load_matrix()
KUBERNETES: dict[str, dict[str, Any]] = {
    "kubernetes": {"target": "kubernetes", "hfToken": "hf_order"},
    "kubernetes-with-domain": {"target": "kubernetes", "domain": "llm.example.com", "gatewayCount": 2},
}


def graph(name: str) -> Graph:
    if name in KUBERNETES:
        return of_program(run_program("dev", **KUBERNETES[name]).resources)
    return of_program(run_program(MATRIX[name].stack_name, **MATRIX[name].values()).resources)


RICHEST = ("ttl-and-budget", "kubernetes", "waf-and-every-log", "own-kms-key")
"""Configurations in which, together, every kind of need is found."""


@pytest.mark.parametrize("name", [*MATRIX, *KUBERNETES])
def test_nothing_runs_before_or_after_what_it_needs(name: str) -> None:
    assert [str(need) for need in graph(name).unmet()] == []


def test_every_kind_of_need_is_found_somewhere() -> None:
    """An empty list proves nothing where no need was derived."""
    missing = {
        *((runner, why) for runner in ("Service", "Group", "Schedule")
          for why in ("its subnet's route table", "its subnet's route", "its way out", "its NAT's address")),
        ("Service", "its subnet's endpoint"), ("Service", "its security group's rule"), ("Service", "its role's policy"),
        ("Service", "a secret's value"), ("Service", "where its containers log"), ("Service", "its volume's policy"),
        ("Service", "a mount target of its volume"), ("Service", "its target group's listener"),
        ("Service", "its capacity provider's place in the cluster"), ("Service", "the instances that it runs on"),
        ("Service", "where its image comes through"), ("Service", "where its image is"), ("Service", "its name"),
        ("Group", "its role's policy"), ("Group", "its security group's rule"),
        ("Schedule", "its role's policy"), ("Schedule", "a secret's value"), ("Schedule", "what it calls"),
        ("Schedule", "what it acts upon"), ("Schedule", "where it logs"), ("Function", "its role's policy"),
        ("Function", "where it logs"), ("Function", "what it acts upon"), ("FlowLog", "its role's policy"),
        ("LoadBalancer", "its security group's rule"), ("LoadBalancer", "its way out"),
        ("LoadBalancer", "the right to log"), ("Deployment", "its namespace"),
        ("Deployment", "its service account's rights"), ("Deployment", "what its pods mount or read"),
        ("Deployment", "who may reach its pods"),
    }  # fmt: skip
    # Rendering each takes long: the search ends once everything was found.
    for name in dict.fromkeys([*RICHEST, *MATRIX, *KUBERNETES]):
        missing -= {(need.runner.kind, need.why) for need in graph(name).needs()}
        if not missing:
            break
    assert missing == set()


def test_whatever_runs_is_known_as_such() -> None:
    kinds = {thing.type for name in [*MATRIX, *KUBERNETES] for thing in graph(name).things}
    assert {kind for kind in RUNNERS if "batch" not in kind and "StatefulSet" not in kind} <= kinds
