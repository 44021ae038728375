"""This benchmark, vLLM's and GuideLLM on one endpoint, one after another.

    python -m benchmarks.client.side_by_side --engine-python .venv-engine/bin/python --guidellm GUIDELLM/bin/guidellm \
        --tokenizer FOLDER --out results.json

Without --endpoint, it starts exact_engine.c, an engine with exact timing. The CPU time per request is the difference between
the longer and the shorter run, over the whole process tree, so that imports are not counted. Expected before the first run:
all three within 5% of each other, and the fewest CPU seconds per request for this benchmark.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.client.exact import HERE, ROOT, engine

PROMPT_TOKENS, TOKENS = 128, 64
NAMES = ("median_ttft_ms", "mean_ttft_ms", "mean_tpot_ms", "mean_itl_ms", "mean_e2el_ms", "output_throughput")
Tool = Callable[[argparse.Namespace, str, int, Path], tuple[list[str], Callable[[], dict[str, float]]]]


def key_of(options: argparse.Namespace) -> str:
    """Return the API key; a placeholder if the endpoint requires none."""
    return options.api_key_file.read_text().strip() if options.api_key_file else "none"


def ours(
    options: argparse.Namespace, endpoint: str, requests: int, folder: Path
) -> tuple[list[str], Callable[[], dict[str, float]]]:
    """This benchmark."""
    record = folder / "ours.json"
    command = [
        sys.executable, "-m", "smoke_tests.benchmark", "--endpoint", endpoint, "--model", options.model,
        "--concurrency", str(options.concurrency), "--requests", str(requests), "--warmup", "0", "--quiet",
        "--prompt-tokens", str(PROMPT_TOKENS), "--max-tokens", str(TOKENS), "--json", str(record),
        *(["--api-key-file", str(options.api_key_file)] if options.api_key_file else []),
    ]  # fmt: skip
    return command, lambda: {name: json.loads(record.read_text())["measurements"][0]["figures"][name] for name in NAMES}


def vllm_bench(
    options: argparse.Namespace, endpoint: str, requests: int, folder: Path
) -> tuple[list[str], Callable[[], dict[str, float]]]:
    """`vllm bench serve`."""
    command = [
        str(options.engine_python), str(HERE / "vllm_bench.py"), "--backend", "openai-chat", "--base-url", endpoint,
        "--endpoint", "/v1/chat/completions", "--model", options.model, "--tokenizer", str(options.tokenizer),
        "--dataset-name", "random", "--random-input-len", str(PROMPT_TOKENS), "--random-output-len", str(TOKENS),
        "--num-prompts", str(requests), "--max-concurrency", str(options.concurrency), "--ignore-eos", "--temperature", "0",
        "--percentile-metrics", "ttft,tpot,itl,e2el", "--save-result", "--result-dir", str(folder),
        "--result-filename", "vllm.json", "--disable-tqdm", "--seed", str(options.seed),
    ]  # fmt: skip
    return command, lambda: {name: json.loads((folder / "vllm.json").read_text())[name] for name in NAMES}


def guidellm(
    options: argparse.Namespace, endpoint: str, requests: int, folder: Path
) -> tuple[list[str], Callable[[], dict[str, float]]]:
    """GuideLLM. Its inter-token latency is per request, (latency - TTFT) / (tokens - 1), which vLLM calls TPOT."""
    path = folder / "guidellm.json"
    key = f",api_key={key_of(options)}" if options.api_key_file else ""
    command = [
        str(options.guidellm), "run", "--backend", f"kind=openai_http,target={endpoint},model={options.model}{key}",
        "--profile", f"kind=concurrent,streams={options.concurrency}", "--constraint", f"kind=max_requests,count={requests}",
        "--data", f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={TOKENS}",
        "--tokenizer", f"kind=huggingface_auto,model={options.tokenizer}", "--output", f"kind=json,path={path}",
        "--seed", f"kind=static,value={options.seed}", "--disable-console",
    ]  # fmt: skip

    def figures() -> dict[str, float]:
        metrics = json.loads(path.read_text())["benchmarks"][0]["metrics"]
        good = {
            name: value["successful"]
            for name, value in metrics.items()
            if isinstance(value, dict) and "successful" in value
        }
        return {
            "median_ttft_ms": good["time_to_first_token_ms"]["median"],
            "mean_ttft_ms": good["time_to_first_token_ms"]["mean"],
            "mean_tpot_ms": good["inter_token_latency_ms"]["mean"],
            "mean_itl_ms": good["inter_token_latency_ms"]["mean"],
            "mean_e2el_ms": good["request_latency"]["mean"] * 1000,
            "output_throughput": good["output_tokens_per_second"]["mean"],
        }

    return command, figures


TOOLS: dict[str, Tool] = {"this benchmark": ours, "vllm bench serve": vllm_bench, "GuideLLM": guidellm}


def cpu_seconds(command: list[str]) -> float:
    """Run a command. Returns the CPU seconds of the command and its children."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    actions = [(os.POSIX_SPAWN_DUP2, quiet, 1), (os.POSIX_SPAWN_DUP2, quiet, 2)]
    _, status, usage = os.wait4(os.posix_spawnp(command[0], command, environment, file_actions=actions), 0)
    os.close(quiet)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run all rounds, write the results and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--engine-python", type=Path, required=True, help="Python of an environment with vLLM: .venv-engine/bin/python")
    add("--guidellm", type=Path, required=True, help="path of the guidellm command")
    add("--tokenizer", type=Path, required=True, help="folder with the tokenizer of the model")
    add("--endpoint", help="base URL of the endpoint; by default an engine with exact timing is started")
    add("--model", default="exact", help="name of the served model; exact by default")
    add("--api-key-file", type=Path, help="file with the API key")
    add("--concurrency", type=int, default=8, help="number of concurrent requests; 8 by default")
    add("--rounds", type=int, default=3, help="number of rounds; 3 by default")
    add("--few", type=int, default=40, help="number of requests of the shorter run; 40 by default")
    add("--many", type=int, default=240, help="number of requests of the longer run; 240 by default")
    add("--out", type=Path, required=True, help="file for the results")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with contextlib.ExitStack() as cleanup:
        endpoint = options.endpoint or cleanup.enter_context(engine(60, 8)).endpoint
        folder = Path(cleanup.enter_context(TemporaryDirectory()))
        for number in range(options.rounds):
            for name, tool in TOOLS.items():
                options.seed = 2 * number
                few = cpu_seconds(tool(options, endpoint, options.few, folder)[0])
                options.seed = 2 * number + 1
                command, figures = tool(options, endpoint, options.many, folder)
                many = cpu_seconds(command)
                per_request = (many - few) / (options.many - options.few)
                runs.append({
                    "round": number, "tool": name, "figures": figures(), "cpu_seconds_per_request": per_request,
                    "cpu_seconds_few": few, "cpu_seconds_many": many, "load_average": os.getloadavg()[0],
                })  # fmt: skip
                print(f"round {number}: {name}", file=sys.stderr)
    where = "a real engine" if options.endpoint else "exact_engine, 60 ms and 8 ms"
    context = {"endpoint": where, "concurrency": options.concurrency, "few": options.few, "many": options.many}
    options.out.write_text(json.dumps(context | {"runs": runs}, indent=1) + "\n")
    table(runs)


def table(measured: list[dict[str, Any]]) -> None:
    """Print the medians of the rounds, with the ratio of each tool to this benchmark."""
    print("| tool | " + " | ".join(name.removesuffix("_ms") for name in NAMES) + " | CPU ms a request |")
    print("|---" * (len(NAMES) + 2) + "|")
    base: dict[str, float] = {}
    for tool in TOOLS:
        runs = [run for run in measured if run["tool"] == tool]
        values = {name: statistics.median(run["figures"][name] for run in runs) for name in NAMES}
        base = base or values
        cpu = statistics.median(run["cpu_seconds_per_request"] for run in runs) * 1000
        cells = [f"{values[name]:,.2f} ({values[name] / base[name]:.3f})" for name in NAMES]
        print(f"| {tool} | " + " | ".join(cells) + f" | {cpu:.2f} |")


if __name__ == "__main__":
    main()
