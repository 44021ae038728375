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
    """An SNS topic with an email subscription, and the alarms that publish to it."""

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
            "Requests are held, and no replica became ready within startupTimeoutMinutes. Check the engine's log",
            "IF(demand > 0 AND ready <= 0, 1, 0)",
            {"demand": metrics.gateway("Demand"), "ready": metrics.gateway("ReplicasReady")},
            minutes=startup_minutes,
        )
        self._alarm(
            "no-wake",
            "Requests are held, but no instance was requested: the gateway cannot wake the engine. Search its log for wake_failed",
            "IF(held > 0 AND wanted <= 0, 1, 0)",
            {"held": metrics.gateway("Held"), "wanted": metrics.instances("GroupDesiredCapacity")},
            minutes=5,
        )
        self._alarm(
            "idle-instances",
            "GPU instances are running and billed, but no replica is ready",
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
        # The queue's limit depends on the number of ready replicas, so the gateway itself counts when the queue is full.
        self._alarm(
            "queue-full",
            "The gateway's queue is full: some requests were rejected with 429 for five minutes. Raise maxReplicas",
            "refused",
            {"refused": metrics.gateway("QueueFull", "Sum")},
            minutes=5,
        )
        self._alarm(
            "no-gateway",
            "No gateway is healthy: the endpoint returns 503",
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
            "Reads of the weights have reached the file system's throughput limit for longer than a cold start. Set weightsThroughput: elastic",
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
                "The file system's burst credits are running out: cold starts will be very slow. Set weightsThroughput: elastic",
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
        """An alarm that fires when ``expression`` of ``metrics`` is true for ``minutes`` consecutive periods."""
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
