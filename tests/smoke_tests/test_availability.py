"""Steady traffic during a change: a rolling replacement behind the real gateway loses nothing, and what is lost is seen."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from smoke_tests import availability, traffic
from smoke_tests.availability import AvailabilityRun, Judgement, run_availability, text
from smoke_tests.errors import TargetError
from smoke_tests.target import Target
from smoke_tests.traffic import Outcome
from tests.smoke_tests.fake_openai_server import MODEL, FakeOpenAIServer, serving
from tests.smoke_tests.gateway_process import REPOSITORY, SECONDS, gateway, ready_replicas, wait_until

# Keeps an answer on its way while something happens to its engine.
TOKEN_SECONDS = 0.005


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "PAUSE_SECONDS", 0.005)
    monkeypatch.setattr(availability, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(availability, "FINISH_SECONDS", SECONDS)


def during(endpoint: str, change: Any, **options: Any) -> int:
    """Run traffic, make the change once there is a baseline, and stop when it is made; returns the exit code."""
    made = threading.Event()

    def run() -> None:
        try:
            change()
        finally:
            made.set()

    thread = threading.Thread(target=run)

    def watch(traffic: Any, progress: Any, phase: str, stopped: threading.Event, seconds: float | None) -> None:
        if phase == "baseline":
            wait_until(lambda: len(traffic.outcomes()) >= 8, "a baseline")
            return
        before = len(traffic.outcomes())
        thread.start()
        wait_until(made.is_set, "the change")
        wait_until(lambda: len(traffic.outcomes()) >= before + 12, "traffic after the change")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(availability, "_watch", watch)
        code = run_availability(AvailabilityRun(Target(endpoint, None, MODEL)), **options)
    thread.join()
    return code


def test_a_rolling_replacement_behind_the_gateway_loses_nothing(tmp_path: Path) -> None:
    replicas, report = tmp_path / "replicas", tmp_path / "report.json"
    old, new = (FakeOpenAIServer(api_key=None, token_seconds=TOKEN_SECONDS) for _ in range(2))
    replicas.write_text(f"{old.endpoint}\n")

    def say(*servers: FakeOpenAIServer) -> None:
        (tmp_path / "next").write_text("".join(f"{server.endpoint}\n" for server in servers))
        (tmp_path / "next").replace(replicas)

    with serving(new), serving(old), gateway(replicas) as endpoint:

        def replace() -> None:
            say(old, new)
            wait_until(lambda: ready_replicas(endpoint) == 2, "the new replica to be in rotation")
            say(new)
            wait_until(lambda: ready_replicas(endpoint) == 1, "the old replica to be out of rotation")
            wait_until(lambda: old.running == 0, "the old replica to finish")
            asked = len(old.bodies)
            wait_until(lambda: len(new.bodies) > 20, "traffic on the new replica")
            assert len(old.bodies) == asked

        code = during(endpoint, replace, report=report)
    document = json.loads(report.read_text())
    assert (code, document["lost"], document["unanswered"]) == (0, [], 0)
    assert document["during"]["answered"] >= 12
    assert len(new.bodies) > 20


@pytest.mark.parametrize(
    ("fault", "lost"),
    [
        ("refuses_parallel_requests", "HTTP 429"),
        ("drops_the_finish_reason", "the stream ended without a finish_reason"),
        ("answers_nothing", "the answer is empty"),
    ],
)
def test_what_a_change_breaks_is_lost(
    fault: str, lost: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    with serving(FakeOpenAIServer(api_key=None, token_seconds=TOKEN_SECONDS)) as server:

        def break_it() -> None:
            server.fault = fault
            asked = len(server.bodies)
            wait_until(lambda: len(server.bodies) > asked + 8, "traffic with the fault")
            server.fault = ""

        assert during(server.endpoint, break_it, report=report) == 1
    told = json.loads(report.read_text())
    assert told["baseline"]["lost"] == 0
    assert any(lost in outcome["lost"] for outcome in told["lost"])
    assert all(outcome["request_id"].startswith("smoke-") for outcome in told["lost"])
    shown = capsys.readouterr().out
    assert lost in shown
    assert "LOST" in shown


def test_a_server_that_goes_away_loses_what_runs_and_what_comes() -> None:
    with serving(FakeOpenAIServer(api_key=None)) as server:
        endpoint = server.endpoint
    steady = traffic.Traffic(Target(endpoint, None, MODEL), 2)
    steady.start()
    wait_until(lambda: len(steady.outcomes()) >= 4, "requests to nobody")
    assert steady.stop(SECONDS) == 0
    outcomes = steady.outcomes()
    assert all(outcome.lost.startswith("Connect") or "refused" in outcome.lost for outcome in outcomes), outcomes


def test_a_held_request_is_slow_and_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(FakeOpenAIServer(api_key=None)) as server:

        def hold() -> None:
            server.token_seconds = 0.05
            asked = len(server.bodies)
            wait_until(lambda: len(server.bodies) > asked + 4, "slow traffic")
            server.token_seconds = 0.0002

        assert during(server.endpoint, hold) == 0
    shown = capsys.readouterr().out
    assert "slow at +" in shown
    assert "none lost; slow: over " in shown


def outcome(started: float, seconds: float = 1.0, lost: str = "") -> Outcome:
    return Outcome(started, True, "smoke-1", seconds / 2, seconds, lost)


def test_slow_is_told_against_the_baseline() -> None:
    judged = Judgement([outcome(0), outcome(1, 2.0)], [outcome(5, 6.5), outcome(6, 5.9)], 0, changed_at=4.0)
    assert judged.slow_seconds == 6.0
    assert [slow.seconds for slow in judged.slow] == [6.5]
    assert "slow at +1.0 s: stream smoke-1: answered after 6.50 s, first token after 3.25 s" in text(judged)


def test_no_baseline_and_no_traffic_are_no_proof() -> None:
    with pytest.raises(TargetError, match=r"the baseline has no answered request \(HTTP 503\)"):
        Judgement([outcome(0, lost="HTTP 503")], [], 0, 4.0)
    assert "nothing is proven" in text(Judgement([outcome(0)], [], 0, 4.0))


@pytest.mark.parametrize(("script", "code"), [("pass", 0), ("raise SystemExit(7)", 7)])
def test_a_command_is_run_and_its_exit_code_kept(script: str, code: int, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with serving(FakeOpenAIServer(api_key=None)) as server:
        mutated = AvailabilityRun(Target(server.endpoint, None, MODEL), baseline_seconds=0.3, settle_seconds=0.3)
        command = [sys.executable, "-c", script]
        assert run_availability(mutated, command, report) == code
    told = json.loads(report.read_text())
    assert (told["command"], told["command_exit_code"], told["lost"]) == (command, code, [])
    assert told["during"]["answered"] > 0


def test_the_command_line_runs_until_it_is_interrupted() -> None:
    with serving(FakeOpenAIServer(api_key=None)) as server:
        command = [
            sys.executable, "-m", "smoke_tests", "--endpoint", server.endpoint, "--availability", "--baseline-seconds", "0.3",
        ]  # fmt: skip
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env={"PATH": "/usr/bin:/bin"}
        ) as process:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            assert any("Ctrl-C ends" in line for line in lines)
            asked = len(server.bodies)
            wait_until(lambda: len(server.bodies) > asked + 8, "traffic")
            process.send_signal(2)
            rest = process.stdout.read()
            assert process.wait(SECONDS) == 0
    assert "none lost" in rest
