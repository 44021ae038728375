"""What starts the first replica when none runs. From one replica up, and back down, is the platform's autoscaling."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from image.gateway.settings import CapacitySetting, EcsCapacity, FixedCapacity

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_ecs import ECSClient


class CapacityError(Exception):
    """A wake failed. The message is for clients: true, and without names of anything inside; `detail` is for the log."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.detail = detail


class Capacity(Protocol):
    """Starts a first replica."""

    kind: str

    async def wake(self) -> None:
        """See to it that at least one replica is wanted. Harmless when one is already; raises CapacityError."""


class Fixed:
    """Capacity somebody else looks after: there is nothing to start, only to wait for."""

    kind = "fixed"

    async def wake(self) -> None:
        """Do nothing."""


class Ecs:
    """An ECS service on an auto scaling group.

    Sets the service's desired count *and* the group's desired capacity, each from zero to one and never otherwise: left to
    itself, ECS's managed scaling waits a minute and then starts two instances.
    Needs ecs:DescribeServices, ecs:UpdateService, autoscaling:DescribeAutoScalingGroups, autoscaling:SetDesiredCapacity.
    """

    kind = "ecs"

    def __init__(self, setting: EcsCapacity) -> None:
        self._setting = setting
        self._clients: tuple[ECSClient, AutoScalingClient] | None = None

    async def wake(self) -> None:
        """Service and group from zero to one."""
        from image.gateway import aws  # here, so that only a gateway that needs boto3 pays its memory

        try:
            await asyncio.to_thread(self._wake)
        except aws.ERRORS as error:
            raise CapacityError(aws.plain_reason(error), aws.describe(error)) from error

    def _wake(self) -> None:
        from image.gateway import aws

        if self._clients is None:
            session = aws.session()
            self._clients = (
                session.client("ecs", config=aws.CONFIG),
                session.client("autoscaling", config=aws.CONFIG),
            )
        ecs, autoscaling = self._clients
        cluster, service, group = self._setting.cluster, self._setting.service, self._setting.auto_scaling_group

        # The instance takes longest: first.
        groups = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
        if not groups:
            raise CapacityError(_NOT_THERE, f"no auto scaling group {group}")
        if groups[0]["DesiredCapacity"] == 0:
            autoscaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=1, HonorCooldown=False)
        services = ecs.describe_services(cluster=cluster, services=[service])["services"]
        if not services:
            raise CapacityError(_NOT_THERE, f"no service {service} in cluster {cluster}")
        if services[0]["desiredCount"] == 0:
            ecs.update_service(cluster=cluster, service=service, desiredCount=1)


_NOT_THERE = "what runs the engine is not there"


def capacity_of(setting: CapacitySetting) -> Capacity:
    """The capacity a setting names."""
    return Fixed() if isinstance(setting, FixedCapacity) else Ecs(setting)
