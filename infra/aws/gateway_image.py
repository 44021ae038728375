"""The gateway's image: built locally and pushed to the stack's own ECR repository."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_aws as aws
import pulumi_docker_build as docker_build

from infra.aws.context import Context
from infra.aws.registry import encryption

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = "image/gateway.Dockerfile"
KEPT_IMAGES = 5


@dataclass(frozen=True)
class GatewayImageArgs:
    """How images are stored.

    Attributes:
        context: account, region, names and tags.
        kms_key_arn: key that encrypts the repository; empty: the AWS managed key.
        retain: whether images are retained when the stack is destroyed.
    """

    context: Context
    kms_key_arn: pulumi.Input[str]
    retain: bool


class GatewayImage(pulumi.ComponentResource):
    """An ECR repository and the image in it.

    Attributes:
        repository: the repository.
        reference: the image by digest, so that exactly the built image runs.
    """

    def __init__(self, name: str, args: GatewayImageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:GatewayImage", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.repository = aws.ecr.Repository(
            name,
            image_tag_mutability="MUTABLE",
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=encryption(args.kms_key_arn),
            force_delete=not args.retain,
            tags=args.context.tags("gateway", name, retain=args.retain),
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=args.retain or None),
        )
        rule = {
            "rulePriority": 1,
            "description": f"Keep the last {KEPT_IMAGES}",
            "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": KEPT_IMAGES},
            "action": {"type": "expire"},
        }
        aws.ecr.LifecyclePolicy(name, repository=self.repository.name, policy=json.dumps({"rules": [rule]}), opts=child)
        login = aws.ecr.get_authorization_token_output(
            registry_id=self.repository.registry_id, opts=pulumi.InvokeOutputOptions(parent=self)
        )
        root = Path(os.path.relpath(ROOT))  # otherwise the state would depend on the machine
        image = docker_build.Image(
            name,
            context=docker_build.BuildContextArgs(location=str(root)),
            dockerfile=docker_build.DockerfileArgs(location=str(root / DOCKERFILE)),
            platforms=[docker_build.Platform.LINUX_AMD64],
            push=True,
            tags=[pulumi.Output.concat(self.repository.repository_url, ":gateway")],
            registries=[
                docker_build.RegistryArgs(
                    address=self.repository.repository_url,
                    username=login.user_name,
                    password=pulumi.Output.secret(login.password),
                )
            ],
            build_on_preview=False,  # a preview needs no Docker
            opts=child,
        )
        self.reference = pulumi.Output.format("{0}@{1}", self.repository.repository_url, image.digest)
        self.register_outputs({"reference": self.reference})
