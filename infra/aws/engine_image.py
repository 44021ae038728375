"""The engine's image through an ECR pull-through cache: pulled from Docker Hub once, then from ECR in the same region."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
import pulumi_random as random

from infra.aws.context import Context
from infra.aws.iam import Statement, allow
from infra.aws.registry import encryption, pull, repository_arn

DOCKER_HUB = "docker.io/"
UPSTREAM_REGISTRY = "registry-1.docker.io"
UNIQUE_CHARACTERS = 6  # a prefix is limited to 30 characters: the stack's prefix (20), an underscore (not used in stack prefixes), this suffix


@dataclass(frozen=True)
class EngineImageArgs:
    """The image, and how it is pulled.

    Attributes:
        context: account, region, names and tags.
        image: the image as named in the plan.
        credentials_arn: secret with Docker Hub credentials; empty: instances pull the image from its own registry.
        kms_key_arn: key that encrypts the repository; empty: the AWS managed key.
    """

    context: Context
    image: str
    credentials_arn: pulumi.Input[str]
    kms_key_arn: pulumi.Input[str]


class EngineImage(pulumi.ComponentResource):
    """A pull-through cache, if credentials are set.

    Attributes:
        reference: the image that tasks name.
        repository: the ECR repository that caches it, or None.
        pull_statements: IAM statements that an execution role needs to pull it.
    """

    def __init__(self, name: str, args: EngineImageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        if args.credentials_arn and not args.image.startswith(DOCKER_HUB):
            raise ValueError(f"credentials_arn: {args.image} is not on Docker Hub")
        super().__init__("vllm:aws:EngineImage", name, None, opts)
        self.reference: pulumi.Output[str] = pulumi.Output.from_input(args.image)
        self.repository: aws.ecr.Repository | None = None
        self.pull_statements: list[Statement] = list(pull(repository_arn(args.image, args.context.partition)))
        if args.credentials_arn:
            self._cache(name, args)
        self.register_outputs({"reference": self.reference})

    def _cache(self, name: str, args: EngineImageArgs) -> None:
        path, separator, tag = _split(args.image.removeprefix(DOCKER_HUB))
        # A prefix must be unique in an account and region; another project's stack may have the same name.
        unique = random.RandomString(
            name, length=UNIQUE_CHARACTERS, upper=False, special=False, opts=pulumi.ResourceOptions(parent=self)
        )
        rule = aws.ecr.PullThroughCacheRule(
            name,
            ecr_repository_prefix=pulumi.Output.format("{0}_{1}", args.context.prefix, unique.result),
            upstream_registry_url=UPSTREAM_REGISTRY,
            credential_arn=args.credentials_arn,
            # Stacks deployed before the suffix was added keep their prefix, and with it their cached images.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["ecrRepositoryPrefix"]),
        )
        # Otherwise ECR would create the repository at the first pull, and it would remain after destroy.
        self.repository = aws.ecr.Repository(
            name,
            name=pulumi.Output.concat(rule.ecr_repository_prefix, "/", path),
            image_tag_mutability="MUTABLE",
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=encryption(args.kms_key_arn),
            force_delete=True,  # it is only a cache, and its name would conflict with the next stack's
            tags=args.context.tags("engine", name),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.reference = pulumi.Output.concat(self.repository.repository_url, separator, tag)
        self.pull_statements = [
            *pull(self.repository.arn),
            allow("FillCache", ["ecr:BatchImportUpstreamImage"], [self.repository.arn]),
        ]


def _split(image: str) -> tuple[str, str, str]:
    """Path, ``:`` or ``@``, and tag or digest of an image without its registry."""
    separator = "@" if "@" in image else ":"
    path, _, tag = image.partition(separator)
    return path, separator, tag or "latest"
