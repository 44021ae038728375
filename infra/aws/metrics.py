"""The metrics that alarms and the dashboard use, with their namespaces and dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from infra.aws.observability import METRICS_NAMESPACE

Dimensions = Mapping[str, pulumi.Input[str]]


@dataclass(frozen=True)
class Metric:
    """One metric of one resource, with its statistic."""

    namespace: str
    name: str
    statistic: str
    dimensions: Dimensions


def dropped_invocations(schedule_group: pulumi.Input[str]) -> Metric:
    """The invocations of a group's schedules that EventBridge Scheduler gave up on, after all retries."""
    return Metric("AWS/Scheduler", "InvocationDroppedCount", "Sum", {"ScheduleGroup": schedule_group})


@dataclass(frozen=True)
class StackMetrics:
    """The metrics of one stack.

    Attributes:
        stack: value of the dimension Stack of the gateway's metrics.
        group: name of the Auto Scaling group.
        load_balancer: the load balancer's ``app/...`` suffix.
        target_group: the target group's ``targetgroup/...`` suffix.
        file_system: id of the file system with the weights.
    """

    stack: pulumi.Input[str]
    group: pulumi.Input[str]
    load_balancer: pulumi.Input[str]
    target_group: pulumi.Input[str]
    file_system: pulumi.Input[str]

    def gateway(self, name: str, statistic: str = "Maximum") -> Metric:
        """One of the gateway's metrics (METRICS in image/gateway/demand.py). Each gateway reports only its own requests; all
        report the same ReplicasReady.
        """
        return Metric(METRICS_NAMESPACE, name, statistic, {"Stack": self.stack})

    def instances(self, name: str) -> Metric:
        """A metric of the Auto Scaling group, such as GroupDesiredCapacity."""
        return Metric("AWS/AutoScaling", name, "Maximum", {"AutoScalingGroupName": self.group})

    def balancer(self, name: str, statistic: str = "Sum") -> Metric:
        """A metric of the load balancer, such as RequestCount."""
        return Metric("AWS/ApplicationELB", name, statistic, {"LoadBalancer": self.load_balancer})

    def targets(self, name: str, statistic: str) -> Metric:
        """A metric of the load balancer's target group, such as HealthyHostCount."""
        dimensions = {"LoadBalancer": self.load_balancer, "TargetGroup": self.target_group}
        return Metric("AWS/ApplicationELB", name, statistic, dimensions)

    def weights(self, name: str, statistic: str) -> Metric:
        """A metric of the file system, such as MeteredIOBytes."""
        return Metric("AWS/EFS", name, statistic, {"FileSystemId": self.file_system})
