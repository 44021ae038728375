"""A CloudWatch dashboard of the stack's activity and cost, built from existing metrics and log lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context
from infra.aws.metrics import Metric, StackMetrics
from infra.planning.plan import ServingPlan

COLUMNS, WIDTH, HEIGHT = 3, 8, 6
PERIOD_SECONDS = 60
REQUESTS = 'filter event = "request"'
Widget = dict[str, Any]


@dataclass(frozen=True)
class DashboardArgs:
    """What the dashboard shows.

    Attributes:
        context: account, region, names and tags.
        plan: for prices and counts.
        metrics: the metrics to show.
        gateway_logs: name of the gateway's log group.
        engine_logs: name of the engine's log group.
    """

    context: Context
    plan: ServingPlan
    metrics: StackMetrics
    gateway_logs: pulumi.Input[str]
    engine_logs: pulumi.Input[str]


class Dashboard(pulumi.ComponentResource):
    """A CloudWatch dashboard.

    Attributes:
        url: address of the dashboard in the AWS console.
    """

    def __init__(self, name: str, args: DashboardArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:Dashboard", name, None, opts)
        widgets = [
            {**widget, "x": i % COLUMNS * WIDTH, "y": i // COLUMNS * HEIGHT, "width": WIDTH, "height": HEIGHT}
            for i, widget in enumerate(_widgets(args))
        ]
        dashboard = aws.cloudwatch.Dashboard(
            name,
            dashboard_name=args.metrics.stack,  # unique in the account
            dashboard_body=pulumi.Output.json_dumps({"widgets": widgets}),
            opts=pulumi.ResourceOptions(parent=self),
        )
        region = args.context.region
        self.url = pulumi.Output.concat(
            f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#dashboards:name=",
            dashboard.dashboard_name,
        )
        self.register_outputs({"url": self.url})


def _widgets(args: DashboardArgs) -> Sequence[Widget]:
    metrics, gateways, region = args.metrics, args.plan.gateway.count, args.context.region
    price = args.plan.replicas.instance_types[0].usd_per_hour
    always = args.plan.cost.usd_per_hour_idle - args.plan.replicas.min_replicas * price

    def chart(title: str, lines: Mapping[str, Metric], expressions: Mapping[str, str] | None = None) -> Widget:
        return _chart(region, title, lines, expressions or {})

    def gateway_log(title: str, query: str) -> Widget:
        return _query(region, title, args.gateway_logs, query)

    total = f" * {gateways}"  # multiplies the average over the gateways
    return [
        chart(
            "Demand: requests running, queued, and held while no replica is ready",
            {name.lower(): metrics.gateway(name, "Average") for name in ("Running", "Queued", "Held")},
            {name: f"{name.lower()}{total}" for name in ("Running", "Queued", "Held")},
        ),
        chart(
            "Replicas and GPU instances",
            {
                "Wanted instances": metrics.instances("GroupDesiredCapacity"),
                "GPU instances": metrics.instances("GroupInServiceInstances"),
                "Ready replicas": metrics.gateway("ReplicasReady"),
            },
        ),
        chart(
            "US dollars per hour, list price",
            {"instances": metrics.instances("GroupInServiceInstances")},
            {"All": f"instances * {price:g} + {always:.4f}", "GPU": f"instances * {price:g}"},
        ),
        chart(
            "Requests and errors per minute",
            {
                "Requests": metrics.balancer("RequestCount"),
                "4xx": metrics.balancer("HTTPCode_Target_4XX_Count"),
                "5xx": metrics.balancer("HTTPCode_Target_5XX_Count"),
                "5xx of the load balancer": metrics.balancer("HTTPCode_ELB_5XX_Count"),
            },
        ),
        gateway_log(
            "Time to first token, ms",
            f"{REQUESTS} and ispresent(ttft_ms) | stats pct(ttft_ms, 50) as p50, pct(ttft_ms, 90) as p90, "
            "pct(ttft_ms, 99) as p99 by bin(5m)",
        ),
        gateway_log(
            "Tokens per second",
            f"{REQUESTS} and ispresent(tokens_out) | stats sum(tokens_out) / 300 as written, sum(tokens_in) / 300 as read by bin(5m)",
        ),
        _query(
            region,
            "KV cache in use, %",
            args.engine_logs,
            "parse @message /KV cache usage: (?<kv>[\\d.]+)%/ | filter ispresent(kv) | stats max(kv) as used by bin(5m)",
        ),
        _query(
            region,
            "Inside vLLM: requests running and waiting",
            args.engine_logs,
            "parse @message /Running: (?<running>\\d+) reqs, Waiting: (?<waiting>\\d+) reqs/ | filter ispresent(running) "
            "| stats max(running) as Running, max(waiting) as Waiting by bin(5m)",
        ),
        gateway_log(
            "Wakes, and cold start duration in seconds",
            'filter event in ["wake", "wake_over", "wake_failed"] | stats sum(event = "wake") as wakes, '
            'sum(event = "wake_failed") as failed, max(seconds) as cold_start_seconds by bin(1h)',
        ),
        _query(
            region,
            "Requests by key and status",
            args.gateway_logs,
            f"{REQUESTS} | stats count(*) as requests, sum(tokens_out) as tokens by key, status",
            view="table",
        ),
        chart(
            "Weights: bytes read and burst credits",
            {
                "Read per minute": metrics.weights("DataReadIOBytes", "Sum"),
                "Burst credits": metrics.weights("BurstCreditBalance", "Minimum"),
            },
        ),
        chart("Healthy gateways", {"Healthy": metrics.targets("HealthyHostCount", "Minimum")}),
    ]


def _chart(region: str, title: str, lines: Mapping[str, Metric], expressions: Mapping[str, str]) -> Widget:
    """A line chart; if there are expressions, only they are shown, and the metrics are their inputs."""
    rows: list[list[Any]] = [[{"expression": text, "label": label}] for label, text in expressions.items()]
    for label, metric in lines.items():
        shown: dict[str, Any] = {"stat": metric.statistic}
        shown |= {"id": label, "visible": False} if expressions else {"label": label}
        dimensions = [part for pair in metric.dimensions.items() for part in pair]
        rows.append([metric.namespace, metric.name, *dimensions, shown])
    return {
        "type": "metric",
        "properties": {
            "title": title,
            "region": region,
            "view": "timeSeries",
            "period": PERIOD_SECONDS,
            "metrics": rows,
        },
    }


def _query(region: str, title: str, log_group: pulumi.Input[str], query: str, view: str = "timeSeries") -> Widget:
    """A log query, run when the dashboard is opened."""
    text = pulumi.Output.concat("SOURCE '", log_group, f"' | {query}")
    return {"type": "log", "properties": {"title": title, "region": region, "view": view, "query": text}}
