"""The gateway's CPU cost and added latency, compared with a bare asyncio protocol and with other proxies.

    .venv/bin/python -m benchmarks.gateway.bench --out raw.jsonl
    .venv/bin/python -m benchmarks.gateway.bench --report raw.jsonl

The proxy's process tree runs on core 1; two fake engines and the clients, all in C, run on core 0. Each round measures every
proxy once, and an engine without a proxy. Rely on the CPU seconds of the process tree. Added latencies are relative to the
engine without a proxy. The gateway runs with keys that have limits, affinity over two replicas, trusted proxies, log and
metrics. The other proxies run with their defaults; the raw protocol checks one key.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gateway.running import ROOT, resident_mib
from benchmarks.gateway.soak import build
from image.gateway import __version__

ENGINES = (19100, 19101)
PORT = 19200
KEY = "sk-bench"
# mode, connections, requests, seconds, tokens, gap in us, delay in us, aligned, ramp in ms
PHASES = {
    "json, 1 client": "json 1 100000000 2 64 0 0 0 0",
    "json, 16 clients": "json 16 100000000 2 64 0 0 0 0",
    "100 streams": "stream 100 200 6 64 20000 0 0 1300",
}
LITELLM = """
model_list:
  - model_name: fake-model
    litellm_params: {{model: openai/fake-model, api_base: "http://127.0.0.1:{engine}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
"""


def command(name: str, options: argparse.Namespace, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a proxy."""
    environment = dict(os.environ)
    if name == "gateway":
        limits = {"concurrency": 10_000, "requests_per_minute": 10**9, "tokens_per_minute": 10**12}
        environment |= {
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(PORT),
            "GATEWAY_METRICS_PORT": str(PORT + 1),
            "GATEWAY_MODEL": "fake-model",
            "GATEWAY_DISCOVERY": "fixed:" + ",".join(f"http://127.0.0.1:{port}" for port in ENGINES),
            "GATEWAY_KEYS": "env:BENCH_KEYS",
            "BENCH_KEYS": json.dumps({"bench": {"key": KEY, "limits": limits}, "other": "sk-other"}),
            "GATEWAY_TRUSTED_PROXIES": "127.0.0.0/8",
            "GATEWAY_CONCURRENCY_PER_REPLICA": "1000",
            "GATEWAY_MAX_QUEUED_REQUESTS": "1000",
        }
        return [sys.executable, "-m", "image.gateway"], environment
    if name == "raw-protocol":
        environment |= {"GW_UPSTREAMS": ",".join(f"127.0.0.1:{port}" for port in ENGINES), "GW_KEYS": KEY}
        return [sys.executable, "-m", "benchmarks.gateway.raw_protocol", str(PORT)], environment
    if name == "vllm-router":
        urls = [f"http://127.0.0.1:{port}" for port in ENGINES]
        arguments = ["--policy", "round_robin", "--host", "127.0.0.1", "--port", str(PORT), "--log-level", "warning"]
        return [
            options.vllm_router,
            "--worker-urls",
            *urls,
            *arguments,
            "--prometheus-port",
            str(PORT + 1),
        ], environment
    config = folder / "litellm.yaml"
    config.write_text(LITELLM.format(engine=ENGINES[0], key=KEY))
    environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
    environment["PATH"] = f"{Path(options.litellm).parent}:{environment['PATH']}"
    arguments = ["--host", "127.0.0.1", "--port", str(PORT), "--num_workers", "1", "--telemetry", "False"]
    return [options.litellm, "--config", str(config), *arguments], environment


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def usage(pid: int) -> tuple[float, float]:
    """CPU seconds so far, from the scheduler's nanosecond clock, and MiB of resident memory, of a process tree."""
    seconds = memory = 0.0
    for process in tree(pid):
        with contextlib.suppress(OSError):  # it may have exited
            for thread in Path(f"/proc/{process}/task").iterdir():
                seconds += int((thread / "schedstat").read_text().split()[0]) / 1e9
            memory += resident_mib(process)
    return seconds, memory


def until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a chat request succeeds."""
    body = json.dumps({"model": "fake-model", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    for _ in range(300):
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} exited with {process.returncode}")
        with contextlib.suppress(OSError):
            asked = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
            with urllib.request.urlopen(asked, timeout=5):  # noqa: S310 - the address is ours
                return
        time.sleep(0.3)
    raise SystemExit(f"{process.args!r} did not respond within 90 s")


@contextlib.contextmanager
def pinned(core: int, arguments: list[str], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process on one core, and stop it and its children when the block ends."""
    process = subprocess.Popen(["taskset", "-c", str(core), *arguments], **more)
    try:
        yield process
    finally:
        for pid in reversed(tree(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 15)
        process.wait(20)


def bench(options: argparse.Namespace) -> None:
    """Run all rounds. Appends a JSON line per phase to the output."""
    names = ["direct", "raw-protocol", "gateway"]
    names += [name for name in ("vllm-router", "litellm") if getattr(options, name.replace("-", "_"))]
    if options.only:
        names = [name for name in names if name in options.only.split(",")]
    with tempfile.TemporaryDirectory() as text, contextlib.ExitStack() as stack, options.out.open("a") as out:
        folder = Path(text)
        programs = build(folder)
        for port in ENGINES:
            stack.enter_context(pinned(0, [programs["fake_engine"], str(port)]))

        def load(port: int, spec: str) -> dict[str, Any]:
            arguments = ["taskset", "-c", "0", programs["load"], str(port), *spec.split(), KEY]
            done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
            result: dict[str, Any] = json.loads(done.stdout)
            return result

        def measure(number: int, name: str, port: int, pid: int | None) -> None:
            for spec in ("json 16 1500 4 64 0 0 0 0", "stream 8 60 4 64 0 0 0 0"):
                load(port, spec)
            for phase, spec in PHASES.items():
                before = usage(pid)[0] if pid else 0.0
                result = load(port, spec)
                after, memory = usage(pid) if pid else (0.0, 0.0)
                line = {
                    "round": number,
                    "name": name,
                    "phase": phase,
                    "cpu_seconds": after - before,
                    "memory_mib": memory,
                    "load_average": os.getloadavg()[0],
                    "python": platform.python_version(),
                    "gateway": __version__,
                    **{key: result[key] for key in ("done", "errors", "chunks", "rps", "ttfb", "hash", "first_error")},
                    "first": result.get("ttft", result["ttfb"]),
                }
                out.write(json.dumps(line) + "\n")
                out.flush()

        for number in range(options.rounds):
            for name in names:
                if name == "direct":
                    measure(number, name, ENGINES[0], None)
                    continue
                arguments, environment = command(name, options, folder)
                with (
                    (folder / "log").open("ab") as log,
                    pinned(1, arguments, env=environment, cwd=ROOT, stdout=log, stderr=log) as process,
                ):
                    until_ready(PORT, process)
                    measure(number, name, PORT, process.pid)


def report(lines: list[dict[str, Any]]) -> str:
    """The medians of the rounds as a Markdown table."""

    def rows(name: str, phase: str) -> list[dict[str, Any]]:
        return [line for line in lines if line["name"] == name and line["phase"] == phase]

    def cpu_us(name: str, phase: str) -> list[float]:
        each = "chunks" if "streams" in phase else "done"
        return [line["cpu_seconds"] / max(line[each], 1) * 1e6 for line in rows(name, phase)]

    def added_ms(name: str, phase: str, quantile: str) -> str:
        own = [line["first"][quantile] for line in rows(name, phase)]
        direct = [line["first"][quantile] for line in rows("direct", phase)]
        return f"{(statistics.median(own) - statistics.median(direct)) / 1000:.2f}" if own and direct else "-"

    one, many, streams = PHASES
    table = [
        "| proxy | CPU us per request | of the raw protocol | CPU us per chunk | of the raw protocol | added p50 / p99 ms, "
        "1 client | added TTFT p50 / p99 ms, 100 streams | MiB | errors |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(line["name"] for line in lines if line["name"] != "direct"):
        cells = [name]
        for phase in (many, streams):
            figures = cpu_us(name, phase)
            ratios = [own / raw for own, raw in zip(figures, cpu_us("raw-protocol", phase), strict=False)]
            cells += [f"{statistics.median(figures):.0f} ({min(figures):.0f} to {max(figures):.0f})"]
            cells += [f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-"]
        for phase in (one, streams):
            cells.append(" / ".join(added_ms(name, phase, quantile) for quantile in ("p50", "p99")))
        own = [line for line in lines if line["name"] == name]
        cells += [f"{max(line['memory_mib'] for line in own):.0f}", str(sum(line["errors"] for line in own))]
        table.append("| " + " | ".join(cells) + " |")
    loads = [line["load_average"] for line in lines]
    hashes = {line["phase"]: set() for line in lines}  # type: ignore[var-annotated]
    for line in lines:
        if line["name"] != "litellm":  # LiteLLM rewrites every response
            hashes[line["phase"]].add(line["hash"])
    exact = all(len(found) == 1 for found in hashes.values())
    table += [
        "",
        f"All responses except LiteLLM's are identical byte for byte: {exact}. Load average: {min(loads):.1f} to {max(loads):.1f}.",
    ]
    return "\n".join(table)


def main() -> None:
    """Measure, or print the table of an earlier run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="measure, and append the results to this file as JSON lines")
    parser.add_argument("--report", type=Path, help="print the table of this file")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; 3 by default")
    parser.add_argument(
        "--only", help="proxies to measure, separated by commas: gateway, raw-protocol, vllm-router, litellm, direct"
    )
    parser.add_argument("--vllm-router", help="path of the vllm-router command; not measured by default")
    parser.add_argument("--litellm", help="path of the litellm command; not measured by default")
    options = parser.parse_args()
    if options.out:
        bench(options)
    path = options.report or options.out
    if not path:
        parser.error("set --out or --report")
    print(report([json.loads(line) for line in path.read_text().splitlines()]))


if __name__ == "__main__":
    main()
