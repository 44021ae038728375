"""Every IAM policy that a run of the program rendered, and the permissions that are too broad."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.infra.program import Program, Registered

WIDE_RESOURCES: dict[str, str] = {
    r"\*": "only with the actions of ANY_RESOURCES",
    r".*:LogGroup/[\w-]+:\*": "the streams of one log group, which the container's name and task id make",
    r"arn:aws:ecs:[\w-]+:\d{12}:container-instance/[\w-]+/\*": "the instances of one cluster, named by AWS",
    r"arn:aws:ecs:[\w-]+:\d{12}:task/[\w-]+/\*": "the tasks of one cluster, named by AWS",
    r"arn:aws:autoscaling:[\w-]+:\d{12}:autoScalingGroup:\*:autoScalingGroupName/[\w-]+": "one group, whose UUID AWS makes",
    r"arn:aws:s3:[^*]*/AWSLogs/\d{12}/\*": "what the load balancer logs in one bucket, named by AWS",
}
"""Resources with a wildcard that may be allowed (regular expressions), each with the reason."""

ANY_RESOURCE: dict[str, str] = {
    "ecr:GetAuthorizationToken": "AWS knows no resource for it",
    "ecs:DiscoverPollEndpoint": "AWS knows no resource for it",
    "autoscaling:DescribeAutoScalingGroups": "AWS knows no resource for it",
    "autoscaling:DescribeScalingActivities": "AWS knows no resource for it",
    "ecs:ListTasks": "AWS takes the cluster as a condition, not as a resource",
    "logs:DescribeLogGroups": "AWS knows no resource for it",
}
"""Actions that may be allowed on every resource, each with the reason."""


def policies(program: Program) -> Iterator[tuple[Registered, str, dict[str, Any]]]:
    """Every policy document in any input: (resource, path of the input, document)."""
    for resource in program.resources:
        yield from ((resource, path, found) for path, found in _documents(resource.inputs, ""))


def _documents(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _documents(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _documents(item, f"{path}[{i}]")
    elif isinstance(value, str) and '"Statement"' in value:
        yield path, json.loads(value)


def too_wide(resource: Registered, document: dict[str, Any]) -> list[str]:
    """Permissions beyond exact actions on exact resources for exact principals; one line each."""
    found = []
    of_a_key = resource.type == "aws:kms/key:Key"  # whose policy calls the key itself "*"
    for statement in document["Statement"]:
        if statement["Effect"] == "Deny":
            continue
        for word in ("NotAction", "NotResource", "NotPrincipal"):
            if word in statement:
                found.append(f"{word} allows whatever it does not name")
        actions, resources = _many(statement.get("Action")), _many(statement.get("Resource"))
        found += [f"action {action}" for action in actions if "*" in action and not of_a_key]
        for wanted in resources:
            if "*" not in wanted or of_a_key:
                continue
            if not any(re.fullmatch(pattern, wanted) for pattern in WIDE_RESOURCES):
                found.append(f"resource {wanted}")
            elif wanted == "*":
                found += [f"{action} on every resource" for action in actions if action not in ANY_RESOURCE]
        principals = statement.get("Principal")
        everybody = "*" in (_many(principals.get("AWS")) if isinstance(principals, dict) else _many(principals))
        if everybody:
            found.append("principal *")
    return found


def _many(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def wildcards(program: Program) -> list[str]:
    """All permissions in a run that are too broad, and policies that cannot be read because the program does not define them."""
    found = [
        f"{resource.urn} {path}: {what}"
        for resource, path, document in policies(program)
        for what in too_wide(resource, document)
    ]
    for resource in program.resources:
        if "PolicyAttachment" in resource.type or resource.inputs.get("managedPolicyArns"):
            found.append(f"{resource.urn}: a managed policy, whose actions are AWS's choice")
    return found
