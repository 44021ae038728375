"""Boot vLLM in many configurations on one GPU: stamp its log with milliseconds, read what it says of memory, load it.

Three processes: this one (no vLLM in it), the server under test, and a *zygote* that imported vLLM once and forks a child
for each benchmark and each memory probe, so that the client's own import does not cost device time.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HOME = Path.home()
LANE = os.environ.get("LAB_LANE", "")  # two lanes, a GPU each, write apart
RESULTS = HOME / f"results{LANE}"
MODELS = HOME / "models"
PORT = 8100 + 1000 * len(LANE) + int(LANE or 0) * 100 % 1000
BOOT_LIMIT_SECONDS, BENCH_LIMIT_SECONDS, PROBE_LIMIT_SECONDS = 300, 150, 150
# flashinfer's sampler is compiled at first use; the load below samples without top-k and top-p, where it is not used.
BASE_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "PYTHONUNBUFFERED": "1",
}  # fmt: skip
FIGURES = {
    "weights_gib": r"Model loading took ([\d.]+) GiB",
    "load_seconds": r"Model loading took [\d.]+ GiB(?: memory)? and ([\d.]+) seconds",
    "kv_cache_gib": r"Available KV cache memory: ([\d.]+) GiB",
    "kv_cache_tokens": r"GPU KV cache size: ([\d,]+) tokens",
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
    """What vLLM's log says of memory and time, as numbers."""
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
    """One vLLM server: ``python -m vllm.entrypoints.cli.main serve MODEL FLAGS``, as ``vllm serve`` would be."""

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
        """Start it; a thread stamps each line of its output with the seconds since now."""
        self.log = RESULTS / "logs" / f"{self.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            *self.prefix, *self.python, "serve", str(MODELS / self.model), "--served-model-name", self.served_name, "--load-format",
            self.load_format, "--port", str(self.port),
        ]  # fmt: skip
        if "--max-model-len" not in self.flags:
            command += ["--max-model-len", "8192"]
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
        """Wait until /health answers 200; false when it died or took too long."""
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
        """Ask for one token; seconds from the start of the process to the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = json.dumps({"model": self.served_name, "prompt": "t5 t6 t7", "max_tokens": 1})
        connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self.name}: the first request got {answer.status}")
        return time.monotonic() - self.started

    def boot(self, **labels: object) -> bool:
        """Start, wait, ask for one token and record the figures; false when it did not come up."""
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
        """End the server and its processes, and wait until the GPU's memory is free again."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(timeout=5)


def wait_for_free_gpu(limit_seconds: float = 15) -> None:
    """Until less than 1 GiB of the GPU is in use, so that one boot does not disturb the next one's profile."""
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
    """A booted server for the block; yields whether it came up."""
    came_up = server.boot(**labels)
    try:
        yield came_up
    finally:
        if came_up:
            server.stop()
        wait_for_free_gpu()


class Zygote:
    """A process with vLLM imported and no CUDA context, that forks a child for each job."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_zygote, args=(theirs,), daemon=True)
        self._process.start()
        self.import_seconds: float | None = None

    def run(self, job: str, output: Path, arguments: dict[str, Any], limit_seconds: int) -> int:
        """Run a job of ``JOBS`` in a forked child, its output in a file. Returns its exit status, 14 for a timeout."""
        if self.import_seconds is None:
            self.import_seconds = self._pipe.recv()
        self._pipe.send((job, str(output), arguments, limit_seconds))
        return int(self._pipe.recv())


def _zygote(pipe: Connection) -> None:
    os.environ.update(BASE_ENVIRONMENT | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    began = time.monotonic()
    import vllm.benchmarks.serve
    import vllm.v1.engine.llm_engine
    import vllm.v1.worker.gpu_worker  # noqa: F401

    pipe.send(time.monotonic() - began)
    while True:
        try:
            job, output, arguments, limit = pipe.recv()
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            _child(job, output, arguments, limit)
        pipe.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _child(job: str, output: str, arguments: dict[str, Any], limit: int) -> None:
    status = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        signal.alarm(limit)
        JOBS[job](arguments)
        status = 0
    except BaseException:  # a child of a fork must never return into its parent's loop
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _bench_job(arguments: dict[str, Any]) -> None:
    from vllm.benchmarks.serve import add_cli_args, main
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args(arguments["argv"]))


def _many_bench_jobs(arguments: dict[str, Any]) -> None:
    children = []
    for argv in arguments["argvs"]:
        child = os.fork()
        if child == 0:
            _bench_job({"argv": argv})
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def _memory_job(arguments: dict[str, Any]) -> None:
    os.environ.update(arguments["environment"])
    from vllm import LLM

    LLM(**arguments["engine"])
    print("PROBE DONE", flush=True)


def _profile_job(arguments: dict[str, Any]) -> None:
    """GPU time of one decode step at several batch sizes, by kernel, beside the wall time of the same step."""
    os.environ.update(arguments["environment"])
    import torch
    from vllm import LLM, SamplingParams

    llm = LLM(**arguments["engine"])
    for batch in arguments["batches"]:
        prompts: list[Any] = [{"prompt_token_ids": [(7 * i + j) % 5000 + 10 for j in range(128)]} for i in range(batch)]
        sampling = SamplingParams(max_tokens=256, ignore_eos=True, temperature=1.0)
        llm.generate(prompts, sampling, use_tqdm=False)
        began = time.perf_counter()
        llm.generate(prompts, sampling, use_tqdm=False)
        wall = time.perf_counter() - began
        short = SamplingParams(max_tokens=33, ignore_eos=True, temperature=1.0)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as trace:
            llm.generate(prompts, short, use_tqdm=False)
            torch.cuda.synchronize()
        kernels = sorted(
            ((e.key, e.self_device_time_total, e.count) for e in trace.key_averages()), key=lambda row: -row[1]
        )
        total = sum(row[1] for row in kernels)
        print(f"PROFILE batch={batch} wall_ms_per_token={1000 * wall / 256:.3f} gpu_ms_per_step={total / 33000:.3f}")
        for key, microseconds, count in kernels[:18]:
            print(f"  {microseconds / 33:9.1f} us/step {count / 33:7.1f} calls/step  {key[:150]}")
        sys.stdout.flush()


JOBS: dict[str, Callable[[dict[str, Any]], None]] = {
    "bench": _bench_job, "benches": _many_bench_jobs, "memory": _memory_job, "profile": _profile_job,
}  # fmt: skip


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
    """``vllm bench serve``: 128 tokens in, 256 out, so many at once; records its JSON's main figures."""
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
    """The same load from several client processes, in case one of them is the limit; records the sum of their rates."""
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
    """Another model beside ``base``: its tokenizer and its config.json with changes."""
    target = MODELS / name
    shutil.copytree(MODELS / base, target, dirs_exist_ok=True)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))


def memory_probe(
    zygote: Zygote, name: str, model: str, environment: dict[str, str] | None = None, **engine: object
) -> None:
    """Start the engine alone, in a fork, until its cache is made; records what it reported of memory."""
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
