"""Autoscaling of replicas: from minReplicas up on demand, and back down when idle.

The gateway starts the first replica itself, by scaling up the service and the group together. The policies and alarms in
this module act on the gateway's metrics.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi_aws.appautoscaling import (
    PolicyTargetTrackingScalingPolicyConfigurationArgs as TrackingArgs,
)
from pulumi_aws.appautoscaling import (
    PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationArgs as TrackedMetricsArgs,
)
from pulumi_aws.appautoscaling import (
    PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationMetricArgs as TrackedMetricArgs,
)
from pulumi_aws.appautoscaling import (
    PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationMetricMetricStatArgs as StatisticArgs,
)
from pulumi_aws.appautoscaling import (
    PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationMetricMetricStatMetricArgs as MetricArgs,
)
from pulumi_aws.appautoscaling import (
    PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationMetricMetricStatMetricDimensionArgs as DimensionArgs,
)

from infra.aws.context import Context
from infra.aws.observability import METRICS_NAMESPACE
from infra.aws.settle import bounds_hook, clients
from infra.planning.plan import ServingPlan

PERIOD_SECONDS = 60


@dataclass(frozen=True)
class ScalingArgs:
    """What is scaled, and the metrics and limits to use.

    Attributes:
        context: account, region, names and tags.
        plan: replicas, idle time, demand per replica, cooldown.
        cluster: ECS cluster of the engine's service.
        service: the engine's service.
        group: the Auto Scaling group of its instances.
        metrics_stack: value of the metrics' dimension Stack.
    """

    context: Context
    plan: ServingPlan
    cluster: aws.ecs.Cluster
    service: aws.ecs.Service
    group: aws.autoscaling.Group
    metrics_stack: pulumi.Input[str]


class Scaling(pulumi.ComponentResource):
    """The scalable target, target tracking above one replica, and the alarms that stop idle replicas.

    Attributes:
        alarms: the alarms, by condition.
    """

    def __init__(self, name: str, args: ScalingArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:Scaling", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        replicas = args.plan.replicas
        self.alarms: dict[str, aws.cloudwatch.MetricAlarm] = {}
        settling = bounds_hook(f"{name}-bounds", clients(args.context))
        target = aws.appautoscaling.Target(
            name,
            service_namespace="ecs",
            scalable_dimension="ecs:service:DesiredCount",
            resource_id=pulumi.Output.concat("service/", args.cluster.name, "/", args.service.name),
            min_capacity=replicas.min_replicas,
            max_capacity=replicas.max_replicas,
            tags=args.context.tags("scaling", name),
            opts=pulumi.ResourceOptions(parent=self, hooks=pulumi.ResourceHookBinding(after_update=[settling])),
        )
        if replicas.max_replicas > max(1, replicas.min_replicas):
            self._follow_demand(target)
        if replicas.max_replicas > replicas.min_replicas:
            self._stop_when_idle(target)
        self.register_outputs({})

    def _metric(self, query_id: str, name: str, statistic: str) -> aws.cloudwatch.MetricAlarmMetricQueryArgs:
        """One of the gateway's metrics. Each gateway reports its own value."""
        return aws.cloudwatch.MetricAlarmMetricQueryArgs(
            id=query_id,
            return_data=False,
            metric=aws.cloudwatch.MetricAlarmMetricQueryMetricArgs(
                namespace=METRICS_NAMESPACE,
                metric_name=name,
                stat=statistic,
                period=PERIOD_SECONDS,
                dimensions={"Stack": self._args.metrics_stack},
            ),
        )

    def _tracked(self, query_id: str, name: str, statistic: str) -> TrackedMetricArgs:
        return TrackedMetricArgs(
            id=query_id,
            return_data=False,
            metric_stat=StatisticArgs(
                stat=statistic,
                metric=MetricArgs(
                    namespace=METRICS_NAMESPACE,
                    metric_name=name,
                    dimensions=[DimensionArgs(name="Stack", value=self._args.metrics_stack)],
                ),
            ),
        )

    def _follow_demand(self, target: aws.appautoscaling.Target) -> None:
        """Target tracking on requests running and held, per ready replica."""
        args, replicas = self._args, self._args.plan.replicas
        aws.appautoscaling.Policy(
            f"{self._name}-demand",
            policy_type="TargetTrackingScaling",
            service_namespace=target.service_namespace,
            scalable_dimension=target.scalable_dimension,
            resource_id=target.resource_id,
            target_tracking_scaling_policy_configuration=TrackingArgs(
                target_value=replicas.target_demand_per_replica,
                scale_out_cooldown=replicas.scale_out_cooldown_seconds,
                scale_in_cooldown=replicas.scale_down_seconds,
                customized_metric_specification=TrackedMetricsArgs(
                    metrics=[
                        self._tracked("demand", "Demand", "Average"),
                        self._tracked("ready", "ReplicasReady", "Maximum"),
                        TrackedMetricArgs(
                            id="per_replica",
                            label="Requests running and held, per ready replica",
                            # The metric is an average over the gateways, which share the requests.
                            expression=f"demand * {args.plan.gateway.count} / ready",
                            return_data=True,
                        ),
                    ]
                ),
            ),
            opts=self._child,
        )

    def _stop_when_idle(self, target: aws.appautoscaling.Target) -> None:
        """Both alarms scale service and group to minReplicas together; scaling only one would leave the other running and billed."""
        replicas = self._args.plan.replicas
        actions = [self._shrink_service(target), self._shrink_group()]
        self._alarm(
            "idle",
            "No request was running or held for scaleDownMinutes while replicas were ready: the engine is stopped",
            "idle",
            "IF(demand <= 0 AND ready > 0 AND instances > {least}, 1, 0)",
            replicas.scale_down_seconds,
            actions,
        )
        self._alarm(
            "stuck",
            "GPU instances ran for longer than startupTimeoutMinutes without a ready replica or requests: they are stopped",
            "stuck",
            "IF(demand <= 0 AND ready <= 0 AND instances > {least}, 1, 0)",
            max(replicas.startup_timeout_seconds, replicas.scale_down_seconds),
            actions,
        )

    def _alarm(
        self,
        suffix: str,
        description: str,
        label: str,
        expression: str,
        seconds: int,
        actions: list[pulumi.Output[str]],
    ) -> None:
        args = self._args
        name = f"{self._name}-{suffix}"
        self.alarms[suffix] = aws.cloudwatch.MetricAlarm(
            name,
            alarm_description=description,
            comparison_operator="GreaterThanOrEqualToThreshold",
            threshold=1,
            evaluation_periods=seconds // PERIOD_SECONDS,
            datapoints_to_alarm=seconds // PERIOD_SECONDS,
            # A gateway that reports no metrics may still be serving, so missing data never stops an engine.
            treat_missing_data="notBreaching",
            metric_queries=[
                self._metric("demand", "Demand", "Maximum"),
                self._metric("ready", "ReplicasReady", "Maximum"),
                aws.cloudwatch.MetricAlarmMetricQueryArgs(
                    id="instances",
                    return_data=False,
                    metric=aws.cloudwatch.MetricAlarmMetricQueryMetricArgs(
                        namespace="AWS/AutoScaling",
                        metric_name="GroupDesiredCapacity",
                        stat="Maximum",
                        period=PERIOD_SECONDS,
                        dimensions={"AutoScalingGroupName": args.group.name},
                    ),
                ),
                aws.cloudwatch.MetricAlarmMetricQueryArgs(
                    id=suffix,
                    label=label,
                    expression=expression.format(least=args.plan.replicas.min_replicas),
                    return_data=True,
                ),
            ],
            alarm_actions=actions,
            tags=args.context.tags("scaling", name),
            opts=self._child,
        )

    def _shrink_service(self, target: aws.appautoscaling.Target) -> pulumi.Output[str]:
        step = aws.appautoscaling.PolicyStepScalingPolicyConfigurationStepAdjustmentArgs(
            metric_interval_lower_bound="0", scaling_adjustment=self._args.plan.replicas.min_replicas
        )
        policy = aws.appautoscaling.Policy(
            f"{self._name}-service-down",
            policy_type="StepScaling",
            service_namespace=target.service_namespace,
            scalable_dimension=target.scalable_dimension,
            resource_id=target.resource_id,
            step_scaling_policy_configuration=aws.appautoscaling.PolicyStepScalingPolicyConfigurationArgs(
                adjustment_type="ExactCapacity",
                metric_aggregation_type="Maximum",
                cooldown=PERIOD_SECONDS,
                step_adjustments=[step],
            ),
            opts=self._child,
        )
        return policy.arn

    def _shrink_group(self) -> pulumi.Output[str]:
        policy = aws.autoscaling.Policy(
            f"{self._name}-instances-down",
            autoscaling_group_name=self._args.group.name,
            policy_type="StepScaling",
            adjustment_type="ExactCapacity",
            metric_aggregation_type="Maximum",
            step_adjustments=[
                aws.autoscaling.PolicyStepAdjustmentArgs(
                    metric_interval_lower_bound="0", scaling_adjustment=self._args.plan.replicas.min_replicas
                )
            ],
            # The next deploy must not undo an operator's changes, such as suspending scaling at night or adding predictive scaling.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["enabled", "predictiveScalingConfiguration"]),
        )
        return policy.arn
