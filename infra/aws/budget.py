"""A month's budget: mail at 50, 80 and 100%, and above it the stack is kept at zero."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context
from infra.aws.iam import Statement, allow, document, trust
from infra.aws.time_to_live import zeroing

WARN_AT_PERCENT = (50, 80, 100)
CHECK_EVERY = "rate(15 minutes)"
CODE = Path(__file__).with_name("budget_watch.py")
SWITCH_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class BudgetArgs:
    """The limit, who is told, and what is turned off.

    Attributes:
        context: place, names and tags.
        usd_per_month: the limit.
        email: who is warned.
        cluster: of the engine's service.
        service: the engine's service.
        group: the Auto Scaling group of its instances.
        log_retention_days: of the function's logs.
        kms_key_arn: key that they are encrypted with; empty: AWS's own.
    """

    context: Context
    usd_per_month: int
    email: str
    cluster: aws.ecs.Cluster
    service: aws.ecs.Service
    group: aws.autoscaling.Group
    log_retention_days: int
    kms_key_arn: str


class Budget(pulumi.ComponentResource):
    """An AWS budget of what carries the stack's tag, and a watch that reads it every quarter of an hour.

    AWS's own budget actions can stop instances by their ids only, which an Auto Scaling group would replace. So a small
    function compares spend and limit, and sets service and group to zero for as long as the month is over budget.
    """

    def __init__(self, name: str, args: BudgetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:Budget", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._tags = args.context.tags("safeguards", name)
        budget = aws.budgets.Budget(
            name,
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(args.usd_per_month),
            limit_unit="USD",
            cost_filters=[
                aws.budgets.BudgetCostFilterArgs(name="TagKeyValue", values=[f"user:Stack${args.context.stack}"])
            ],
            notifications=[
                aws.budgets.BudgetNotificationArgs(
                    comparison_operator="GREATER_THAN",
                    notification_type="ACTUAL",
                    threshold=percent,
                    threshold_type="PERCENTAGE",
                    subscriber_email_addresses=[args.email],
                )
                for percent in WARN_AT_PERCENT
            ],
            tags=self._tags,
            opts=self._child,
        )
        self._watch(self._switch(budget))
        self.register_outputs({"budgetName": budget.name})

    def _role(self, suffix: str, service: str, description: str) -> aws.iam.Role:
        condition = {"StringEquals": {"aws:SourceAccount": self._args.context.account_id}}
        return aws.iam.Role(
            f"{self._name}-{suffix}",
            description=description,
            # Lambda does not say for whom it takes on a role.
            assume_role_policy=trust(service, None if service == "lambda" else condition),
            tags=self._tags,
            opts=self._child,
        )

    def _permit(self, suffix: str, role: aws.iam.Role, statements: list[Statement]) -> aws.iam.RolePolicy:
        return aws.iam.RolePolicy(f"{self._name}-{suffix}", role=role.id, policy=document(statements), opts=self._child)

    def _switch(self, budget: aws.budgets.Budget) -> aws.lambda_.Function:
        """The function, after its log group and its rights: nothing that it does goes unwritten or is refused."""
        args, context = self._args, self._args.context
        role = self._role("switch", "lambda", "Turns the stack off above its budget")
        logs = aws.cloudwatch.LogGroup(
            f"{self._name}-logs",
            retention_in_days=args.log_retention_days,
            kms_key_id=args.kms_key_arn or None,
            tags=self._tags,
            opts=self._child,
        )
        arn = pulumi.Output.concat(f"arn:{context.partition}:budgets::{context.account_id}:budget/", budget.name)
        statements = [
            allow("ReadBudget", ["budgets:ViewBudget"], [arn]),
            *zeroing(args.service, args.group),
            allow("WriteLogs", ["logs:CreateLogStream", "logs:PutLogEvents"], [pulumi.Output.concat(logs.arn, ":*")]),
        ]
        permitted = self._permit("switch", role, statements)
        return aws.lambda_.Function(
            self._name,
            description="Sets the stack to zero while its month is over budget",
            runtime="python3.13",
            architectures=["arm64"],
            handler=f"{CODE.stem}.handler",
            code=pulumi.AssetArchive({CODE.name: pulumi.StringAsset(CODE.read_text())}),
            timeout=SWITCH_TIMEOUT_SECONDS,
            role=role.arn,
            logging_config=aws.lambda_.FunctionLoggingConfigArgs(log_format="Text", log_group=logs.name),
            environment=aws.lambda_.FunctionEnvironmentArgs(
                variables={
                    "ACCOUNT_ID": context.account_id,
                    "BUDGET": budget.name,
                    "CLUSTER": args.cluster.name,
                    "SERVICE": args.service.name,
                    "GROUP": args.group.name,
                }
            ),
            tags=self._tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permitted]),
        )

    def _watch(self, switch: aws.lambda_.Function) -> None:
        role = self._role("watch", "scheduler", "Has spend and budget compared")
        look = self._permit("watch", role, [allow("Look", ["lambda:InvokeFunction"], [switch.arn])])
        group = aws.scheduler.ScheduleGroup(self._name, tags=self._tags, opts=self._child)
        aws.scheduler.Schedule(
            self._name,
            group_name=group.name,
            description="Has the month's spend compared with its budget",
            schedule_expression=CHECK_EVERY,
            flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
            target=aws.scheduler.ScheduleTargetArgs(arn=switch.arn, role_arn=role.arn),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[look]),
        )
