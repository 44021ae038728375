"""The log groups, which also contain the gateway's metrics."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context

METRICS_NAMESPACE = "VllmEndpoint"


@dataclass(frozen=True)
class ObservabilityArgs:
    """How logs are stored.

    Attributes:
        context: account, region, names and tags.
        retention_days: retention in days.
        kms_key_arn: key that encrypts them; empty: the AWS managed key. Its key policy must allow CloudWatch Logs.
        retain: whether they are retained when the stack is destroyed.
        network: whether to create a log group for VPC flow logs.
    """

    context: Context
    retention_days: int
    kms_key_arn: pulumi.Input[str]
    retain: bool
    network: bool = False


class Observability(pulumi.ComponentResource):
    """One log group per source. The gateway's log lines contain its metrics (CloudWatch embedded metric format)."""

    def __init__(self, name: str, args: ObservabilityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:Observability", name, None, opts)

        def group(component: str) -> aws.cloudwatch.LogGroup:
            return aws.cloudwatch.LogGroup(
                f"{name}-{component}",
                retention_in_days=args.retention_days,
                kms_key_id=args.kms_key_arn or None,
                tags=args.context.tags(component, f"{name}-{component}", retain=args.retain),
                opts=pulumi.ResourceOptions(parent=self, retain_on_delete=args.retain or None),
            )

        self.engine = group("engine")
        self.gateway = group("gateway")
        self.network = group("network") if args.network else None
        self.register_outputs({})
