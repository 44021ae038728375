"""Runs vLLM's benchmark client, memory probes and profiles in forks of one process that has already imported vLLM.

Importing vLLM takes seconds; the fork saves them for each job.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# Compiling flashinfer's sampler would delay the first use. The load samples without top-k and top-p, which do not need it.
BASE_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "PYTHONUNBUFFERED": "1",
}  # fmt: skip


class Zygote:
    """A process that has imported vLLM but has no CUDA context. It forks a child for each job."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_zygote, args=(theirs,), daemon=True)
        self._process.start()
        self.import_seconds: float | None = None

    def run(self, job: str, output: Path, arguments: dict[str, Any], limit_seconds: int) -> int:
        """Run a job of `JOBS` in a forked child, with its output in a file. Returns its exit status, -14 after a timeout."""
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
    except BaseException:  # a forked child must not return into its parent's loop
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
    """GPU time of one decode step by kernel, and its wall time, at several batch sizes."""
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
