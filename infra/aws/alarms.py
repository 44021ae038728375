"""What somebody should know, mailed when it happens and again when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context
from infra.aws.metrics import Metric, StackMetrics
from infra.planning.plan import ServingPlan

PERIOD_SECONDS = 60
ERROR_RATE_PERCENT = 5
REQUESTS_THAT_MEAN_SOMETHING = 20  # in five minutes; one failure of two is no rate
BURST_CREDIT_BYTES = (
    100 * 10**9
)  # of the 2.3 TB a file system begins with; reading a checkpoint takes a third of its size


@dataclass(frozen=True)
class AlarmsArgs:
    """What is watched, and who is told.

    Attributes:
        context: place, names and tags.
        plan: times and limits.
        metrics: where to look.
        bursting: whether the file system reads from burst credits.
        email: who is told.
        kms_key_arn: key of the topic; empty: none, for AWS's own key does not let alarms in.
    """

    context: Context
    plan: ServingPlan
    metrics: StackMetrics
    bursting: bool
    email: str
    kms_key_arn: str


class Alarms(pulumi.ComponentResource):
    """An SNS topic that mails, and the alarms that write to it."""

    def __init__(self, name: str, args: AlarmsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:Alarms", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._topic = aws.sns.Topic(
            name,
            kms_master_key_id=args.kms_key_arn or None,
            tags=args.context.tags("alarms", name),
            opts=self._child,
        )
        aws.sns.TopicSubscription(name, topic=self._topic.arn, protocol="email", endpoint=args.email, opts=self._child)
        self._about_replicas()
        self._about_requests()
        self._about_weights()
        self.register_outputs({"topicArn": self._topic.arn})

    def _about_replicas(self) -> None:
        metrics, replicas = self._args.metrics, self._args.plan.replicas
        startup_minutes = replicas.startup_timeout_seconds // 60
        self._alarm(
            "no-replica",
            "Requests wait, and no replica became ready within startupTimeoutMinutes. See the engine's log",
            "IF(demand > 0 AND ready <= 0, 1, 0)",
            {"demand": metrics.gateway("Demand"), "ready": metrics.gateway("ReplicasReady")},
            minutes=startup_minutes,
        )
        self._alarm(
            "no-wake",
            "Requests are held, and no instance was asked for: the gateway cannot wake. Look for wake_failed in its log",
            "IF(held > 0 AND wanted <= 0, 1, 0)",
            {"held": metrics.gateway("Held"), "wanted": metrics.instances("GroupDesiredCapacity")},
            minutes=5,
        )
        self._alarm(
            "idle-instances",
            "GPU instances run and are billed, and no replica is ready on them",
            "IF(running > 0 AND ready <= 0, 1, 0)",
            {"running": metrics.instances("GroupInServiceInstances"), "ready": metrics.gateway("ReplicasReady")},
            minutes=startup_minutes + 10,
        )

    def _about_requests(self) -> None:
        metrics = self._args.metrics
        self._alarm(
            "errors",
            f"More than {ERROR_RATE_PERCENT}% of the requests failed with 5xx",
            f"IF(requests >= {REQUESTS_THAT_MEAN_SOMETHING}, 100 * (FILL(gateways, 0) + FILL(balancer, 0)) / requests, 0)",
            {
                "requests": metrics.balancer("RequestCount"),
                "gateways": metrics.balancer("HTTPCode_Target_5XX_Count"),
                "balancer": metrics.balancer("HTTPCode_ELB_5XX_Count"),
            },
            minutes=2,
            threshold=ERROR_RATE_PERCENT,
            period_seconds=300,
        )
        # How long the queue may be depends on the replicas that are ready. That it was full, the gateway counts itself.
        self._alarm(
            "queue-full",
            "The gateway's queue is full: for five minutes some requests have been answered 429. Raise maxReplicas",
            "refused",
            {"refused": metrics.gateway("QueueFull", "Sum")},
            minutes=5,
        )
        self._alarm(
            "no-gateway",
            "No gateway is healthy: the endpoint answers 503",
            "healthy",
            {"healthy": metrics.targets("HealthyHostCount", "Minimum")},
            minutes=3,
            threshold=1,
            comparison="LessThanThreshold",
            missing="breaching",
        )

    def _about_weights(self) -> None:
        metrics = self._args.metrics
        self._alarm(
            "weights-slow",
            "Weights are read as fast as the file system allows, for longer than a cold start. weightsThroughput: elastic reads faster",
            f"100 * used / {PERIOD_SECONDS} / permitted",
            {
                "used": metrics.weights("MeteredIOBytes", "Sum"),
                "permitted": metrics.weights("PermittedThroughput", "Average"),
            },
            minutes=15,
            threshold=80,
        )
        if self._args.bursting:
            self._alarm(
                "burst-credits",
                "The file system's burst credits run out: cold starts will take very long. Set weightsThroughput: elastic",
                "credits",
                {"credits": metrics.weights("BurstCreditBalance", "Minimum")},
                minutes=15,
                threshold=BURST_CREDIT_BYTES,
                comparison="LessThanThreshold",
            )

    def _alarm(
        self,
        suffix: str,
        description: str,
        expression: str,
        metrics: Mapping[str, Metric],
        *,
        minutes: int,
        threshold: float = 1,
        period_seconds: int = PERIOD_SECONDS,
        comparison: str = "GreaterThanOrEqualToThreshold",
        missing: str = "notBreaching",
    ) -> None:
        """An alarm on ``expression`` of ``metrics``, true for ``minutes`` periods on end."""
        single = expression in metrics
        queries = [
            aws.cloudwatch.MetricAlarmMetricQueryArgs(
                id=query_id,
                return_data=single,
                metric=aws.cloudwatch.MetricAlarmMetricQueryMetricArgs(
                    namespace=metric.namespace,
                    metric_name=metric.name,
                    stat=metric.statistic,
                    period=period_seconds,
                    dimensions=dict(metric.dimensions),
                ),
            )
            for query_id, metric in metrics.items()
        ]
        if not single:
            queries.append(
                aws.cloudwatch.MetricAlarmMetricQueryArgs(
                    id="result", label=suffix, expression=expression, return_data=True
                )
            )
        name = f"{self._name}-{suffix}"
        aws.cloudwatch.MetricAlarm(
            name,
            alarm_description=description,
            comparison_operator=comparison,
            threshold=threshold,
            evaluation_periods=minutes,
            datapoints_to_alarm=minutes,
            treat_missing_data=missing,
            metric_queries=queries,
            alarm_actions=[self._topic.arn],
            ok_actions=[self._topic.arn],
            tags=self._args.context.tags("alarms", name),
            opts=self._child,
        )
