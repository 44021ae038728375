"""Scales an ECS service and its Auto Scaling group from zero to one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from image.gateway import aws
from image.gateway.backends import EcsCapacity
from image.gateway.capacity.base import KEEPS_FAILING, NOT_THERE, ScalingError

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_ecs import ECSClient

_Result = TypeVar("_Result")


class EcsScaler:
    """Scales an ECS service on an Auto Scaling group.

    Sets the service's desired count *and* the group's desired capacity, and only from zero to one: by itself, ECS's managed
    scaling waits a minute and then starts two instances.
    Needs ecs:DescribeServices, ecs:UpdateService, autoscaling:DescribeAutoScalingGroups, autoscaling:SetDesiredCapacity;
    for failure reasons autoscaling:DescribeScalingActivities, and for those and the ledger ecs:ListTasks and
    ecs:DescribeTasks.
    """

    kind = "ecs"

    def __init__(self, setting: EcsCapacity) -> None:
        self._setting = setting
        self._clients: tuple[ECSClient, AutoScalingClient] | None = None

    async def wake(self) -> None:
        """Scale the service and the group from zero to one."""
        await self._in_thread(self._wake)

    async def check(self, since: float) -> None:
        """Raise the failure that the group's scaling activities or the service's stopped tasks report."""
        await self._in_thread(lambda: self._check(since))

    async def phase_ends(self, since: float) -> dict[str, float]:
        """Instance and image, from the first task started since: ECS pulls the image once the task is placed."""
        return await self._in_thread(lambda: self._phase_ends(since))

    async def _in_thread(self, call: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.to_thread(call)
        except aws.ERRORS as error:
            raise ScalingError(aws.plain_reason(error), aws.describe(error)) from error

    def _ask(self) -> tuple[ECSClient, AutoScalingClient]:
        if self._clients is None:
            session = aws.session()
            self._clients = (
                session.client("ecs", config=aws.CONFIG),
                session.client("autoscaling", config=aws.CONFIG),
            )
        return self._clients

    def _wake(self) -> None:
        """Try both steps, then raise the first error: with only the service scaled up, ECS starts the instance itself."""
        failed: list[Exception] = []
        for step in (self._wake_instances, self._wake_service):  # the instance first, because it takes longest
            try:
                step()
            except (ScalingError, *aws.ERRORS) as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def _wake_instances(self) -> None:
        _, autoscaling = self._ask()
        group = self._setting.auto_scaling_group
        groups = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
        if not groups:
            raise ScalingError(NOT_THERE, f"no auto scaling group {group}")
        if groups[0]["DesiredCapacity"] == 0:
            autoscaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=1, HonorCooldown=False)

    def _wake_service(self) -> None:
        ecs, _ = self._ask()
        cluster, service = self._setting.cluster, self._setting.service
        services = ecs.describe_services(cluster=cluster, services=[service])["services"]
        if not services:
            raise ScalingError(NOT_THERE, f"no service {service} in cluster {cluster}")
        if services[0]["desiredCount"] == 0:
            ecs.update_service(cluster=cluster, service=service, desiredCount=1)

    def _check(self, since: float) -> None:
        _, autoscaling = self._ask()
        group = self._setting.auto_scaling_group
        activities = autoscaling.describe_scaling_activities(AutoScalingGroupName=group, MaxRecords=10)["Activities"]
        for activity in activities:  # the newest first
            if activity["StatusCode"] == "Successful" or activity["StartTime"].timestamp() < since:
                break
            if activity["StatusCode"] in ("Failed", "Cancelled"):
                message = activity.get("StatusMessage", "")
                raise ScalingError(aws.plain_launch_failure(message), f"scaling activity: {message}")
        stopped = [task for task in self._tasks("STOPPED") if _time(task.get("createdAt")) >= since]
        if stopped:
            newest = max(stopped, key=lambda task: _time(task.get("createdAt")))
            raise ScalingError(KEEPS_FAILING, f"{len(stopped)} tasks stopped: {newest.get('stoppedReason', '')}")

    def _phase_ends(self, since: float) -> dict[str, float]:
        started = [task for task in self._tasks("RUNNING") if _time(task.get("createdAt")) >= since]
        if not started:
            return {}
        first = min(started, key=lambda task: _time(task.get("createdAt")))
        ends = {"instance": _time(first.get("pullStartedAt")), "image": _time(first.get("startedAt"))}
        return {phase: end for phase, end in ends.items() if end}

    def _tasks(self, status: str) -> list[dict[str, object]]:
        ecs, _ = self._ask()
        cluster = self._setting.cluster
        arns = ecs.list_tasks(cluster=cluster, serviceName=self._setting.service, desiredStatus=status)["taskArns"]  # type: ignore[arg-type]
        return [dict(task) for task in ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"]] if arns else []


def _time(moment: object) -> float:
    return moment.timestamp() if isinstance(moment, datetime) else 0.0
