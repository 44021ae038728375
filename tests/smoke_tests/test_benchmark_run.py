"""The whole command, over HTTP: sweeps, data files, cold starts, what is refused, and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smoke_tests.benchmark.__main__ import main
from smoke_tests.benchmark.options import parse
from smoke_tests.benchmark.record import Record, read_record
from smoke_tests.benchmark.run_command import loads
from tests.smoke_tests.paced_server import MODEL, PacedServer, paced

REPOSITORY = Path(__file__).resolve().parents[2]
INFO = {
    "model": MODEL, "revision": "abc123", "gpu": None, "gpu_count": 0, "runs_on": "the CPU (2 cores, 22.5 GiB of memory free)",
    "engine_version": "0.32.0", "gateway_version": "0.1.0", "stand_in": True, "max_model_len": 4096, "concurrency_per_replica": 16,
    "engine_arguments": ["--max-num-seqs", "8"], "state": "ready", "replicas": {"ready": 2}, "idle_seconds": 3.0,
}  # fmt: skip
LEDGER = {"began": 1.0, "seconds": 4.5, "phases": [
    {"phase": "instance+image+weights", "seconds": 4.0, "source": "local"}, {"phase": "ready", "seconds": 0.5, "source": "health"},
]}  # fmt: skip
SHORT = ("--max-tokens", "3", "--prompt-tokens", "20", "--quiet")


def fast(**changes: Any) -> PacedServer:
    return PacedServer(**({"ttft_seconds": 0.01, "gap_seconds": 0.001} | changes))


def run(server: PacedServer, record: Path, *options: str) -> Record:
    assert main(["run", "--endpoint", server.endpoint, "--json", str(record), *SHORT, *options]) == 0
    return read_record(record)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)


def test_a_sweep_by_concurrency(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with paced(fast(info=dict(INFO))) as server:
        told = run(
            server, tmp_path / "r.json", "--concurrency", "1,4", "--requests", "8", "--warmup", "3", "--goodput", "ttft:500", "e2el:1",
            "--usd-per-hour", "1.2", "--usd-per-hour-idle", "0.2", "--scale-down-minutes", "30", "--busy-hours", "9-12,13-18",
        )  # fmt: skip
    assert [point.load.label for point in told.measurements] == ["1 at once", "4 at once"]
    # The wake-up, then 3 to warm up and 8 to measure, twice; no prompt comes twice.
    assert len(server.sent) == 1 + 2 * (3 + 8)
    prompts = [body["messages"][0]["content"] for body in server.bodies]
    assert len(set(prompts[1:])) == 22
    for point in told.measurements:
        assert (point.figures.completed, point.figures.failed, point.replicas) == (8, 0, 2)
        assert point.figures.total_input_tokens == 8 * 20
        assert point.figures.request_goodput == 0.0  # no answer ends within a millisecond
        assert point.cost is not None
        assert point.cost.with_idle_hours is not None
        assert (point.cost.with_idle_hours.cold_starts, point.cost.with_idle_hours.active_hours) == (2, 9.0)
    where = told.deployment
    assert (where.model_revision, where.engine_version, where.engine_arguments) == (
        "abc123",
        "0.32.0",
        ("--max-num-seqs", "8"),
    )
    assert (where.runs_on, where.stand_in, where.max_model_len) == ("the CPU (2 cores)", True, 4096)
    assert told.prices is not None
    assert told.prices.source == "the command line"
    text = capsys.readouterr().out
    for line in (
        "STAND-IN",
        "20 tokens in, 3 out",
        "goodput, requests/s",
        "9 to 12 h, 13 to 18 h busy",
        "sweep",
        "record: ",
    ):
        assert line in text


def test_an_open_loop_by_rate_for_a_duration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with paced(fast()) as server:
        told = run(
            server,
            tmp_path / "r.json",
            "--request-rate",
            "40",
            "--duration",
            "0.49",
            "--burstiness",
            "1e9",
            "--warmup",
            "0",
        )
    (point,) = told.measurements
    assert (point.load.request_rate, point.load.requests, point.load.duration_seconds) == (40.0, None, 0.49)
    assert point.figures.completed == 19
    assert point.samples.start_ms == pytest.approx([25.0 * number for number in range(1, 20)], abs=0.2)
    assert "no coordinated omission" in capsys.readouterr().out
    assert (told.deployment.engine_version, told.prices, point.cost) == (None, None, None)


def test_shared_beginnings_and_data_files(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps([{"prompt": f"question {number}", "output_tokens": number + 1} for number in range(4)]))
    with paced(fast()) as server:
        arguments = ["--endpoint", server.endpoint, "--concurrency", "2", "--requests", "4", "--warmup", "0", "--quiet"]
        assert (
            main(
                [*arguments, "--dataset", str(data), "--shared-prefix-tokens", "3", "--json", str(tmp_path / "r.json")]
            )
            == 0
        )
    asked = {body["messages"][0]["content"].split("question ")[1]: body["max_tokens"] for body in server.bodies[1:]}
    assert asked == {"0": 1, "1": 2, "2": 3, "3": 4}
    assert len({body["messages"][0]["content"].split("question")[0] for body in server.bodies[1:]}) == 1
    told = read_record(tmp_path / "r.json").workload
    assert told.dataset is not None
    assert (told.dataset.entries, told.shared_prefix_tokens, told.output_tokens) == (4, 3, None)


def test_prompts_are_new_in_every_run_unless_asked_for_again(tmp_path: Path) -> None:
    with paced(fast()) as server:
        for options in ((), (), ("--same-prompts",), ("--same-prompts",)):
            run(server, tmp_path / "r.json", "--requests", "1", "--concurrency", "1", "--warmup", "0", *options)
    first, second, third, fourth = [body["messages"][0]["content"] for body in server.bodies[1::2]]
    assert first != second
    assert third == fourth


def test_a_cold_start_is_recorded_with_the_gateways_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with paced(
        fast(ttft_seconds=0.1, info=INFO | {"state": "cold", "replicas": {"ready": 0}}, ledger=LEDGER)
    ) as server:
        told = run(
            server, tmp_path / "r.json", "--cold-start", "--requests", "1", "--concurrency", "1", "--warmup", "0"
        )
        assert told.cold_start is not None
        assert 0.1 <= told.cold_start.seconds_to_first_token < 2
        assert told.cold_start.ledger_seconds == 4.5
        assert told.cold_start.phases is not None
        assert [phase.phase for phase in told.cold_start.phases] == ["instance+image+weights", "ready"]
        assert "cold start: first token after 0.1 s (instance+image+weights 4 s, ready 0 s)" in capsys.readouterr().out
        # It is warm now, and that is said instead of measured.
        assert main(["--endpoint", server.endpoint, "--cold-start", *SHORT]) == 2
    assert "not scaled to zero (ready, 1 replicas ready, idle for 3.0 s); send nothing until" in capsys.readouterr().err


def test_a_cold_start_without_a_ledger_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smoke_tests.benchmark.waking.LEDGER_WAIT_SECONDS", 0.0)
    with paced(fast(info=INFO | {"state": "cold"}, ledger=None)) as server:
        told = run(
            server, tmp_path / "r.json", "--cold-start", "--requests", "1", "--concurrency", "1", "--warmup", "0"
        )
    assert told.cold_start is not None
    assert told.cold_start.phases is None
    assert "reported no ledger" in told.cold_start.note


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--requests", "0"], "'0' must be a whole number from 1"),
        (["--concurrency", "4,x"], "'x' must be a whole number from 1"),
        (["--concurrency", "4", "--request-rate", "1"], "not allowed with"),
        (["--requests", "4", "--duration", "1"], "not allowed with"),
        (["--request-rate", "inf"], "'inf' must be a number above 0"),
        (["--burstiness", "2"], "--burstiness needs --request-rate"),
        (["--shared-prefixes", "2"], "--shared-prefixes needs --shared-prefix-tokens"),
        (["--dataset", "a.json", "--prompt-tokens", "4"], "give one of them"),
        (["--prompt-tokens", "9-4"], "'9-4' must be a length in tokens"),
        (["--goodput", "p99:4"], "'p99:4' must be NAME:MILLISECONDS, where NAME is one of ttft, tpot, e2el"),
        (["--goodput", "ttft:5", "ttft:4"], "--goodput names ttft twice; give one limit for each of ttft, tpot, e2el"),
        (["--goodput", "ttft:-4"], "'-4' must be a number above 0"),
        (["--busy-hours", "25"], "'25' is not a daily pattern"),
        (["--usd-per-hour", "nan"], "'nan' must be a number, at least 0"),
    ],
)
def test_wrong_options_are_one_line(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--endpoint", "http://127.0.0.1:9", *options])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--dataset", "missing.json"], "error: --dataset: cannot read missing.json: No such file or directory"),
        (["--json", "no/such/folder/r.json"], "error: --json: there is no folder"),
        (
            ["--usd-per-hour-idle", "1"],
            "error: prices are given, but not what an active hour costs; give --usd-per-hour, too",
        ),
        (
            ["--cold-start"],
            "error: --cold-start: http://127.0.0.1:9/info does not report whether the stack is scaled to zero",
        ),
    ],
)
def test_what_cannot_be_measured_is_one_line(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--endpoint", "http://127.0.0.1:9", *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith(told)
    assert err.count("\n") == 1


def test_loads_that_nobody_named() -> None:
    def points(*options: str) -> list[tuple[str, int | None, int]]:
        parsed = parse(["--endpoint", "http://a", *options])
        return [(load.label, load.requests, load.warmup_requests) for load in loads(parsed)]

    assert points() == [("10 at once", 50, 10)]
    assert points("--concurrency", "1,64,64") == [("1 at once", 50, 1), ("64 at once", 256, 16)]
    assert points("--request-rate", "0.5,3", "--requests", "9") == [("0.5 requests/s", 9, 1), ("3 requests/s", 9, 3)]
    assert points("--duration", "9", "--warmup", "0") == [("10 at once", None, 0)]


def interrupted(server: PacedServer, folder: Path, when: Callable[[], bool], number: int) -> tuple[int, str, str]:
    """Run the command, send it a signal once `when` holds, and return exit code, stdout and stderr."""
    command = [
        sys.executable,
        "-m",
        "smoke_tests.benchmark",
        "--endpoint",
        server.endpoint,
        "--json",
        str(folder / "r.json"),
    ]
    running = subprocess.Popen(
        [*command, *SHORT, "--concurrency", "4,8", "--requests", "1000", "--warmup", "0"],
        cwd=REPOSITORY, env={"PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 30
    while not when():
        assert time.monotonic() < until
        assert running.poll() is None, running.stderr and running.stderr.read()
        time.sleep(0.01)
    running.send_signal(number)
    out, err = running.communicate(timeout=20)
    return running.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_tells_what_was_measured_so_far_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    with paced(fast(ttft_seconds=0.05)) as server:
        code, out, err = interrupted(server, tmp_path, lambda: len(server.sent) > 20, number)
        assert code == 128 + number
        assert "4 at once: " in out
        assert "interrupted: figures of what was measured so far" in out
        assert "8 at once" not in out
        assert err == "interrupted: what was measured so far is above\n"
        until = time.monotonic() + 5
        while server.connections:
            assert time.monotonic() < until, "connections are left open"
            time.sleep(0.01)
    told = read_record(tmp_path / "r.json")
    assert told.interrupted
    assert told.measurements[0].interrupted
    # What was under way is in no figure: it neither succeeded nor failed.
    assert 12 < told.measurements[0].figures.completed < len(server.sent)
    assert told.measurements[0].figures.failed == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_ctrl_c_before_anything_was_measured_leaves_no_record(tmp_path: Path) -> None:
    with paced(fast()) as server:

        def slow_now() -> bool:
            if server.sent:  # the wake-up was answered: from here on nothing is
                server.ttft_seconds = 100.0
            return len(server.sent) >= 4

        code, out, err = interrupted(server, tmp_path, slow_now, signal.SIGINT)
    assert code == 130
    assert "at once" not in out
    assert "interrupted" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
