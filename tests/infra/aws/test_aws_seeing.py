"""Alarms and the dashboard."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from image.gateway.demand import METRICS
from tests.infra.program import Program, Registered, arn, run_program

ROOT = Path(__file__).parents[3]
TOPIC = arn("aws:sns/topic:Topic", "vllm-dev-alarm")


@pytest.fixture
def watched() -> Program:
    return run_program("dev", alarmEmail="ops@example.com")


def alarms(program: Program) -> dict[str, Registered]:
    prefix = "vllm-dev-alarm-"
    return {a.name.removeprefix(prefix): a for a in program.all("MetricAlarm") if a.name.startswith(prefix)}


def read(alarm: Registered) -> tuple[str, dict[str, str]]:
    """An alarm's expression, and the metrics in it."""
    queries = alarm.inputs["metricQueries"]
    (result,) = [q for q in queries if q["returnData"]]
    metrics = {q["id"]: f"{q['metric']['metricName']} {q['metric']['stat']}" for q in queries if "metric" in q}
    return result.get("expression", result["id"]), metrics


def test_alarms_are_mailed_and_so_is_their_end(watched: Program) -> None:
    subscription = watched.one("TopicSubscription").inputs
    assert (subscription["protocol"], subscription["endpoint"]) == ("email", "ops@example.com")
    assert subscription["topic"] == TOPIC
    for alarm in alarms(watched).values():
        assert alarm.inputs["alarmActions"] == alarm.inputs["okActions"] == [TOPIC]
        assert alarm.inputs["alarmDescription"]
        assert alarm.inputs["evaluationPeriods"] == alarm.inputs["datapointsToAlarm"]


EXPECTED: list[tuple[str, str, dict[str, str], int, float, str]] = [
    ("no-replica", "IF(demand > 0 AND ready <= 0, 1, 0)", {"demand": "Demand Maximum", "ready": "ReplicasReady Maximum"}, 20, 1, "notBreaching"),
    ("no-wake", "IF(held > 0 AND wanted <= 0, 1, 0)", {"held": "Held Maximum", "wanted": "GroupDesiredCapacity Maximum"}, 5, 1, "notBreaching"),
    ("idle-instances", "IF(running > 0 AND ready <= 0, 1, 0)", {"running": "GroupInServiceInstances Maximum", "ready": "ReplicasReady Maximum"}, 30, 1, "notBreaching"),
    ("not-stopped", "IF(demand <= 0 AND running > 0, 1, 0)", {"demand": "Demand Maximum", "running": "GroupInServiceInstances Maximum"}, 3, 1, "notBreaching"),
    ("errors", "IF(requests >= 20, 100 * (FILL(gateways, 0) + FILL(balancer, 0)) / requests, 0)", {"requests": "RequestCount Sum", "gateways": "HTTPCode_Target_5XX_Count Sum", "balancer": "HTTPCode_ELB_5XX_Count Sum"}, 2, 5, "notBreaching"),
    ("queue-full", "refused", {"refused": "QueueFull Sum"}, 5, 1, "notBreaching"),
    ("no-gateway", "healthy", {"healthy": "HealthyHostCount Minimum"}, 3, 1, "breaching"),
    ("weights-slow", "100 * used / 60 / permitted", {"used": "MeteredIOBytes Sum", "permitted": "PermittedThroughput Average"}, 15, 80, "notBreaching"),
    ("burst-credits", "credits", {"credits": "BurstCreditBalance Minimum"}, 15, 100_000_000_000, "notBreaching"),
]  # fmt: skip


def test_what_somebody_should_know_is_exactly_this(watched: Program) -> None:
    assert set(alarms(watched)) == {expected[0] for expected in EXPECTED}


@pytest.mark.parametrize(
    ("name", "expression", "metrics", "periods", "threshold", "missing"), EXPECTED, ids=[e[0] for e in EXPECTED]
)
def test_each_alarm_reads_what_it_should(
    watched: Program, name: str, expression: str, metrics: dict[str, str], periods: int, threshold: float, missing: str
) -> None:
    alarm = alarms(watched)[name]
    assert read(alarm) == (expression, metrics)
    inputs = alarm.inputs
    assert (inputs["evaluationPeriods"], inputs["threshold"]) == (periods, threshold)
    assert inputs["treatMissingData"] == missing
    low = name in ("no-gateway", "burst-credits")
    assert inputs["comparisonOperator"] == ("LessThanThreshold" if low else "GreaterThanOrEqualToThreshold")


def test_metrics_are_of_this_stack(watched: Program) -> None:
    dimensions = {
        "VllmEndpoint": {"Stack": "vllm-dev-gpu-1a2b3c4"},
        "AWS/AutoScaling": {"AutoScalingGroupName": "vllm-dev-gpu-1a2b3c4"},
        "AWS/EFS": {"FileSystemId": "vllm-dev-weights-id"},
        "AWS/ApplicationELB": {"LoadBalancer": "app/vllm-dev-int/1"},
    }
    for alarm in alarms(watched).values():
        for query in alarm.inputs["metricQueries"]:
            if metric := query.get("metric"):
                expected = dimensions[metric["namespace"]]
                assert expected.items() <= metric["dimensions"].items()
    (healthy,) = alarms(watched)["no-gateway"].inputs["metricQueries"]
    assert healthy["metric"]["dimensions"]["TargetGroup"] == "targetgroup/vllm-dev-int/1"


def test_elastic_weights_have_no_burst_credits() -> None:
    elastic = run_program("dev", alarmEmail="ops@example.com", weightsThroughput="elastic")
    assert "burst-credits" not in alarms(elastic)


def test_every_metric_that_is_read_is_one_that_the_gateway_reports(watched: Program) -> None:
    shown = [row[1] for w in body(watched) for row in w["properties"].get("metrics", []) if row[0] == "VllmEndpoint"]
    queries = [query for alarm in watched.all("MetricAlarm") for query in alarm.inputs["metricQueries"]]
    read = [q["metric"]["metricName"] for q in queries if q.get("metric", {}).get("namespace") == "VllmEndpoint"]
    assert {*shown, *read} == set(METRICS)


def test_nobody_is_told_where_nobody_is_named() -> None:
    program = run_program("dev")
    assert alarms(program) == {}
    assert program.all("Topic") == []


def body(program: Program) -> list[dict[str, Any]]:
    return list(json.loads(program.one("Dashboard").inputs["dashboardBody"])["widgets"])


def test_the_dashboard_shows_the_whole_stack_on_one_page(watched: Program) -> None:
    widgets = body(watched)
    places = [(w["x"], w["y"]) for w in widgets]
    assert len(set(places)) == len(widgets) == 12
    assert all(w["x"] + w["width"] <= 24 for w in widgets)
    text = json.dumps(widgets)
    for shown in (
        "RequestCount", "ttft_ms", "tokens_out", "Running", "Held", "Queued", "KV cache usage", "ReplicasReady",
        "GroupDesiredCapacity", "GroupInServiceInstances", "wake_over", "HTTPCode_Target_4XX_Count",
        "HTTPCode_Target_5XX_Count", "Waiting",
    ):  # fmt: skip
        assert shown in text, shown
    assert watched.one("Dashboard").inputs["dashboardName"] == "vllm-dev-gpu-1a2b3c4"
    assert watched.outputs["dashboard"].endswith("#dashboards:name=vllm-dev-gpu-1a2b3c4")


def test_the_cost_of_the_hour_is_the_plans(watched: Program) -> None:
    (cost,) = [w for w in body(watched) if "US dollars" in w["properties"]["title"]]
    by_label = {
        row[0]["label"]: row[0]["expression"] for row in cost["properties"]["metrics"] if "expression" in row[0]
    }
    for instances, expected in ((0, watched.outputs["usdPerHourIdle"]), (1, watched.outputs["usdPerHourActive"])):
        rate, fixed = re.fullmatch(r"instances \* ([\d.]+) \+ ([\d.]+)", by_label["All"]).groups()  # type: ignore[union-attr]
        assert instances * float(rate) + float(fixed) == pytest.approx(expected, abs=0.05)


def test_what_the_dashboard_asks_of_logs_is_in_them(watched: Program) -> None:
    gateway = "".join(path.read_text() for path in (ROOT / "image/gateway").glob("*.py"))
    queries = [w["properties"]["query"] for w in body(watched) if w["type"] == "log"]
    of_gateway = [q for q in queries if q.startswith("SOURCE 'vllm-dev-logs-gateway-1a2b3c4' | ")]
    of_engine = [q for q in queries if q.startswith("SOURCE 'vllm-dev-logs-engine-1a2b3c4' | ")]
    assert (len(of_gateway), len(of_engine)) == (4, 2)
    for name in ("ttft_ms", "tokens_out", "tokens_in", "status", "key", "event"):
        assert f'"{name}":' in gateway
    for event in ("wake", "wake_over", "wake_failed"):
        assert f'event("{event}"' in gateway
    assert "seconds=round(seconds" in gateway
    # A line of vLLM 0.33's log.
    line = (
        "Engine 000: Avg prompt throughput: 51.2 tokens/s, Avg generation throughput: 310.4 tokens/s, "
        "Running: 7 reqs, Waiting: 2 reqs, GPU KV cache usage: 13.4%, Prefix cache hit rate: 61.0%"
    )
    for query, group, value in ((of_engine[0], "kv", "13.4"), (of_engine[1], "waiting", "2")):
        pattern = re.search(r"parse @message /(.*?)/ \|", query)
        assert pattern is not None
        found = re.search(pattern[1].replace("(?<", "(?P<"), line)
        assert found is not None
        assert found[group] == value


def test_a_stack_may_go_without_a_dashboard() -> None:
    program = run_program("dev", dashboard=False)
    assert program.all("Dashboard") == []
    assert "dashboard" not in program.outputs
