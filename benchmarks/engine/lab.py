"""Starts vLLM in many configurations on a GPU, timestamps its log, reads the memory it reports, and puts load on it.

There are three processes: this one, which does not import vLLM; the server; and a zygote (see zygote.py), which runs the
benchmark client and the memory probes.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.engine.zygote import BASE_ENVIRONMENT, Zygote

HOME = Path.home()
LANE = os.environ.get("LAB_LANE", "")  # lanes that run at the same time write to separate folders
RESULTS = HOME / f"results{LANE}"
MODELS = HOME / "models"
PORT = 8100 + 1000 * len(LANE) + int(LANE or 0) * 100 % 1000
BOOT_LIMIT_SECONDS, BENCH_LIMIT_SECONDS, PROBE_LIMIT_SECONDS = 300, 150, 150
FIGURES = {
    "weights_gib": r"Model loading took ([\d.]+) GiB",
    "load_seconds": r"Model loading took [\d.]+ GiB(?: memory)? and ([\d.]+) seconds",
    "kv_cache_gib": r"Available KV cache memory: ([\d.]+) GiB",
    "kv_cache_tokens": r"GPU KV cache size: ([\d,]+) tokens",
    "max_concurrency": r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x",
    "engine_init_seconds": r"init engine .* took ([\d.]+) s",
    "compile_seconds": r"torch\.compile took ([\d.]+) s in total",
    "graph_seconds": r"Graph capturing finished in ([\d.]+) secs",
    "graph_gib": r"Graph capturing finished in [\d.]+ secs, took ([\d.]+) GiB",
    "peak_activation_gib": r"([\d.]+) GiB for peak activation",
    "non_torch_gib": r"([\d.]+) GiB for non-torch",
    "kv_bytes_of_plan": r"--kv-cache-memory=(\d+)` \([\d.]+ GiB\) to fit",
    "total_gib": r"Free memory on device \([\d.]+/([\d.]+) GiB\)",
}


def figures(log: str) -> dict[str, float]:
    """The memory and times that vLLM's log reports."""
    found = {}
    for name, pattern in FIGURES.items():
        if match := re.search(pattern, log):
            found[name] = float(match[1].replace(",", ""))
    return found


def record(kind: str, **values: object) -> None:
    """Append one result line and print it."""
    line = json.dumps({"kind": kind, **values})
    with (RESULTS / "results.jsonl").open("a") as out:
        out.write(line + "\n")
    print(line[:400], flush=True)


@dataclass
class Server:
    """One vLLM server: `python -m vllm.entrypoints.cli.main serve MODEL FLAGS`, which is `vllm serve`."""

    name: str
    model: str
    flags: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    port: int = PORT
    prefix: Sequence[str] = ()
    python: Sequence[str] = (sys.executable, "-m", "vllm.entrypoints.cli.main")
    load_format: str = "dummy"
    served_name: str = "m"

    def start(self) -> None:
        """Start the server. A thread prefixes each line of its output with the seconds since the start."""
        command = [
            *self.prefix, *self.python, "serve", str(MODELS / self.model), "--served-model-name", self.served_name, "--load-format",
            self.load_format, "--port", str(self.port),
        ]  # fmt: skip
        if "--max-model-len" not in self.flags:
            command += ["--max-model-len", "8192"]
        self.launch(command)

    def launch(self, command: Sequence[str]) -> None:
        """Run a command with the server's flags and environment."""
        self.log = RESULTS / "logs" / f"{self.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **BASE_ENVIRONMENT, **self.environment}
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*command, *self.flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True, text=True, errors="replace",
        )  # fmt: skip
        self._reader = threading.Thread(target=self._stamp, daemon=True)
        self._reader.start()

    def _stamp(self) -> None:
        assert self.process.stdout is not None
        with self.log.open("w") as out:
            for line in self.process.stdout:
                out.write(f"{time.monotonic() - self.started:8.3f} {line}")
                out.flush()

    def ready(self) -> bool:
        """Wait until /health returns 200. Returns False if the server exits or times out."""
        while time.monotonic() - self.started < BOOT_LIMIT_SECONDS:
            if self.process.poll() is not None:
                return False
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    self.ready_seconds = time.monotonic() - self.started
                    return True
            time.sleep(0.05)
        return False

    def first_token(self) -> float:
        """Request one token. Returns the seconds from the start of the process to the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = json.dumps({"model": self.served_name, "prompt": "t5 t6 t7", "max_tokens": 1})
        connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self.name}: the first request returned {answer.status}")
        return time.monotonic() - self.started

    def boot(self, **labels: object) -> bool:
        """Start the server, request one token and record the figures. Returns False if the server did not start."""
        self.start()
        try:
            first = self.first_token() if self.ready() else None
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            record("refused", name=self.name, error=repr(error))
            first = None
        if first is None:
            self.stop()
            record("died", name=self.name, tail=self.log.read_text()[-1500:])
            return False
        record(
            "boot", name=self.name, model=self.model, flags=list(self.flags), environment=self.environment,
            ready_seconds=round(self.ready_seconds, 2), first_token_seconds=round(first, 2),
            **labels, **figures(self.log.read_text()),
        )  # fmt: skip
        return True

    def stop(self) -> None:
        """Kill the server and its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(timeout=5)


def wait_for_free_gpu(limit_seconds: float = 15) -> None:
    """Wait until less than 1 GiB of the GPU is in use; otherwise the next server would profile less free memory."""
    import pynvml

    pynvml.nvmlInit()
    ours = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
    handles = [pynvml.nvmlDeviceGetHandleByIndex(int(number)) for number in ours]
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline and any(
        pynvml.nvmlDeviceGetMemoryInfo(handle).used > 1 << 30 for handle in handles
    ):
        time.sleep(0.1)


@contextlib.contextmanager
def served(server: Server, **labels: object) -> Iterator[bool]:
    """Run a server until the block ends. Yields whether it started."""
    came_up = server.boot(**labels)
    try:
        yield came_up
    finally:
        if came_up:
            server.stop()
        wait_for_free_gpu()


def _bench_argv(server: Server, concurrency: int, prompts: int, seed: int, name: str) -> list[str]:
    return [
        "--backend", "openai", "--base-url", f"http://127.0.0.1:{server.port}", "--endpoint", "/v1/completions",
        "--model", server.served_name, "--tokenizer", str(MODELS / server.model), "--dataset-name", "random", "--random-input-len", "128",
        "--random-output-len", "256", "--num-prompts", str(prompts), "--max-concurrency", str(concurrency),
        "--ignore-eos", "--seed", str(seed), "--percentile-metrics", "ttft,tpot,itl,e2el",
        "--metric-percentiles", "50,99", "--disable-tqdm", "--save-result", "--result-dir", str(RESULTS / "bench"),
        "--result-filename", f"{name}.json",
    ]  # fmt: skip


BENCH_FIGURES = (
    "completed", "failed", "duration", "output_throughput", "mean_ttft_ms", "p50_ttft_ms", "p99_ttft_ms", "mean_tpot_ms",
    "p50_tpot_ms", "p99_tpot_ms", "mean_itl_ms", "p50_itl_ms", "p99_itl_ms", "p99_e2el_ms",
)  # fmt: skip


def bench(
    zygote: Zygote, server: Server, concurrency: int, *, prompts: int | None = None, seed: int = 0, tag: str = ""
) -> None:
    """Run `vllm bench serve` with 128 tokens in and 256 out, and record its main figures."""
    prompts = prompts or max(10, concurrency * 5)
    name = f"{server.name}.c{concurrency}{tag}"
    (RESULTS / "bench").mkdir(parents=True, exist_ok=True)
    argv = _bench_argv(server, concurrency, prompts, 1000 * seed + concurrency, name)
    status = zygote.run("bench", RESULTS / "bench" / f"{name}.txt", {"argv": argv}, BENCH_LIMIT_SECONDS)
    path = RESULTS / "bench" / f"{name}.json"
    values = json.loads(path.read_text()) if path.exists() else {}
    rounded = {key: round(values[key], 3) for key in BENCH_FIGURES if key in values}
    record("bench", name=server.name, concurrency=concurrency, prompts=prompts, tag=tag, status=status, **rounded)


def bench_by_many(
    zygote: Zygote, server: Server, concurrency: int, clients: int, *, prompts: int, seed: int = 0, tag: str = ""
) -> None:
    """Put the same load on a server from several client processes, and record the sum of their rates."""
    names = [f"{server.name}.c{concurrency}of{clients}-{number}{tag}" for number in range(clients)]
    (RESULTS / "bench").mkdir(parents=True, exist_ok=True)
    argvs = [
        _bench_argv(server, concurrency // clients, prompts // clients, 100_000 + 1000 * seed + 10 * concurrency + number, name)
        for number, name in enumerate(names)
    ]  # fmt: skip
    log = RESULTS / "bench" / f"{server.name}.c{concurrency}of{clients}{tag}.txt"
    status = zygote.run("benches", log, {"argvs": argvs}, BENCH_LIMIT_SECONDS)
    found = [json.loads(path.read_text()) for name in names if (path := RESULTS / "bench" / f"{name}.json").exists()]
    record(
        "benches", name=server.name, concurrency=concurrency, clients=clients, prompts=prompts, tag=tag, status=status,
        completed=sum(one["completed"] for one in found), durations=[round(one["duration"], 2) for one in found],
        output_throughput=round(sum(one["output_throughput"] for one in found), 1),
        mean_tpot_ms=round(sum(one["mean_tpot_ms"] for one in found) / max(1, len(found)), 3),
        mean_ttft_ms=round(sum(one["mean_ttft_ms"] for one in found) / max(1, len(found)), 3),
    )  # fmt: skip


def make_variant(name: str, base: str, **changes: object) -> None:
    """Create another model from `base`: the same tokenizer, and config.json with changes."""
    target = MODELS / name
    shutil.copytree(MODELS / base, target, dirs_exist_ok=True)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))


def memory_probe(
    zygote: Zygote, name: str, model: str, environment: dict[str, str] | None = None, **engine: object
) -> None:
    """Start the engine without a server, in a fork, and record the memory it reports."""
    defaults: dict[str, object] = {
        "model": str(MODELS / model), "load_format": "dummy", "max_model_len": 8192, "max_num_batched_tokens": 8192,
        "max_num_seqs": 1024, "enforce_eager": True, "disable_log_stats": True,
    }  # fmt: skip
    log = RESULTS / "logs" / f"probe-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    arguments = {"environment": environment or {}, "engine": defaults | engine}
    status = zygote.run("memory", log, arguments, PROBE_LIMIT_SECONDS)
    took = round(time.monotonic() - began, 1)
    record("memory", name=name, model=model, engine=engine, status=status, seconds=took, **figures(log.read_text()))
    wait_for_free_gpu()
