"""Twenty pairs of runs, half of them incomparable in one way each: the verdict, the exit status, and the reason.

docs/benchmark.md shows them as a table. `UPDATE_DOCS=1` updates it.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from smoke_tests.benchmark.__main__ import main
from smoke_tests.benchmark.compare import compare
from tests.smoke_tests.benchmark_records import document, measurement, record

PAGE = Path(__file__).parents[2] / "docs" / "benchmark.md"
PRICES = {"usd_per_hour_active": 1.0, "source": "test", "output_to_input_price": 4.0, "priced_on": "2026-11-01"}
COST = {
    "usd_per_hour": 1.0,
    "usd_per_million_input_tokens": 0.1,
    "usd_per_million_output_tokens": 0.5,
    "usd_per_million_total_tokens": 0.2,
}
KNOWN = {
    "model_revision": "abc", "instance_type": "g5.xlarge", "engine_version": "0.32.0", "engine_image": "v:1",
    "engine_arguments": ["--max-num-seqs", "8"], "region": "eu-west-1",
}  # fmt: skip
CLOSED = {"mode": "closed", "concurrency": 10, "requests": 200, "warmup_requests": 10}


def point(load: dict[str, Any] | None = None, replicas: int | None = 1, **figures: Any) -> dict[str, Any]:
    return measurement(CLOSED | (load or {}), **figures) | {"replicas": replicas, "cost": COST}


def run(*points: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A whole record; `deployment` and `workload` are merged."""
    deployment = KNOWN | changes.pop("deployment", {})
    changes = {"prices": PRICES} | changes
    return document(*(points or [point()]), deployment=deployment, **changes)


def tool(**changes: Any) -> dict[str, Any]:
    known: dict[str, Any] = document()["tool"]
    return known | {"machine": "m1"} | changes


SHORT: dict[str, Any] = {"total_output_tokens": 2_000, "short_answers": 200}
# (name, the new record, exit status, what is printed)
PAIRS = [
    ("the same", run(), 0, "nothing got worse"),
    ("faster", run(point(median_ttft_ms=50.0)), 0, "nothing got worse"),
    ("slower within the limit", run(point(median_ttft_ms=109.0)), 0, "nothing got worse"),
    ("slower", run(point(median_ttft_ms=120.0)), 1, "worse: median_ttft_ms"),
    ("more failures", run(point(success_rate=0.9, failed=20)), 1, "worse: success_rate"),
    ("engine version", run(deployment={"engine_version": "0.33.0"}), 0, "note: different engine version"),
    ("engine arguments", run(deployment={"engine_arguments": ["-x"]}), 0, "note: different engine arguments"),
    ("engine image", run(deployment={"engine_image": "v:2"}), 0, "note: different engine image"),
    ("price date", run(prices=PRICES | {"priced_on": "2026-12-01"}), 0, "note: different price date"),
    ("client machine", run(tool=tool(machine="m2")), 0, "note: different client machine"),
    ("prompts", run(workload={"same_prompts": True}), 2, "prompts (same in every run): no and yes"),
    ("sampling", run(workload={"temperature": 1.0}), 2, "different sampling temperature: 0.0 and 1.0"),
    ("seed", run(workload={"seed": 1}), 2, "different seed: 0 and 1"),
    ("warm-up", run(point({"warmup_requests": 0})), 2, "different warm-up: 10 and 0 requests"),
    ("cached share", run(point(cached_prompt_tokens=15_000)), 2, "cached share of the prompt tokens: 0.0% and 75.0%"),
    ("short answers", run(point(**SHORT)), 2, "200 of 200 answers are short: 10.0 of 50.0 requested tokens"),
    ("model revision", run(deployment={"model_revision": "def"}), 2, "different model revision: abc and def"),
    ("machine", run(deployment={"instance_type": "g6.xlarge"}), 2, "different instance type: g5.xlarge and g6.xlarge"),
    ("size of the load", run(point({"requests": 20})), 2, "different size of the load: 200 and 20 requests"),
    ("mode", run(point({"mode": "open", "concurrency": None, "request_rate": 10.0})), 2, "no load in common"),
]  # fmt: skip


@pytest.mark.parametrize(("new", "status", "words"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_twenty_pairs_of_runs(
    new: dict[str, Any], status: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_status, text = compared(new, tmp_path, capsys)
    assert exit_status == status
    assert words in text
    # Exactly one difference, so that no other refusal hides a missing one.
    assert text.count("not comparable: ") == (status == 2)


def compared(new: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit status and the output of comparing `new` with the base record."""
    for name, content in (("base", run(tool=tool())), ("new", {"tool": tool()} | new)):
        (folder / name).write_text(
            json.dumps({**content, "tool": content["tool"] | {"machine": content["tool"].get("machine", "m1")}})
        )
    capsys.readouterr()
    status = main(["compare", str(folder / "base"), str(folder / "new")])
    return status, capsys.readouterr().out


def test_the_docs_show_the_twenty_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["| difference | comparable | exit status | the line that decides |", "|---|---|---|---|"]
    for name, new, _, words in PAIRS:
        status, text = compared(new, tmp_path, capsys)
        line = next(line for line in text.splitlines() if words in line)
        line = line.strip().replace(str(tmp_path / "new"), "NEW").replace(str(tmp_path / "base"), "BASE")
        rows.append(f"| {name} | {'no' if status == 2 else 'yes'} | {status} | `{line}` |")
    start, end = "<!-- pairs: generated -->\n", "\n<!-- pairs: end -->"
    page = PAGE.read_text()
    before, rest = page.split(start)
    after = rest.split(end)[1]
    wanted = before + start + "\n".join(rows) + end + after
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(wanted)
    assert page == wanted, "run UPDATE_DOCS=1 pytest on this file"


def test_half_of_the_pairs_are_incomparable() -> None:
    assert (len(PAIRS), sum(status == 2 for _, _, status, _ in PAIRS)) == (20, 10)


@pytest.mark.parametrize(
    ("base", "new", "reason"),
    [
        ({}, {"workload": {"same_prompts": None}}, "prompts: unknown"),
        ({}, {"measurements": [point(wanted_output_tokens=None)]}, "requested answer length unknown"),
        ({}, {"measurements": [point(replicas=2)]}, "different number of ready replicas: 1 and 2"),
        ({}, {"measurements": [point(client_errors=3)]}, "3 requests failed on the client machine"),
        (
            {},
            {"measurements": [point(total_output_tokens=9_000, wanted_output_tokens=9_000)]},
            "received answer length",
        ),
    ],
)
def test_unknown_is_not_equal_and_other_differences_refuse(base: Any, new: Any, reason: str) -> None:
    one, other = record(**run(**base)), record(**run(*new.pop("measurements", ()), **new))
    assert reason in " ".join(compare(one, other).incomparable)
    assert reason in " ".join(compare(one, other, anyway=True).notes)


def test_the_same_prompts_with_an_unknown_cached_share_refuse() -> None:
    unknown = point(cached_prompt_tokens=None)
    same = record(**run(unknown, workload={"same_prompts": True}))
    assert "a prefix cache may have held them" in " ".join(compare(same, same).incomparable)
    fresh = record(**run(unknown))
    assert compare(fresh, fresh).passed is True
    assert "cached share of the prompt tokens: unknown and unknown" in " ".join(compare(fresh, fresh).notes)


def test_costs_of_two_price_dates_are_not_compared() -> None:
    other = record(**run(prices=PRICES | {"priced_on": "2026-12-01"}))
    assert not any("usd" in row.figure for row in compare(record(**run()), other).rows)
