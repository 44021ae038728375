"""Two records, held against each other."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoke_tests.benchmark.__main__ import main
from smoke_tests.benchmark.compare import FIGURES, Thresholds, compare
from tests.smoke_tests.benchmark_records import document, measurement, record

DAILY = {"pattern": "8 h", "busy_hours": 8, "active_hours": 8, "idle_hours": 16, "cold_starts": 1, "usd_per_day": 9}
COST = {"usd_per_hour": 1.0, "usd_per_million_input_tokens": 0.1, "usd_per_million_output_tokens": 0.5, "usd_per_million_total_tokens": 0.2}  # fmt: skip


def test_a_record_is_no_worse_than_itself() -> None:
    comparison = compare(record(), record())
    assert comparison.passed is True
    assert {row.ratio for row in comparison.rows} == {1.0}
    assert {row.verdict for row in comparison.rows} == {"same"}


@pytest.mark.parametrize(
    ("changes", "worse"),
    [
        ({"output_throughput": 500 / 1.11}, ["output_throughput"]),
        ({"output_throughput": 500 / 1.09}, []),
        ({"median_ttft_ms": 111.0}, ["median_ttft_ms"]),
        ({"median_ttft_ms": 109.0}, []),
        ({"p99_ttft_ms": 124.0}, []),
        ({"p99_ttft_ms": 126.0, "p99_e2el_ms": 1260.0}, ["p99_ttft_ms", "p99_e2el_ms"]),
        ({"success_rate": 0.985}, ["success_rate"]),
        ({"success_rate": 0.995}, []),
        ({"output_throughput": 0.0, "request_throughput": 0.0}, ["request_throughput", "output_throughput"]),
        ({"median_ttft_ms": 10.0, "output_throughput": 900.0}, []),
    ],
)
def test_what_got_worse_past_its_limit_is_named(changes: dict[str, Any], worse: list[str]) -> None:
    comparison = compare(record(), record(measurement(**changes)))
    assert [row.figure for row in comparison.rows if row.verdict == "worse"] == worse
    assert len(comparison.regressions) == len(worse)
    assert comparison.passed is not bool(worse)
    assert all("at 10 at once" in line for line in comparison.regressions)


@given(st.sampled_from(FIGURES), st.floats(0.05, 20), st.floats(0.01, 2))
def test_worse_one_way_is_better_the_other(figure: Any, factor: float, share: float) -> None:
    ours: dict[str, Any] = {figure.name: 100.0}
    theirs: dict[str, Any] = {figure.name: 100.0 * factor}
    base, new = record(measurement(**ours)), record(measurement(**theirs))
    limits = Thresholds(max_slowdown=share, max_tail_slowdown=share)
    forth = {row.figure: row.verdict for row in compare(base, new, limits).rows}[figure.name]
    back = {row.figure: row.verdict for row in compare(new, base, limits).rows}[figure.name]
    assert {(forth, back)} <= {("worse", "better"), ("better", "worse"), ("same", "same")}


def test_cost_and_cold_start_are_judged() -> None:
    cold = {"seconds_to_first_token": 100.0}
    base = record(measurement() | {"cost": COST | {"with_idle_hours": COST | DAILY}}, cold_start=cold)
    dear = record(measurement() | {"cost": COST | {"usd_per_million_output_tokens": 0.6}}, cold_start=cold)
    assert (
        compare(base, dear).regressions[0].startswith("usd_per_million_output_tokens at 10 at once: 0.500 became 0.600")
    )
    slow = record(measurement() | {"cost": COST}, cold_start={"seconds_to_first_token": 126.0})
    assert [line.split(":")[0] for line in compare(base, slow).regressions] == ["cold_start_seconds"]


def test_the_tail_of_few_requests_is_shown_and_not_judged() -> None:
    comparison = compare(
        record(),
        record(measurement(p99_ttft_ms=900.0, completed=99, total_output_tokens=4950, wanted_output_tokens=4950)),
    )
    assert comparison.passed is True
    assert "p99 of 99 requests is shown, not judged" in " ".join(comparison.notes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"deployment": {"model": "other"}}, "different model: m/m and other"),
        ({"deployment": {"gpu": "h100"}}, "different gpu: a10g and h100"),
        ({"deployment": {"gpu_count": 4}}, "different gpu count: 1 and 4"),
        ({"workload": {"api": "completions"}}, "different api"),
        ({"workload": {"output_tokens": {"low": 16, "high": 64}}}, "different output tokens: 50 and 16 to 64"),
        (
            {"workload": {"dataset": {"name": "s.json", "sha256": "ab", "entries": 3}}},
            "different dataset: None and s.json",
        ),
        (
            {"measurements": [measurement({"mode": "closed", "concurrency": 20})]},
            "no load in common: 10 at once; and 20",
        ),
    ],
)
def test_what_makes_no_sense_is_said_and_not_judged(changes: dict[str, Any], reason: str) -> None:
    slow = measurement(output_throughput=1.0)
    comparison = compare(record(), record(**({"measurements": [slow]} | changes)))
    assert reason in comparison.incomparable[0]
    assert comparison.passed is None
    assert comparison.regressions == ()


def test_anyway_judges_other_hardware() -> None:
    other = record(measurement(output_throughput=1.0), deployment={"gpu": "h100"})
    assert compare(record(), other, anyway=True).passed is False


def test_what_one_usually_compares_is_noted() -> None:
    base = record(deployment={"engine_version": "0.32.0", "engine_arguments": ["--max-num-seqs", "8"]})
    new = record(
        deployment={"engine_version": "0.33.0", "engine_arguments": ["--max-num-seqs", "16"]}, interrupted=True
    )
    comparison = compare(base, new)
    assert comparison.passed is True
    assert "different engine version: 0.32.0 and 0.33.0" in comparison.notes
    assert "different engine arguments: --max-num-seqs 8 and --max-num-seqs 16" in comparison.notes
    assert "interrupted: the new record" in comparison.notes


def test_figures_that_are_computed_otherwise_are_not_compared() -> None:
    prices = {"usd_per_hour_active": 1.0, "source": "test", "output_to_input_price": 4.0}
    point = measurement(request_goodput=9.0) | {"cost": COST}
    base = record(point, prices=prices, goodput_slos_ms={"ttft": 100.0})
    other = record(
        point,
        prices=prices | {"usd_per_hour_active": 2.0, "output_to_input_price": 5.0},
        goodput_slos_ms={"ttft": 200.0},
    )
    figures = {row.figure for row in compare(base, base).rows} - {row.figure for row in compare(base, other).rows}
    assert figures == {"request_goodput", "usd_per_million_output_tokens"}
    told = " ".join(compare(base, other).notes)
    assert "different SLO" in told
    assert "counts 4 and 5 input tokens" in told
    assert "different price: $1 and $2 an hour" in told


def test_only_loads_of_both_are_compared() -> None:
    one = measurement({"mode": "open", "request_rate": 2.0})
    bursty = measurement({"mode": "open", "request_rate": 2.0, "burstiness": 0.5})
    comparison = compare(record(measurement(), one), record(one, bursty))
    assert {row.load for row in comparison.rows} == {"2 requests/s"}
    assert comparison.notes == ("only in the base: 10 at once", "only in the new: 2 requests/s (burstiness 0.5)")


@pytest.mark.parametrize("share", [-0.1, float("nan")])
def test_a_threshold_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="max_slowdown"):
        Thresholds(max_slowdown=share)


def test_the_command_prints_ratios_and_fails_past_a_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def file(name: str, content: dict[str, Any]) -> str:
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    base = file("base.json", document())
    slow = file("slow.json", document(measurement(output_throughput=400.0)))
    other = file("other.json", document(deployment={"model": "other"}))
    assert main(["compare", base, base]) == 0
    assert main(["compare", base, slow]) == 1
    told = capsys.readouterr().out
    assert "worse: output_throughput at 10 at once: 500.0 became 400.0 (0.800 times, limit 0.909)" in told
    assert main(["compare", base, slow, "--max-slowdown", "0.3"]) == 0
    assert main(["compare", base, other]) == 2
    assert "not comparable: different model" in capsys.readouterr().out
    assert main(["compare", base, str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.startswith("error: cannot read")
    with pytest.raises(SystemExit):
        main(["compare", base, slow, "--max-slowdown", "-1"])


def test_the_gaps_of_merged_chunks_are_shown_and_not_judged() -> None:
    """A gateway or client that falls behind makes ITL better: 0 for each chunk that it read with the one before."""
    base = record(measurement(merged_chunk_share=0.0))
    merged = record(measurement(merged_chunk_share=0.6, median_itl_ms=0.0, p99_itl_ms=40.0))
    for one, other in ((base, merged), (merged, base)):
        told = compare(one, other)
        assert {row.verdict for row in told.rows if "itl" in row.figure} == {"shown"}
        assert any("60% of the chunks were read together with the one before" in note for note in told.notes)
        assert told.passed
    assert {row.verdict for row in compare(base, base).rows if "itl" in row.figure} == {"same"}
