from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from image.gateway import demand
from image.gateway.admission import Admission
from image.gateway.backends import FixedDiscovery
from image.gateway.demand import METRICS, DemandReport
from image.gateway.discovery import discovery_of
from image.gateway.fleet import Fleet, Replica
from image.gateway.settings import Settings
from image.gateway.telemetry import Telemetry


def test_no_minute_is_without_a_line_however_late_each_second_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    telemetry = Telemetry(os.open(path, os.O_WRONLY | os.O_CREAT))
    settings = Settings(model="m", discovery=FixedDiscovery(()), emf_namespace="Vllm", stack="dev")
    fleet = Fleet(discovery_of(settings.discovery), settings, telemetry, changed=lambda: None)
    report = DemandReport(settings, Admission(settings, lambda: [], lambda: None), fleet, telemetry)
    now = 0.0
    monkeypatch.setattr(demand, "time", SimpleNamespace(time=lambda: now))
    for _ in range(3 * 3600):
        report.sample()
        now += 1.03
    telemetry.flush()
    minutes = [json.loads(line)["_aws"]["Timestamp"] // 60_000 for line in path.read_text().splitlines()]
    assert sorted(set(minutes)) == list(range(minutes[-1] + 1))


def test_a_line_twice_a_minute_and_sooner_when_demand_changes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    telemetry = Telemetry(os.open(path, os.O_WRONLY | os.O_CREAT))
    settings = Settings(model="m", discovery=FixedDiscovery(()), emf_namespace="Vllm", stack="dev")
    fleet = Fleet(discovery_of(settings.discovery), settings, telemetry, changed=lambda: None)
    replica = Replica(("127.0.0.1", 1), 1)
    fleet.rotation = [replica]
    admission = Admission(settings, lambda: fleet.rotation, lambda: None)
    report = DemandReport(settings, admission, fleet, telemetry)

    def lines() -> list[dict[str, object]]:
        telemetry.flush()
        return [json.loads(line) for line in path.read_text().splitlines()]

    for _ in range(10):
        report.sample()
    assert len(lines()) == 1, "the first is a change"
    for _ in range(29):
        report.sample()
    assert len(lines()) == 1
    report.sample()
    assert len(lines()) == 2

    assert admission.try_take() is replica
    admission.release(replica)  # gone before anybody looked
    for _ in range(10):
        report.sample()
    line = lines()[2]
    assert line["Demand"] == [1] + [0] * 9
    assert line["Running"] == line["Held"] == line["Queued"] == line["QueueFull"] == [0] * 10
    assert line["ReplicasReady"] == [1] * 10
    assert line["Stack"] == "dev"
    metrics = line["_aws"]["CloudWatchMetrics"][0]  # type: ignore[index]
    assert metrics["Namespace"] == "Vllm"
    assert metrics["Dimensions"] == [["Stack"]]
    assert [metric["Name"] for metric in metrics["Metrics"]] == list(METRICS)
    assert {metric["Name"] for metric in metrics["Metrics"]} <= line.keys()
