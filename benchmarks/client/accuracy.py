"""The accuracy of the benchmark's figures, compared with the log of an engine with exact timing.

    python -m benchmarks.client.accuracy

Writes docs/benchmarks/client/accuracy.json and prints a table for the README there. Requires a C compiler. Expected before
the first run: every mean and median within 2%, as the median of three rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.client.exact import RESULTS, ROOT, Answer, engine

ROUNDS = 3
TOKENS = 64
# (name, load options, requests, TTFT ms, gap ms)
CASES = [
    ("1 at once", ["--concurrency", "1"], 20, 60, 8),
    ("8 at once", ["--concurrency", "8"], 80, 60, 8),
    ("64 at once", ["--concurrency", "64"], 320, 60, 20),
    ("200 at once", ["--concurrency", "200"], 800, 100, 40),
    ("20 requests/s", ["--request-rate", "20"], 120, 60, 8),
]


def of_engine(answers: list[Answer]) -> dict[str, float]:
    """Return the engine's own figures: milliseconds, and tokens per second."""
    gaps = [b - a for answer in answers for a, b in zip(answer.tokens, answer.tokens[1:], strict=False)]
    times = {
        "ttft": [answer.tokens[0] for answer in answers],
        "tpot": [(answer.tokens[-1] - answer.tokens[0]) / (len(answer.tokens) - 1) for answer in answers],
        "itl": gaps,
        "e2el": [answer.tokens[-1] for answer in answers],
    }
    found = {}
    for name, seconds in times.items():
        found[f"mean_{name}_ms"] = statistics.fmean(seconds) * 1000
        found[f"median_{name}_ms"] = statistics.median(seconds) * 1000
    ended = max(answer.read_at + answer.tokens[-1] for answer in answers)
    started = min(answer.read_at for answer in answers)
    found["output_throughput"] = sum(len(answer.tokens) for answer in answers) / (ended - started)
    return found


def measure(load: list[str], requests: int, ttft_ms: float, gap_ms: float) -> dict[str, Any]:
    """Run one load. Returns the figures of the engine and the client, and the client's CPU and lag."""
    with TemporaryDirectory() as folder, engine(ttft_ms, gap_ms) as running:
        record = Path(folder) / "record.json"
        command = [
            sys.executable, "-m", "smoke_tests.benchmark", "--endpoint", running.endpoint, *load, "--requests",
            str(requests), "--max-tokens", str(TOKENS), "--json", str(record), "--quiet",
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        (point,) = json.loads(record.read_text())["measurements"]
        theirs = of_engine(running.answers(requests))
    if point["load"]["mode"] == "open":  # the client's clock starts before the first request, the engine's with it
        theirs["output_throughput"] = (
            requests
            * TOKENS
            / (requests * TOKENS / theirs["output_throughput"] + point["samples"]["start_ms"][0] / 1000)
        )
    return {"engine": theirs, "client": {name: point["figures"][name] for name in theirs}, "own": point["client"]}


def main() -> None:
    """Run all loads, write the results and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "accuracy.json", help="file for the results")
    out = parser.parse_args().out
    cases: list[dict[str, Any]] = []
    for name, load, requests, ttft_ms, gap_ms in CASES:
        rounds = []
        for _ in range(ROUNDS):
            rounds.append(measure(load, requests, ttft_ms, gap_ms) | {"load_average": os.getloadavg()[0]})
        cases.append({"case": name, "requests": requests, "ttft_ms": ttft_ms, "gap_ms": gap_ms, "rounds": rounds})
        print(name, "done", file=sys.stderr)
    out.write_text(json.dumps(cases, indent=1) + "\n")
    names = list(cases[0]["rounds"][0]["engine"])
    print("| load | " + " | ".join(name.removesuffix("_ms") for name in names) + " | client's CPU | load average |")
    print("|---" * (len(names) + 3) + "|")
    for case in cases:
        cells = []
        for name in names:
            errors = [r["client"][name] / r["engine"][name] - 1 for r in case["rounds"]]
            cells.append(f"{statistics.median(errors):+.2%}")
        share = statistics.median(r["own"]["cpu_share"] for r in case["rounds"])
        loads = [r["load_average"] for r in case["rounds"]]
        print(f"| {case['case']} | " + " | ".join(cells) + f" | {share:.0%} | {min(loads):.1f} to {max(loads):.1f} |")


if __name__ == "__main__":
    main()
