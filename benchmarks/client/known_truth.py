"""The benchmark and `vllm bench serve` against a fake engine of known truth: `python -m benchmarks.client.known_truth`.

    known_truth.py [--engine-python .venv-engine/bin/python --tokenizer FOLDER] --out FILE.json

The engine is a fake (fake_engine.py): no model runs, and every figure follows from its pattern. Expectation, written
before the first run: every figure of this benchmark within 2% of the truth in every pattern.
"""

import argparse
import heapq
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.client.exact import HERE, ROOT
from benchmarks.client.fake_engine import MODEL, Pattern, as_argument, truth

PROMPT_TOKENS, TOKENS, REQUESTS, CONCURRENCY = 128, 48, 40, 4
ROUNDS = 3
PATTERNS = [
    Pattern("a token a chunk"),
    Pattern("slow prefill", prefill_ms=400),
    Pattern("role chunk on arrival of the request", role_at_once=True),
    Pattern("fast steps", step_ms=5),
    Pattern("4 tokens a chunk", chunks=(4,), step_ms=30),
    Pattern("4 tokens a chunk, no usage per chunk", chunks=(4,), step_ms=30, counts_each_chunk=False),
    Pattern("first chunk of 24", chunks=(24, 1)),
    Pattern("speculative: 1, 3, 5, 2, 4 tokens", chunks=(1, 3, 5, 2, 4, 1, 3, 5, 2, 4), step_ms=30),
    Pattern("all tokens in one chunk", chunks=(0,), prefill_ms=300),
    Pattern("18 of 48 tokens", answer_tokens=18),
    Pattern("95% of the prompt cached", cached_share=0.95),
    Pattern("reasoning before the answer", reasoning_tokens=24),
    Pattern("every 5th request fails (500)", http_error_every=5),
    Pattern("every 4th answer aborted", finish=("length", "length", "length", "abort")),
    Pattern("tokens after the finish_reason", after_finish=True),
]
NAMES = (
    "mean_ttft_ms", "mean_tpot_ms", "mean_itl_ms", "mean_e2el_ms", "output_throughput", "request_throughput", "completed",
    "total_output_tokens", "tokens_per_chunk", "cached_prompt_tokens",
)  # fmt: skip


def true_figures(pattern: Pattern) -> dict[str, float | None]:
    """Return what a benchmark must report of a closed loop, computed from the pattern alone."""
    one = truth(pattern, TOKENS)
    free, good = [0.0] * CONCURRENCY, 0
    for number in range(1, REQUESTS + 1):
        started = heapq.heappop(free)
        failed = pattern.http_error_every and number % pattern.http_error_every == 0
        heapq.heappush(free, started + (0.0 if failed else (one["e2el_ms"] or 0.0) / 1000))
        good += not failed and pattern.finish[number % len(pattern.finish)] != "abort" and not pattern.after_finish
    seconds, tokens = max(free), int(one["output_tokens"] or 0) * good
    times = {f"mean_{name}_ms": one[f"{name}_ms"] if good else None for name in ("ttft", "tpot", "itl", "e2el")}
    cached = None if pattern.cached_share is None else round(PROMPT_TOKENS * pattern.cached_share) * good
    return times | {
        "output_throughput": tokens / seconds,
        "request_throughput": good / seconds,
        "completed": good,
        "total_output_tokens": tokens,
        "tokens_per_chunk": (one["output_tokens"] or 0) / len(pattern.sizes(TOKENS)) if good else None,
        "cached_prompt_tokens": cached if good else None,
    }


@contextmanager
def fake(pattern: Pattern) -> Iterator[str]:
    """Serve a pattern in its own process until the block ends."""
    command = [sys.executable, "-m", "benchmarks.client.fake_engine", as_argument(pattern)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield f"http://127.0.0.1:{running.stdout.readline().strip()}"
        finally:
            running.kill()


def ours(pattern: Pattern, folder: Path) -> dict[str, Any]:
    """Return this benchmark's figures, and its warning about itself."""
    record = folder / "ours.json"
    with fake(pattern) as endpoint:
        subprocess.run(
            [sys.executable, "-m", "smoke_tests.benchmark", "--endpoint", endpoint, "--concurrency", str(CONCURRENCY),
             "--requests", str(REQUESTS), "--warmup", "0", "--prompt-tokens", str(PROMPT_TOKENS), "--max-tokens",
             str(TOKENS), "--json", str(record), "--quiet"],
            cwd=ROOT, check=False, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    (point,) = json.loads(record.read_text())["measurements"]
    return {name: point["figures"][name] for name in NAMES} | {"warning": point["client"]["warning"]}


def vllm_bench(pattern: Pattern, folder: Path, python: Path, tokenizer: Path) -> dict[str, Any]:
    """Return the figures of `vllm bench serve`; empty if it wrote none."""
    with fake(pattern) as endpoint:
        subprocess.run(
            [str(python), str(HERE / "vllm_bench.py"), "--backend", "openai-chat", "--base-url", endpoint, "--endpoint",
             "/v1/chat/completions", "--model", MODEL, "--tokenizer", str(tokenizer), "--dataset-name", "random",
             "--random-input-len", str(PROMPT_TOKENS), "--random-output-len", str(TOKENS), "--num-prompts", str(REQUESTS),
             "--max-concurrency", str(CONCURRENCY), "--ignore-eos", "--temperature", "0", "--percentile-metrics",
             "ttft,tpot,itl,e2el", "--save-result", "--result-dir", str(folder), "--result-filename", "vllm.json",
             "--disable-tqdm"],
            cwd=ROOT, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"},
        )  # fmt: skip
    result = folder / "vllm.json"
    if not result.exists():
        return {}
    told = json.loads(result.read_text())
    result.unlink()
    return {name: told.get(name) for name in NAMES}


def error(value: float | None, true: float | None) -> float | None:
    """Return the relative error; None where both have no value, infinity where only one has."""
    if value is None or true is None:
        return None if value is None and true is None else float("inf")
    return value / true - 1 if true else (0.0 if not value else float("inf"))


def worst(figures: dict[str, Any], true: dict[str, float | None]) -> tuple[float, str]:
    """Return the largest error of all figures, and the figure's name."""
    return max((abs(found), name) for name in NAMES if (found := error(figures[name], true[name])) is not None)


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine-python", type=Path, help="a Python with vLLM, to run vllm bench serve as well")
    parser.add_argument("--tokenizer", type=Path, help="a folder with a tokenizer, for vllm bench serve")
    parser.add_argument("--out", type=Path, required=True, help="file for the result, as JSON")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        for pattern in PATTERNS:
            true = true_figures(pattern)
            # Every round is written down; the table has the one with the median of its largest errors.
            rounds = [ours(pattern, folder) for _ in range(ROUNDS)]
            theirs = (
                vllm_bench(pattern, folder, options.engine_python, options.tokenizer) if options.engine_python else {}
            )
            found.append({
                "pattern": pattern.name, "truth": true, "rounds": rounds, "vllm_bench": theirs,
                "load_average": os.getloadavg()[0],
            })  # fmt: skip
            options.out.write_text(json.dumps(found, indent=1) + "\n")
            print(pattern.name, *worst(sorted(rounds, key=lambda each: worst(each, true))[1], true), file=sys.stderr)
    print("\n".join(table(found)))


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a row for each pattern: truth, this benchmark, vllm bench."""
    shown = ("mean_ttft_ms", "mean_tpot_ms", "mean_itl_ms", "mean_e2el_ms", "output_throughput", "completed")
    heads = [f"{name.removeprefix('mean_').removesuffix('_ms')} (true / here / vllm bench)" for name in shown]
    yield "| pattern | " + " | ".join(heads) + " | largest error here |"
    yield "|---" * (len(shown) + 2) + "|"
    for case in found:
        middle = sorted(case["rounds"], key=lambda each: worst(each, case["truth"]))[ROUNDS // 2]
        cells = [
            " / ".join(_cell(each.get(name)) for each in (case["truth"], middle, case["vllm_bench"])) for name in shown
        ]
        largest, name = worst(middle, case["truth"])
        yield f"| {case['pattern']} | " + " | ".join(cells) + f" | {largest:.2%} ({name}) |"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    main()
