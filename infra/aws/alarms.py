"""CloudWatch alarms, mailed when they fire and when they return to OK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context
from infra.aws.metrics import Metric, StackMetrics
from infra.planning.plan import ServingPlan

PERIOD_SECONDS = 60
HOUR_SECONDS = 3600
FAILURE_PERIOD_SECONDS = 900
ERROR_RATE_PERCENT = 5
REQUESTS_THAT_MEAN_SOMETHING = 20  # in five minutes; one failure in two requests is not an error rate
BURST_CREDIT_BYTES = (
    100 * 10**9
)  # of the initial 2.3 TB of burst credits; reading a checkpoint uses credits for a third of its size


@dataclass(frozen=True)
class AlarmsArgs:
    """What is monitored, and who is notified.

    Attributes:
        context: account, region, names and tags.
        plan: timeouts and limits.
        metrics: the metrics to evaluate.
        bursting: whether the file system uses burst credits.
        email: address that is notified.
        kms_key_arn: key that encrypts the topic; empty: no encryption, because alarms cannot publish to a topic with the
            AWS managed key.
    """

    context: Context
    plan: ServingPlan
    metrics: StackMetrics
    bursting: bool
    email: str
    kms_key_arn: pulumi.Input[str]


class Alarms(pulumi.ComponentResource):
    """An SNS topic with an email subscription, and the alarms that publish to it.

    Attributes:
        topic_arn: the topic, for alarms of other components.
    """

    def __init__(self, name: str, args: AlarmsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:Alarms", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._topic = topic = aws.sns.Topic(
            name,
            kms_master_key_id=args.kms_key_arn or None,
            tags=args.context.tags("alarms", name),
            opts=self._child,
        )
        self.topic_arn = topic.arn
        aws.sns.TopicSubscription(name, topic=topic.arn, protocol="email", endpoint=args.email, opts=self._child)
        self._about_replicas()
        self._about_requests()
        self._about_weights()
        self.register_outputs({"topicArn": topic.arn})

    def _about_replicas(self) -> None:
        metrics, replicas = self._args.metrics, self._args.plan.replicas
        startup_minutes = replicas.startup_timeout_seconds // 60
        self._alarm(
            "no-replica",
            "Requests are held, and no replica became ready within startupTimeoutMinutes. Check the engine's log",
            "IF(demand > 0 AND ready <= 0, 1, 0)",
            {"demand": metrics.gateway("Demand"), "ready": metrics.gateway("ReplicasReady")},
            periods=startup_minutes,
        )
        self._alarm(
            "no-wake",
            "Requests are held, but no instance was requested: the gateway cannot wake the engine. Search its log for wake_failed",
            "IF(held > 0 AND wanted <= 0, 1, 0)",
            {"held": metrics.gateway("Held"), "wanted": metrics.instances("GroupDesiredCapacity")},
            periods=5,
        )
        self._alarm(
            "idle-instances",
            "GPU instances are running and billed, but no replica is ready",
            "IF(running > 0 AND ready <= 0, 1, 0)",
            {"running": metrics.instances("GroupInServiceInstances"), "ready": metrics.gateway("ReplicasReady")},
            periods=startup_minutes + 10,
        )

        if replicas.max_replicas > replicas.min_replicas:
            # In hours, because CloudWatch limits an alarm with shorter periods to one day, and scaleDownMinutes can be a day.
            self._alarm(
                "not-stopped",
                "The engine is idle, but scaling down failed: its GPU instances are still running and billed",
                f"IF(demand <= 0 AND running > {replicas.min_replicas}, 1, 0)",
                {"demand": metrics.gateway("Demand"), "running": metrics.instances("GroupInServiceInstances")},
                periods=max(replicas.startup_timeout_seconds, replicas.scale_down_seconds) // HOUR_SECONDS + 3,
                period_seconds=HOUR_SECONDS,
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
            periods=2,
            threshold=ERROR_RATE_PERCENT,
            period_seconds=300,
        )
        # The queue's limit depends on the number of ready replicas, so the gateway itself counts when the queue is full.
        self._alarm(
            "queue-full",
            "The gateway's queue is full: some requests were rejected with 429 for five minutes. Raise maxReplicas",
            "refused",
            {"refused": metrics.gateway("QueueFull", "Sum")},
            periods=5,
        )
        self._alarm(
            "no-gateway",
            "No gateway is healthy: the endpoint returns 503",
            "healthy",
            {"healthy": metrics.targets("HealthyHostCount", "Minimum")},
            periods=3,
            threshold=1,
            comparison="LessThanThreshold",
            missing="breaching",
        )

    def _about_weights(self) -> None:
        metrics = self._args.metrics
        self._alarm(
            "weights-slow",
            "Reads of the weights have reached the file system's throughput limit for longer than a cold start. Set weightsThroughput: elastic",
            f"100 * used / {PERIOD_SECONDS} / permitted",
            {
                "used": metrics.weights("MeteredIOBytes", "Sum"),
                "permitted": metrics.weights("PermittedThroughput", "Average"),
            },
            periods=15,
            threshold=80,
        )
        if self._args.bursting:
            self._alarm(
                "burst-credits",
                "The file system's burst credits are running out: cold starts will be very slow. Set weightsThroughput: elastic",
                "credits",
                {"credits": metrics.weights("BurstCreditBalance", "Minimum")},
                periods=15,
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
        periods: int,
        threshold: float = 1,
        period_seconds: int = PERIOD_SECONDS,
        comparison: str = "GreaterThanOrEqualToThreshold",
        missing: str = "notBreaching",
    ) -> None:
        """An alarm that fires when ``expression`` of ``metrics`` is true for ``periods`` consecutive periods."""
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
            evaluation_periods=periods,
            datapoints_to_alarm=periods,
            treat_missing_data=missing,
            metric_queries=queries,
            alarm_actions=[self._topic.arn],
            ok_actions=[self._topic.arn],
            tags=self._args.context.tags("alarms", name),
            opts=self._child,
        )


def failure_alarm(
    name: str,
    context: Context,
    metric: Metric,
    description: str,
    topic_arn: pulumi.Input[str],
    opts: pulumi.ResourceOptions,
) -> aws.cloudwatch.MetricAlarm:
    """An alarm that fires when ``metric`` counts a single failure of a safeguard within 15 minutes."""
    return aws.cloudwatch.MetricAlarm(
        name,
        alarm_description=description,
        namespace=metric.namespace,
        metric_name=metric.name,
        statistic=metric.statistic,
        dimensions=dict(metric.dimensions),
        period=FAILURE_PERIOD_SECONDS,
        evaluation_periods=1,
        comparison_operator="GreaterThanOrEqualToThreshold",
        threshold=1,
        treat_missing_data="notBreaching",
        alarm_actions=[topic_arn],
        ok_actions=[topic_arn],
        tags=context.tags("alarms", name),
        opts=opts,
    )
