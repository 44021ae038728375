"""Prometheus scrapes all services, and the dashboard queries only metrics that exist."""

import json
import re
from typing import Any

import pytest
import yaml

from image.gateway.service import Service
from image.gateway.settings import Settings
from infra.stack_files import ROOT

FOLDER = ROOT / "image" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana/dashboards/vllm-endpoint.json").read_text())
COMPOSE = yaml.safe_load((ROOT / "image" / "compose.yaml").read_text())
# As vLLM 0.32 exposes them.
ENGINE_METRICS = {
    "vllm:generation_tokens_total",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:kv_cache_usage_perc",
    "vllm:num_preemptions_total",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prompt_tokens_total",
}


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.fixture
async def gateway_metrics(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The name of every series that a gateway has or may get."""
    monkeypatch.setattr("image.gateway.service._listen", lambda settings: [])  # it is asked, not served
    environment = {"GATEWAY_MODEL": "m", "GATEWAY_DISCOVERY": "fixed:http://127.0.0.1:1", "GATEWAY_KEYS": "none"}
    service = Service(Settings.from_environment(environment))
    names = set()
    for family in service.telemetry.metrics.registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


async def test_every_query_asks_for_metrics_that_exist(gateway_metrics: set[str]) -> None:
    known = gateway_metrics | ENGINE_METRICS
    for query in queries():
        asked = set(re.findall(r"\b(?:gateway_|vllm:)[a-z_]+", query))
        assert asked, query
        assert asked <= known, asked - known


def test_every_panel_says_what_it_shows_and_none_lies_over_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "prometheus"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_prometheus_scrapes_the_gateways_metrics_port_and_the_engine() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    targets = {
        name: discovery["port"]
        for job in config["scrape_configs"]
        for discovery in job["dns_sd_configs"]
        for name in discovery["names"]
    }
    assert targets == {"gateway": 9090, "engine": 8000}
    assert set(targets) <= set(COMPOSE["services"])


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    (source,) = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert (source["uid"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/dashboards.yaml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])
    assert mounts["./monitoring/grafana/dashboards"] == provider["options"]["path"]
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/vllm-endpoint.json"
