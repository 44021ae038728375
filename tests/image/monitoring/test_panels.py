"""Every panel in five states of an endpoint, evaluated by a real Prometheus if `promtool` is here."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from image.gateway.metrics import Metrics
from infra.stack_files import ROOT
from tests.image.monitoring.prometheus import STEP_SECONDS, Answers, Scrapes, evaluate, find_promtool
from tests.image.monitoring.states import PER_SECOND, REQUESTS, STATES, TOKENS

DASHBOARD: dict[str, Any] = json.loads(
    (ROOT / "image/monitoring/grafana/dashboards/vllm-endpoint.json").read_text()
)  # fmt: skip
PROMTOOL = find_promtool()
# What is unknown, rather than 0, while there are no requests; the panel says so in its noValue.
UNKNOWN = {
    "Success, 5 min": {"idle"},
    "Time to first token": {"idle", "failing"},
    "Inter-token latency": {"idle", "failing"},
    "Request duration": {"idle"},
    "Prefix cache hit rate": {"idle", "failing"},
    "Cold starts": set(STATES),
}
GATEWAY = ROOT / "image" / "gateway"


def queries(panel: dict[str, Any]) -> list[str]:
    # Grafana's interval for a step of 15 seconds: at least four scrapes.
    return [target["expr"].replace("$__rate_interval", "1m") for target in panel["targets"]]


def test_a_panel_shows_zero_or_says_what_is_missing() -> None:
    for panel in DASHBOARD["panels"]:
        says_why = "noValue" in panel["fieldConfig"]["defaults"]
        assert says_why == (panel["title"] in UNKNOWN), panel["title"]
        for query in queries(panel):
            if says_why:
                # NaN, of no observations or of 0 / 0, is not a value.
                assert query.endswith(">= 0") or re.search(r" / \(.* > 0\)$", query), query
            else:
                fallback = (
                    r" or vector\(0\)$| > 0 or on\(\) label_replace\(vector\(0\), \"\w+\", \"none\", \"\", \"\"\)$"
                )
                assert re.search(fallback, query), query
            assert query.count("(") == query.count(")")
            assert not re.search(r"rate\(sum|increase\(sum|\b(?:irate|delta)\(", query), query  # lose resets


def test_series_of_errors_start_at_zero() -> None:
    """Prometheus counts no increase for the first value of a series."""
    source = "\n".join(path.read_text() for path in GATEWAY.rglob("*.py"))
    exposed = Metrics().text().decode()
    for label, values in {
        "stage": set(re.findall(r'\.stage = "(\w+)"', source)),
        "kind": {*re.findall(r'UpstreamError\("(\w+)"', source), *re.findall(r'errors\.labels\("(\w+)"', source)},
        "outcome": set(re.findall(r'wakes\.labels\("(\w+)"', source)),
        "reason": {
            *re.findall(r'errors\.(?:unavailable|upstream_failed)\(\s*".*",\s*"(\w+)"', source),
            *re.findall(r'reason(?:: str)? ?= ?"(\w+)"', (GATEWAY / "errors.py").read_text()),
        },
        "status": {"200", "429", "500", "502", "503", "504"},
    }.items():
        assert len(values) >= 3, label
        for value in values:
            assert re.search(rf'_total{{.*{label}="{value}".*}} 0\.0$', exposed, re.MULTILINE), (label, value)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answers]:
    """Every query's result in each state."""
    if PROMTOOL is None:
        pytest.skip("no promtool; make test-dashboards gets it")
    asked = [query for panel in DASHBOARD["panels"] for query in queries(panel)]
    return {name: evaluate(PROMTOOL, tmp_path_factory.mktemp("p"), asked, run()) for name, run in STATES.items()}


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=[panel["title"] for panel in DASHBOARD["panels"]])
def test_no_state_shows_no_data_where_zero_is_meant(answers: dict[str, Answers], panel: dict[str, Any]) -> None:
    for state, found in answers.items():
        empty = [query for query in queries(panel) if not found[query]]
        if state in UNKNOWN.get(panel["title"], ()):
            assert empty, (state, panel["title"])
        else:
            assert not empty, state
        values = [value for query in queries(panel) for _, value in found[query]]
        assert all(math.isfinite(value) and value >= 0 for value in values), state
        if panel["fieldConfig"]["defaults"].get("max") == 1:
            assert all(value <= 1 for value in values), state


def shown(answers: dict[str, Answers], title: str, number: int = 0) -> dict[str, list[tuple[str, float]]]:
    """One query's result by state; labels and value, to three digits."""
    (panel,) = [panel for panel in DASHBOARD["panels"] if panel["title"] == title]
    query = queries(panel)[number]
    return {state: [(labels, round(value, 3)) for labels, value in found[query]] for state, found in answers.items()}


def one(value: float, labels: str = "{}") -> list[tuple[str, float]]:
    return [(labels, value)]


def test_success_is_a_share_of_requests_and_unknown_without_any(answers: dict[str, Answers]) -> None:
    assert shown(answers, "Success, 5 min") == {
        "idle": [], "good": one(1), "failing": one(0), "restarted": one(1), "one gone": one(1),
    }  # fmt: skip
    assert shown(answers, "Prefix cache hit rate") == {
        "idle": [], "good": one(0.5), "failing": [], "restarted": one(0.5), "one gone": one(0.5),
    }  # fmt: skip


def test_a_restart_is_no_spike_and_a_replica_that_is_gone_is_no_longer_counted(answers: dict[str, Answers]) -> None:
    ok = one(PER_SECOND, '{status="200"}')
    failed = one(0.5, '{status="503"}')  # thirty errors within a minute
    assert failed[0][1] == REQUESTS / 60
    assert shown(answers, "Requests by status") == {
        "idle": one(0, '{status="none"}'), "good": ok, "failing": failed, "restarted": ok, "one gone": ok,
    }  # fmt: skip
    tokens = one(PER_SECOND * TOKENS)
    assert shown(answers, "Token throughput") == {
        "idle": one(0), "good": tokens, "failing": one(0), "restarted": tokens, "one gone": tokens,
    }  # fmt: skip
    assert shown(answers, "Engine batch")["one gone"] == one(4)
    assert shown(answers, "Ready replicas")["one gone"] == one(1)
    assert shown(answers, "KV cache used")["idle"] == one(0)


def test_errors_are_named(answers: dict[str, Answers]) -> None:
    title = "Rejections, engine errors, cancellations"
    assert shown(answers, title)["failing"] == one(0.5, '{reason="not_ready"}')
    assert shown(answers, title, 1)["failing"] == one(0.5, '{kind="connect"}')
    assert shown(answers, title, 2)["failing"] == one(0, '{stage="none"}')
    assert shown(answers, title)["good"] == one(0, '{reason="none"}')


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool; make test-dashboards gets it")
def test_the_queries_without_their_guards_fail_here(tmp_path: Path) -> None:
    """The test itself: the plain ratio has no value while all requests fail, and NaN while there are none."""
    assert PROMTOOL is not None
    plain = (
        'sum(rate(gateway_requests_total{status!~"5..", status!="200"}[5m])) / sum(rate(gateway_requests_total[5m]))'
    )
    absent = 'sum(rate(gateway_requests_total{status="299"}[5m])) / sum(rate(gateway_requests_total[5m]))'
    idle, failing = (
        evaluate(PROMTOOL, tmp_path, [plain, absent], STATES[name]()) for name in ("idle", "failing")
    )  # fmt: skip
    assert math.isnan(idle[plain][0][1])
    assert failing[absent] == ()


def test_scrapes_end_the_series_of_a_target_that_is_gone() -> None:
    scrapes, target = Scrapes(), {("engine", "0"): lambda: b"# HELP x x\nx 1.0\n"}
    for targets in (target, {}, {}, target):
        scrapes.scrape(targets)
    assert scrapes.series['x{job="engine",instance="0"}'] == ["1.0", "stale", "_", "1.0"]
    assert scrapes.steps * STEP_SECONDS == 60
