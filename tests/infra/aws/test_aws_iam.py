"""Names and policies."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.aws.context import LONGEST_PREFIX, Context
from infra.aws.iam import allow, trust_tasks
from infra.identity import Identity, bounded
from tests.infra.program import Program, run_program

CONTEXT = Context(Identity("dev"), "us-east-1", "123456789012", "aws")


@pytest.fixture
def dev() -> Program:
    return run_program("dev")


@given(st.text("abcXYZ019-_.", min_size=1, max_size=60), st.text("abcXYZ019-_.", min_size=1, max_size=60))
def test_a_name_is_bounded_plain_and_of_one_stack_only(first: str, second: str) -> None:
    for text in (first, second):
        name = bounded(f"vllm-{text}", LONGEST_PREFIX)
        assert len(name) <= LONGEST_PREFIX
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert not name.endswith("-")
    if first != second:
        assert bounded(first, 20) != bounded(second, 20)


def prefix(stack: str) -> str:
    return Context(Identity(stack), "us-east-1", "123456789012", "aws").prefix


# What stacks were called when only names of at most 40 letters, digits and hyphens were let through.
DEPLOYED = {
    "dev": "vllm-dev", "prod": "vllm-prod", "team-a": "vllm-team-a", "Dev": "vllm-dev-b57ba", "DEV": "vllm-dev-55bc9",
    "rel-1-2": "vllm-rel-1-2", "a--b": "vllm-a-b-bf3c2", "dev-": "vllm-dev-e882c", "exactly-fifteen": "vllm-exactly-fifteen",
    "sixteen-letters1": "vllm-sixteen-l-c685f", "feature-branch-with-a-long-name-of-40-ch": "vllm-feature-b-e6f04",
}  # fmt: skip


@pytest.mark.parametrize("stack", DEPLOYED)
def test_a_stack_that_is_deployed_keeps_its_names(stack: str) -> None:
    assert prefix(stack) == DEPLOYED[stack]


def test_a_branchs_stack_is_recognizable() -> None:
    assert prefix("team_a").startswith("vllm-team-a-")
    assert prefix("rel-1.2").startswith("vllm-rel-1-")
    assert prefix("feature.branch-xyz").startswith("vllm-featur")


any_stack = st.text("abcXYZ019-_.", min_size=1, max_size=100)


@given(any_stack, any_stack)
def test_no_two_stacks_share_a_name(first: str, second: str) -> None:
    for stack in (first, second):
        assert re.fullmatch(r"vllm(-[a-z0-9]+)+", prefix(stack))  # the strictest: an ECR repository's
        assert len(prefix(stack)) <= LONGEST_PREFIX
    assert first == second or prefix(first) != prefix(second)


def test_a_thousand_branches_get_a_thousand_names() -> None:
    branches = [f"feature.branch-{number}" for number in range(1000)]
    assert len(set(map(prefix, branches))) == 1000


def test_a_wildcard_action_is_refused() -> None:
    for action in ("ecs:*", "*", "ecs:Describe*", "DescribeServices"):
        with pytest.raises(ValueError, match="not a single exact action"):
            allow("X", [action], ["arn:aws:ecs:::x"])


def test_every_resource_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="without a reason"):
        allow("X", ["ecs:UpdateService"], ["*"])
    assert allow("X", ["ecr:GetAuthorizationToken"], ["*"])["Resource"] == ["*"]


def test_roles_are_taken_on_for_this_account_alone(dev: Program) -> None:
    (statement,) = json.loads(trust_tasks(CONTEXT))["Statement"]
    assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": "123456789012"},
        "ArnLike": {"aws:SourceArn": "arn:aws:ecs:us-east-1:123456789012:*"},
    }
    services = {r.name: r.document("assumeRolePolicy")["Statement"][0] for r in dev.all("Role")}
    instance = services.pop("vllm-dev-role-instance")
    assert instance["Principal"] == {"Service": "ec2.amazonaws.com"}
    (flow,) = services.pop("vllm-dev-flow")["Principal"].values()
    assert flow == "vpc-flow-logs.amazonaws.com"
    fetch = services.pop("vllm-dev-fetch")
    assert fetch["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert fetch["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    assert len(services) == 5
    assert all(s == statement for s in services.values())
