"""VPC flow logs of the network that the stack creates."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context
from infra.aws.iam import allow, document, trust
from infra.settings import FlowLogs as Traffic

INTERVAL_SECONDS = 600


@dataclass(frozen=True)
class FlowLogsArgs:
    """The network, the traffic to log, and the destination.

    Attributes:
        context: account, region, names and tags.
        vpc_id: the network.
        traffic: rejected connections, or all.
        log_group: the destination.
    """

    context: Context
    vpc_id: pulumi.Input[str]
    traffic: Traffic
    log_group: aws.cloudwatch.LogGroup


class FlowLogs(pulumi.ComponentResource):
    """A VPC's flow log and the role that writes it."""

    def __init__(self, name: str, args: FlowLogsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        if args.traffic is Traffic.NONE:
            raise ValueError("traffic: nothing to log")
        super().__init__("vllm:aws:FlowLogs", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        tags = args.context.tags("network", name)
        role = aws.iam.Role(
            name,
            description="Writes VPC flow logs",
            assume_role_policy=trust("vpc-flow-logs", {"StringEquals": {"aws:SourceAccount": args.context.account_id}}),
            tags=tags,
            opts=child,
        )
        streams = pulumi.Output.concat(args.log_group.arn, ":*")
        actions = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
        statements = [
            allow("WriteFlowLog", actions, [streams]),
            allow("FindLogGroup", ["logs:DescribeLogGroups"], ["*"]),
        ]
        policy = aws.iam.RolePolicy(name, role=role.id, policy=document(statements), opts=child)
        aws.ec2.FlowLog(
            name,
            vpc_id=args.vpc_id,
            traffic_type=args.traffic.value.upper(),
            log_destination_type="cloud-watch-logs",
            log_destination=args.log_group.arn,
            iam_role_arn=role.arn,
            max_aggregation_interval=INTERVAL_SECONDS,
            tags=tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )
        self.register_outputs({})
