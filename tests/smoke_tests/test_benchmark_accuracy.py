"""The measuring, measured: the benchmark's figures against what a paced server wrote down itself."""

import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

from smoke_tests.benchmark.record import Measurement, read_record
from smoke_tests.benchmark.schedule import arrival_times
from tests.smoke_tests.paced_server import PacedServer, paced

REPOSITORY = Path(__file__).resolve().parents[2]
REQUESTS, CONCURRENCY, TOKENS = 16, 4, 16


CLOSED = ("--concurrency", str(CONCURRENCY))
OPEN = ("--request-rate", "25")


@pytest.fixture(
    scope="module",
    params=[(1, CLOSED), (2, CLOSED), (1, OPEN)],
    ids=["a_token_a_chunk", "two_tokens_a_chunk", "open_loop"],
)
def measured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PacedServer, Measurement]:
    report = tmp_path_factory.mktemp("benchmark") / "report.json"
    # Once more where the client itself says that this machine was too busy to time anything.
    for _ in range(3):
        with paced(PacedServer(tokens_per_chunk=request.param[0])) as server:
            done = run_benchmark(server.endpoint, report, request.param[1])
        assert done.returncode == 0, done.stdout + done.stderr
        assert "16 of 16" in done.stdout
        (told,) = read_record(report).measurements
        if not told.client.warning:
            break
    return server, told


def run_benchmark(endpoint: str, report: Path, load: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smoke_tests.benchmark", "--endpoint", endpoint, "--json", str(report),
         *load, "--requests", str(REQUESTS), "--max-tokens", str(TOKENS),
         "--prompt-tokens", "50", "--warmup", "2", "--usd-per-hour", "3.6"],
        cwd=REPOSITORY, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
    )  # fmt: skip


# The client's own delay (a wake-up of a process, some 0.1 ms; far more where the machine is busy) is the error.
# 5% lies below what any confusion of the formulas makes: one token more or less is 7% of 15 gaps.
def close(server_seconds: float) -> Any:
    return pytest.approx(server_seconds * 1000, rel=0.05)


def test_times_are_the_servers_own(measured: tuple[PacedServer, Measurement]) -> None:
    server, told = measured
    # The first streams are the wake-up request and the warm-up.
    answers = server.sent[3:]
    assert len(answers) == REQUESTS
    # A client that left late for one request is right to say so, but the server knows nothing of it.
    means = told.load.mode == "closed"
    assert told.figures.median_ttft_ms == close(median(answer.ttft_seconds for answer in answers))
    assert not means or told.figures.mean_ttft_ms == close(fmean(answer.ttft_seconds for answer in answers))
    assert told.figures.median_e2el_ms == close(median(answer.latency_seconds for answer in answers))
    assert not means or told.figures.mean_e2el_ms == close(fmean(answer.latency_seconds for answer in answers))
    gaps = [gap for answer in answers for gap in answer.gaps_seconds]
    assert told.figures.median_itl_ms == close(median(gaps))
    assert not means or told.figures.mean_itl_ms == close(fmean(gaps))
    tpots = [(answer.latency_seconds - answer.ttft_seconds) / (TOKENS - server.tokens_per_chunk) for answer in answers]
    assert told.figures.median_tpot_ms == close(median(tpots))
    assert not means or told.figures.mean_tpot_ms == close(fmean(tpots))


def test_throughput_and_cost_are_the_servers_own(measured: tuple[PacedServer, Measurement]) -> None:
    server, told = measured
    answers = server.sent[3:]
    # In the open loop the clock starts before the first request is due.
    started = min(answer.received for answer in answers) - told.samples.start_ms[0] / 1000
    seconds = max(answer.chunks[-1] for answer in answers) - started
    assert told.figures.duration == pytest.approx(seconds, rel=0.05)
    assert told.figures.output_throughput == pytest.approx(REQUESTS * TOKENS / seconds, rel=0.05)
    assert told.figures.total_token_throughput == pytest.approx(REQUESTS * (TOKENS + 50) / seconds, rel=0.05)
    assert told.figures.request_throughput == pytest.approx(REQUESTS / seconds, rel=0.05)
    # $3.60 an hour is a tenth of a cent a second.
    assert told.cost is not None
    million = 0.001 * seconds / (REQUESTS * (TOKENS + 50)) * 1e6
    assert told.cost.usd_per_million_total_tokens == pytest.approx(million, rel=0.05)


def test_tokens_are_counted_by_usage_and_prompts_are_as_long_as_asked(
    measured: tuple[PacedServer, Measurement],
) -> None:
    _, told = measured
    assert told.figures.total_output_tokens == REQUESTS * TOKENS
    assert told.figures.total_input_tokens == REQUESTS * 50
    assert told.samples.output_tokens == (TOKENS,) * REQUESTS
    assert sum(told.timeline.tokens) == pytest.approx(REQUESTS * TOKENS, abs=1)


def test_the_load_is_what_was_asked(measured: tuple[PacedServer, Measurement]) -> None:
    server, told = measured
    answers = server.sent[3:]
    at_once = [sum(other.received <= answer.received < other.chunks[-1] for other in answers) for answer in answers]
    if told.load.mode == "closed":
        assert max(at_once) == CONCURRENCY
    else:
        assert [round(start) for start in told.samples.start_ms] == [
            round(due * 1000) for due in arrival_times(25.0, requests=REQUESTS, duration_seconds=None)
        ]
