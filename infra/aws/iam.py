"""IAM policies, checked when they are built: exact actions, and exact resources wherever AWS knows them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from infra.aws.context import Context

Statement = dict[str, Any]

ANY_RESOURCE: Mapping[str, str] = {
    "ecr:GetAuthorizationToken": "a login to the account's registry, which belongs to no repository",
    "ecs:DiscoverPollEndpoint": "tells the agent which endpoint to poll, before it has a cluster",
    "autoscaling:DescribeAutoScalingGroups": "AWS knows no resource for it",
    "autoscaling:DescribeScalingActivities": "AWS knows no resource for it",
    "ecs:ListTasks": "AWS takes the cluster as a condition, not as a resource",
    "logs:DescribeLogGroups": "lists groups, and is asked before a flow log's own",
}
"""The only actions that may be allowed on every resource, each with the reason."""


def allow(
    sid: str,
    actions: Sequence[str],
    resources: Sequence[pulumi.Input[str]],
    condition: Mapping[str, Mapping[str, Any]] | None = None,
) -> Statement:
    """A statement that allows ``actions`` on ``resources``.

    Raises:
        ValueError: an action is no ``service:Action``, or is allowed on every resource without a reason.
    """
    for action in actions:
        if not re.fullmatch(r"[a-z0-9-]+:[A-Z][A-Za-z]+", action):
            raise ValueError(f"policy {sid}: {action} is not one exact action")
        if "*" in [r for r in resources if isinstance(r, str)] and action not in ANY_RESOURCE:
            raise ValueError(f"policy {sid}: {action} is allowed on every resource without a reason in ANY_RESOURCE")
    statement: Statement = {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    if condition:
        statement["Condition"] = condition
    return statement


def read_secret(sid: str, secret_arn: pulumi.Input[str], kms_key_arn: str) -> list[Statement]:
    """What it takes to read one secret: the secret, and the key it is encrypted with where that is one's own."""
    found = [allow(sid, ["secretsmanager:GetSecretValue"], [secret_arn])]
    if kms_key_arn:
        found.append(allow(f"{sid}Key", ["kms:Decrypt"], [kms_key_arn]))
    return found


def document(statements: Sequence[Statement]) -> pulumi.Output[str]:
    """The policy's JSON."""
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trust(service: str, condition: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """The trust policy of a role that an AWS service takes on."""
    statement: Statement = {
        "Effect": "Allow",
        "Principal": {"Service": f"{service}.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    if condition:
        statement["Condition"] = condition
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def trust_tasks(context: Context) -> str:
    """The trust policy of an ECS task's role: only for tasks of this account, so that nobody else's ECS may use it."""
    return trust(
        "ecs-tasks",
        {
            "StringEquals": {"aws:SourceAccount": context.account_id},
            "ArnLike": {"aws:SourceArn": context.arn("ecs", "*")},
        },
    )
