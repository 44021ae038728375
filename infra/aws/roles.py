"""The IAM roles of a stack. Their policies are attached by the components that own the resources."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context
from infra.aws.iam import trust, trust_tasks


@dataclass(frozen=True)
class RolesArgs:
    """The inputs of the roles."""

    context: Context


class Roles(pulumi.ComponentResource):
    """Six roles. A task role is used by the container; an execution role is used by ECS to start the container."""

    def __init__(self, name: str, args: RolesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:Roles", name, None, opts)
        tasks = trust_tasks(args.context)

        def role(suffix: str, description: str, assume_role_policy: str, component: str) -> aws.iam.Role:
            return aws.iam.Role(
                f"{name}-{suffix}",
                description=description,
                assume_role_policy=assume_role_policy,
                tags=args.context.tags(component),
                opts=pulumi.ResourceOptions(parent=self),
            )

        self.engine_task = role("engine-task", "The vLLM container: reads and fills the weight cache", tasks, "engine")
        self.engine_execution = role("engine-exec", "Starts the vLLM container: image, logs, secret", tasks, "engine")
        self.fetch_task = role("fetch-task", "Fills the weight cache; starts the engine once", tasks, "weights")
        self.gateway_task = role("gateway-task", "The gateway: reads API keys, wakes the engine", tasks, "gateway")
        self.gateway_execution = role("gateway-exec", "Starts the gateway: image, logs", tasks, "gateway")
        self.instance = role("instance", "GPU instances: the ECS agent", trust("ec2"), "capacity")
        self.register_outputs({})
