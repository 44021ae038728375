"""IAM policies, checked when they are built: exact actions, and exact resources if the action supports them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from infra.aws.context import Context

Statement = dict[str, Any]

ANY_RESOURCE: Mapping[str, str] = {
    "ecr:GetAuthorizationToken": "a login to the account's registry, not to one repository",
    "ecs:DiscoverPollEndpoint": "returns the endpoint that the agent polls, before it joins a cluster",
    "autoscaling:DescribeAutoScalingGroups": "does not support resource-level permissions",
    "autoscaling:DescribeScalingActivities": "does not support resource-level permissions",
    "ecs:ListTasks": "supports the cluster as a condition key, not as a resource",
    "logs:DescribeLogGroups": "lists all groups, and is called before a flow log's own group",
}
"""The only actions that may be allowed on all resources, each with the reason."""


def allow(
    sid: str,
    actions: Sequence[str],
    resources: Sequence[pulumi.Input[str]],
    condition: Mapping[str, Mapping[str, Any]] | None = None,
) -> Statement:
    """A statement that allows ``actions`` on ``resources``.

    Raises:
        ValueError: an action is not a ``service:Action``, or is allowed on all resources without a reason.
    """
    for action in actions:
        if not re.fullmatch(r"[a-z0-9-]+:[A-Z][A-Za-z]+", action):
            raise ValueError(f"policy {sid}: {action} is not a single exact action")
        if "*" in [r for r in resources if isinstance(r, str)] and action not in ANY_RESOURCE:
            raise ValueError(f"policy {sid}: {action} is allowed on all resources without a reason in ANY_RESOURCE")
    statement: Statement = {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    if condition:
        statement["Condition"] = condition
    return statement


def read_secret(sid: str, secret_arn: pulumi.Input[str], kms_key_arn: pulumi.Input[str]) -> list[Statement]:
    """Permissions to read one secret, and to use its KMS key if it has a customer managed one."""
    found = [allow(sid, ["secretsmanager:GetSecretValue"], [secret_arn])]
    if kms_key_arn:
        found.append(allow(f"{sid}Key", ["kms:Decrypt"], [kms_key_arn]))
    return found


def document(statements: Sequence[Statement]) -> pulumi.Output[str]:
    """The policy's JSON."""
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trust(service: str, condition: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """The trust policy of a role that an AWS service assumes."""
    statement: Statement = {
        "Effect": "Allow",
        "Principal": {"Service": f"{service}.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    if condition:
        statement["Condition"] = condition
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def trust_tasks(context: Context) -> str:
    """The trust policy of an ECS task's role, limited to tasks of this account (confused deputy protection)."""
    return trust(
        "ecs-tasks",
        {
            "StringEquals": {"aws:SourceAccount": context.account_id},
            "ArnLike": {"aws:SourceArn": context.arn("ecs", "*")},
        },
    )
