"""A monthly budget: email at 50, 80 and 100%; while it is exceeded, the stack is scaled to zero."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_aws as aws

from infra.aws.alarms import failure_alarm
from infra.aws.context import Context
from infra.aws.iam import Statement, allow, document, trust
from infra.aws.metrics import Metric, dropped_invocations
from infra.aws.time_to_live import zeroing

WARN_AT_PERCENT = (50, 80, 100)
CHECK_EVERY = "rate(15 minutes)"
CODE = Path(__file__).with_name("budget_watch.py")
SWITCH_TIMEOUT_SECONDS = 300  # three calls with all their retries; see CONFIG in budget_watch.py


@dataclass(frozen=True)
class BudgetArgs:
    """The limit, who is notified, and what is scaled to zero.

    Attributes:
        context: account, region, names and tags.
        usd_per_month: the limit.
        email: address that is notified.
        topic_arn: topic that is notified if the function fails.
        cluster: ECS cluster of the engine's service.
        service: the engine's service.
        group: the Auto Scaling group of its instances.
        log_retention_days: retention of the function's logs.
        kms_key_arn: key that encrypts the logs; empty: the AWS managed key.
    """

    context: Context
    usd_per_month: int
    email: str
    topic_arn: pulumi.Input[str]
    cluster: aws.ecs.Cluster
    service: aws.ecs.Service
    group: aws.autoscaling.Group
    log_retention_days: int
    kms_key_arn: pulumi.Input[str]


class Budget(pulumi.ComponentResource):
    """An AWS budget for resources with the stack's tag, and a function that checks it every 15 minutes.

    AWS budget actions can only stop instances by id, and the Auto Scaling group would replace them. Instead, a small
    function compares spend with the limit, and scales the service and the group to zero while the budget is exceeded.
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
        switch = self._switch(budget)
        self._alarm_on_failure(switch, self._watch(switch))
        self.register_outputs({"budgetName": budget.name})

    def _role(self, suffix: str, service: str, description: str) -> aws.iam.Role:
        condition = {"StringEquals": {"aws:SourceAccount": self._args.context.account_id}}
        return aws.iam.Role(
            f"{self._name}-{suffix}",
            description=description,
            # Lambda does not set a source account or ARN when it assumes a role.
            assume_role_policy=trust(service, None if service == "lambda" else condition),
            tags=self._tags,
            opts=self._child,
        )

    def _permit(self, suffix: str, role: aws.iam.Role, statements: list[Statement]) -> aws.iam.RolePolicy:
        return aws.iam.RolePolicy(f"{self._name}-{suffix}", role=role.id, policy=document(statements), opts=self._child)

    def _switch(self, budget: aws.budgets.Budget) -> aws.lambda_.Function:
        """The function, created after its log group and permissions, so that every run is logged and authorized."""
        args, context = self._args, self._args.context
        role = self._role("switch", "lambda", "Scales the stack to zero when it exceeds its budget")
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
            description="Scales the stack to zero while its monthly budget is exceeded",
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

    def _watch(self, switch: aws.lambda_.Function) -> aws.scheduler.ScheduleGroup:
        role = self._role("watch", "scheduler", "Invokes the budget check")
        look = self._permit("watch", role, [allow("Look", ["lambda:InvokeFunction"], [switch.arn])])
        group = aws.scheduler.ScheduleGroup(self._name, tags=self._tags, opts=self._child)
        aws.scheduler.Schedule(
            self._name,
            group_name=group.name,
            description="Compares the month's spend with the budget",
            schedule_expression=CHECK_EVERY,
            flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
            target=aws.scheduler.ScheduleTargetArgs(arn=switch.arn, role_arn=role.arn),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[look]),
        )
        return group

    def _alarm_on_failure(self, switch: aws.lambda_.Function, group: aws.scheduler.ScheduleGroup) -> None:
        """Alarms for a function that fails, and for one that the scheduler cannot invoke."""
        alarms = {
            "failing": (
                Metric("AWS/Lambda", "Errors", "Sum", {"FunctionName": switch.name}),
                "The budget check failed, or the stack is over budget and was not scaled to zero. See the function's log",
            ),
            "dropped": (
                dropped_invocations(group.name),
                "The budget is not checked: EventBridge Scheduler could not invoke the function",
            ),
        }
        for suffix, (metric, description) in alarms.items():
            name = f"{self._name}-{suffix}"
            failure_alarm(name, self._args.context, metric, description, self._args.topic_arn, self._child)
