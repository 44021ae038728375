"""Permissions to pull an image from ECR."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from infra.aws.iam import Statement, allow
from infra.inputs import Input

PULL_ACTIONS = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
_ECR = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/(?P<name>[^:@]+)")


def repository_arn(image: Input[str], partition: str) -> pulumi.Input[str] | None:
    """The ARN of the private ECR repository of ``image``, or None if it is not in ECR.

    For an output, whose registry is not known yet, it is the ARN of no repository where the image is not in ECR.
    """
    if isinstance(image, str):
        return _arn(image, partition)
    nothing = f"arn:{partition}:ecr:*:*:repository/not-in-ecr"
    return pulumi.Output.from_input(image).apply(lambda known: _arn(known, partition) or nothing)


def _arn(image: str, partition: str) -> str | None:
    found = _ECR.match(image)
    if not found:
        return None
    return f"arn:{partition}:ecr:{found['region']}:{found['account']}:repository/{found['name']}"


def pull(repository: pulumi.Input[str] | None) -> Sequence[Statement]:
    """The statements that an execution role needs to pull from ``repository``; empty if the image is not in ECR."""
    if repository is None:
        return []
    return [
        allow("LogInToRegistry", ["ecr:GetAuthorizationToken"], ["*"]),
        allow("PullImage", PULL_ACTIONS, [repository]),
    ]


def encryption(kms_key_arn: pulumi.Input[str]) -> list[aws.ecr.RepositoryEncryptionConfigurationArgs]:
    """How a repository encrypts its images: with a customer managed key, or an AWS managed one."""
    if kms_key_arn:
        return [aws.ecr.RepositoryEncryptionConfigurationArgs(encryption_type="KMS", kms_key=kms_key_arn)]
    return [aws.ecr.RepositoryEncryptionConfigurationArgs(encryption_type="AES256")]
