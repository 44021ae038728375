"""A time to live: EventBridge Scheduler scales the stack to zero, without any machine of the user's running."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.alarms import failure_alarm
from infra.aws.context import Context
from infra.aws.iam import Statement, allow, document, trust
from infra.aws.metrics import dropped_invocations

EVERY_FULL_HOUR = "cron(0 * * * ? *)"
ONE_MINUTE_LATER = "cron(1 * * * ? *)"


def end_of_life(now: datetime.datetime, hours: int) -> datetime.datetime:
    """The first full hour at least ``hours`` after ``now``."""
    end = now.astimezone(datetime.UTC) + datetime.timedelta(hours=hours)
    full = end.replace(minute=0, second=0, microsecond=0)
    return full if full == end else full + datetime.timedelta(hours=1)


@dataclass(frozen=True)
class TimeToLiveArgs:
    """What is scaled to zero, and when.

    Attributes:
        context: account, region, names and tags.
        ends_at: the hour at which it is first scaled to zero.
        cluster: ECS cluster of the engine's service.
        service: the engine's service.
        group: the Auto Scaling group of its instances.
        topic_arn: topic that is notified if scaling to zero fails; None: no alarm.
    """

    context: Context
    ends_at: datetime.datetime
    cluster: aws.ecs.Cluster
    service: aws.ecs.Service
    group: aws.autoscaling.Group
    topic_arn: pulumi.Input[str] | None = None


class TimeToLive(pulumi.ComponentResource):
    """Two schedules that scale service and group to zero at that hour, and again every hour.

    Each retries on its own, so that a failure of one does not stop the other. The service goes first: with tasks still
    wanted, ECS would ask the group for an instance again. They repeat because a request still wakes the stack; it then runs for an hour at most. The next deploy sets a new hour.
    """

    def __init__(self, name: str, args: TimeToLiveArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:TimeToLive", name, None, opts)
        context, child = args.context, pulumi.ResourceOptions(parent=self)
        role = aws.iam.Role(
            name,
            description="Scales the stack to zero after its time to live",
            assume_role_policy=trust("scheduler", {"StringEquals": {"aws:SourceAccount": context.account_id}}),
            tags=context.tags("safeguards"),
            opts=child,
        )
        policy = aws.iam.RolePolicy(name, role=role.id, policy=document(zeroing(args.service, args.group)), opts=child)
        group = aws.scheduler.ScheduleGroup(name, tags=context.tags("safeguards", name), opts=child)
        calls: dict[str, tuple[str, str, dict[str, pulumi.Input[object]]]] = {
            "service": (
                EVERY_FULL_HOUR,
                "ecs:updateService",
                {"Cluster": args.cluster.name, "Service": args.service.name, "DesiredCount": 0},
            ),
            "instances": (
                ONE_MINUTE_LATER,
                "autoscaling:setDesiredCapacity",
                {"AutoScalingGroupName": args.group.name, "DesiredCapacity": 0, "HonorCooldown": False},
            ),
        }
        for suffix, (expression, call, parameters) in calls.items():
            aws.scheduler.Schedule(
                f"{name}-{suffix}",
                group_name=group.name,
                description="Scales to zero after the stack's time to live",
                schedule_expression=expression,
                schedule_expression_timezone="UTC",
                start_date=args.ends_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
                target=aws.scheduler.ScheduleTargetArgs(
                    arn=f"arn:{context.partition}:scheduler:::aws-sdk:{call}",
                    role_arn=role.arn,
                    input=pulumi.Output.json_dumps(parameters),
                    retry_policy=aws.scheduler.ScheduleTargetRetryPolicyArgs(
                        maximum_retry_attempts=10, maximum_event_age_in_seconds=1800
                    ),
                ),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
            )
        if args.topic_arn is not None:
            failure_alarm(
                f"{name}-dropped",
                context,
                dropped_invocations(group.name),
                "The time to live is over, but the stack was not scaled to zero: EventBridge Scheduler gave up after 10 retries",
                args.topic_arn,
                child,
            )
        self.register_outputs({})


def zeroing(service: aws.ecs.Service, group: aws.autoscaling.Group) -> list[Statement]:
    """The permissions to scale one service and one group to zero."""
    return [
        allow("StopService", ["ecs:UpdateService"], [service.id]),
        allow("StopInstances", ["autoscaling:SetDesiredCapacity"], [group.arn]),
    ]
