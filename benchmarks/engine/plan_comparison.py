"""The plan as it is rendered, compared with the seeds' settings and vLLM's defaults, on one to four GPUs.

    python -m benchmarks.engine.plan_comparison 1200

Reads the plans in benchmarks/engine/plans.json, which render_plans.py writes. Runs three lanes at the same time on four GPUs
(GPU 0: starts and comparison; GPU 1: variants, kernels and other models; GPUs 2 and 3: two GPUs and 32B), then the runs on
all four GPUs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine.lab import MODELS, RESULTS, Server, record, wait_for_free_gpu
from benchmarks.engine.tasks import (
    FORK,
    NO_BYTECODE,
    SPAWN,
    Task,
    boot_and_bench,
    boot_once,
    cache,
    compile_bytecode,
    measure_side_by_side,
    parser_of,
    run,
    sharing,
    start_recording,
)
from benchmarks.engine.zygote import Zygote

PLANS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("plans.json").read_text())
# Servers that share a GPU have a fixed KV cache, so that none profiles the memory of the others.
FULL_CACHE_GIB, SMALL_CACHE_GIB = 14, 4
FULL_LOAD = {1: 6, 10: 50, 16: 80, 64: 320, 256: 1024}
SHORT_LOAD = {1: 6, 10: 50, 64: 320}
EAGER_LOAD = {1: 3, 10: 30, 16: 48, 64: 192, 256: 512}
WIDE_LOAD = {1: 4, 10: 40, 64: 192, 256: 768}
SEED_001 = ("--max-num-seqs", "12", "--max-num-batched-tokens", "10240", "--gpu-memory-utilization", "0.95")
# Seed 004 sets no engine flags: these are the defaults of its vLLM 0.6.
SEED_004 = (
    "--gpu-memory-utilization", "0.90", "--max-num-seqs", "256", "--no-enable-prefix-caching",
    "--no-enable-chunked-prefill", "--no-async-scheduling", "--max-num-batched-tokens", "8192",
)  # fmt: skip
# NVLink multicast is not used, because the GPUs of the measured host were shared.
NO_MULTICAST = {"VLLM_ALLREDUCE_USE_SYMM_MEM": "0", "VLLM_FLASHINFER_ALLREDUCE_BACKEND": "trtllm"}


def planned(
    name: str, plan: str, model: str, extra: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Server:
    """A server with exactly the plan's arguments and environment, plus those given here."""
    rendered = PLANS[plan]
    arguments = [*rendered["args"], *extra]
    served_name = arguments[arguments.index("--served-model-name") + 1]
    return Server(name, model, arguments, {**rendered["environment"], **(environment or {})}, served_name=served_name)


def starts(zygote: Zygote) -> None:
    """Starts of 4B alone on a GPU: the plan with empty and filled caches and without bytecode; eager, twice."""
    boot_once(planned("4b-plan-empty", "4b", "qwen3-4b"))
    boot_and_bench(zygote, planned("4b-plan-kept", "4b", "qwen3-4b"), {10: 50})
    boot_and_bench(zygote, Server("4b-eager-fresh", "qwen3-4b", ("--enforce-eager",), cache("eager")), {10: 30})
    boot_once(planned("4b-plan-kept-again", "4b", "qwen3-4b"))
    boot_once(Server("4b-eager-again", "qwen3-4b", ("--enforce-eager",), cache("eager")))
    boot_once(planned("4b-plan-kept-nobytecode", "4b", "qwen3-4b", environment=NO_BYTECODE))
    boot_once(Server("4b-eager-nobytecode", "qwen3-4b", ("--enforce-eager",), cache("eager") | NO_BYTECODE))
    boot_once(planned("4b-plan-kept-third", "4b", "qwen3-4b"))


def comparison(zygote: Zygote) -> None:
    """Seeds 000, 001 and 004, vLLM's defaults, the plan, and the plan with FP8 weights."""
    full, small = sharing(FULL_CACHE_GIB), sharing(SMALL_CACHE_GIB)
    measure_side_by_side(
        zygote,
        [
            (Server("c-default", "qwen3-4b", full, cache("c-default")), [FULL_LOAD, FULL_LOAD, SHORT_LOAD]),
            (planned("c-plan", "4b", "qwen3-4b", full), [FULL_LOAD, FULL_LOAD, SHORT_LOAD]),
            (planned("c-plan-fp8", "4b-fp8", "qwen3-4b", full), [FULL_LOAD, FULL_LOAD, SHORT_LOAD]),
            (Server("c-seed000", "qwen3-4b", (*full, "--enforce-eager"), cache("c-eager")), [EAGER_LOAD, {10: 30, 64: 192}, {10: 30}]),
            (Server("c-seed001", "qwen3-4b", (*SEED_001, *small), cache("c-seed001")), [{1: 4, 10: 50, 16: 48, 64: 128, 256: 256}, {10: 50}]),
            (Server("c-seed004", "qwen3-4b", (*SEED_004, *full[:2], *small[2:]), cache("c-seed004")), [{1: 4, 10: 50, 16: 80, 64: 256}, {10: 50}]),
        ],
        8100,
    )  # fmt: skip


def variants(zygote: Zygote) -> None:
    """FP8 with and without the plan, a static size for FP8, throughput mode, and n-gram speculation that never hits."""
    full, small = sharing(FULL_CACHE_GIB), sharing(SMALL_CACHE_GIB)
    fp8 = ("--quantization", "fp8")
    sizes = PLANS["4b-fp8"]["args"][PLANS["4b-fp8"]["args"].index("--compilation-config") + 1]
    static = ("--compilation-config", json.dumps(json.loads(sizes) | {"compile_sizes": [1]}))
    wide = {64: 320, 256: 1024}
    measure_side_by_side(
        zygote,
        [
            (Server("v-default", "qwen3-4b", full, cache("v-default")), [FULL_LOAD] * 2),
            (Server("v-default-fp8", "qwen3-4b", (*full, *fp8), cache("v-default-fp8")), [FULL_LOAD] * 2),
            (planned("v-plan-fp8", "4b-fp8", "qwen3-4b", full, cache("v-plan-fp8")), [FULL_LOAD] * 2),
            (planned("v-plan-fp8-static", "4b-fp8", "qwen3-4b", (*full, *static), cache("v-fp8-static")), [{1: 6, 10: 50}] * 2),
            (planned("v-throughput", "4b-throughput", "qwen3-4b", full, cache("v-throughput")), [wide] * 2),
            (planned("v-ngram", "4b-ngram", "qwen3-4b", small), [{1: 4, 10: 50, 64: 192}]),
        ],
        8200,
    )  # fmt: skip


def step_profile(zygote: Zygote) -> None:
    """GPU time of a decode step by kernel, at one and ten streams, bf16 and FP8."""
    config = {"cudagraph_capture_sizes": [1, 2, 4, 8, 16]}
    for name, engine in (
        ("bf16", {"compilation_config": config | {"compile_sizes": [1]}}),
        ("fp8", {"quantization": "fp8", "compilation_config": config}),
    ):
        arguments = {
            "environment": cache(f"profile-{name}"),
            "engine": {"model": str(MODELS / "qwen3-4b"), "load_format": "dummy", "max_model_len": 8192, "max_num_batched_tokens": 8192, "max_num_seqs": 1024, **engine},
            "batches": [1, 10],
        }  # fmt: skip
        output = RESULTS / f"profile-{name}.txt"
        status = zygote.run("profile", output, arguments, 150)
        record(
            "profile",
            name=name,
            status=status,
            lines=[line for line in output.read_text().splitlines() if line.startswith(("PROFILE", "  "))][:60],
        )
        wait_for_free_gpu()


def starts_of(plan: str, load: dict[int, int]) -> Callable[[Zygote], None]:
    """A start of another model with an empty cache, with load, and a start with the compile cache."""

    def task(zygote: Zygote) -> None:
        boot_and_bench(zygote, planned(f"{plan}-plan-empty", plan, f"qwen3-{plan}"), load)
        boot_once(planned(f"{plan}-plan-kept", plan, f"qwen3-{plan}"))

    return task


def without_fusion(plan: str) -> tuple[str, ...]:
    """The plan's compilation config without the fused all-reduce, which can use multicast."""
    args = PLANS[plan]["args"]
    config = json.loads(args[args.index("--compilation-config") + 1])
    return ("--compilation-config", json.dumps(config | {"pass_config": {"fuse_allreduce_rms": False}}))


def two_gpus(zygote: Zygote) -> None:
    """4B in two copies, 32B on two GPUs, and 4B split over two with spawned and forked workers."""
    boot_and_bench(zygote, planned("4b-dp2", "4b-dp2", "qwen3-4b"), {10: 50, 64: 320, 256: 1024, 512: 2048})
    boot_and_bench(
        zygote, planned("32b-tp2", "32b-tp2", "qwen3-32b", without_fusion("32b-tp2"), NO_MULTICAST), WIDE_LOAD
    )
    four = planned("4b-tp2-spawn-empty", "4b-tp2", "qwen3-4b", without_fusion("4b-tp2"), NO_MULTICAST | SPAWN)
    boot_and_bench(zygote, four, {1: 6, 10: 50, 64: 320, 256: 1024})
    boot_once(planned("4b-tp2-spawn-kept", "4b-tp2", "qwen3-4b", without_fusion("4b-tp2"), NO_MULTICAST | SPAWN))
    boot_once(planned("4b-tp2-fork-kept", "4b-tp2", "qwen3-4b", without_fusion("4b-tp2"), NO_MULTICAST | FORK))


def four_gpus(zygote: Zygote) -> None:
    """32B on four GPUs, and 4B in four copies."""
    boot_and_bench(
        zygote, planned("32b-tp4", "32b-tp4", "qwen3-32b", without_fusion("32b-tp4"), NO_MULTICAST), WIDE_LOAD
    )
    boot_and_bench(zygote, planned("4b-dp4", "4b-dp4", "qwen3-4b"), {64: 320, 256: 1024, 1024: 4096})


def on_first_gpu(task: Callable[[Zygote], None]) -> Callable[[Zygote], None]:
    """The task, restricted to the first GPU of the lane."""

    def alone(zygote: Zygote) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0]
        task(zygote)

    return alone


LANES: dict[str, list[Task]] = {
    "0": [("starts", 240, starts), ("comparison", 420, comparison)],
    "1": [
        ("variants", 300, variants),
        ("step profile", 60, step_profile),
        ("8B", 100, starts_of("8b", {1: 4, 10: 50})),
        ("0.6B", 80, starts_of("0.6b", {1: 4, 10: 50})),
    ],
    "2,3": [("two GPUs", 200, two_gpus), ("32B", 150, on_first_gpu(starts_of("32b", WIDE_LOAD)))],
    "0,1,2,3": [("four GPUs", 150, four_gpus)],
}
# The share of the CPU cores of each lane, so that compiling in one does not slow down measurements in another.
CORES = {"0": (0, 0.25), "1": (0.25, 0.5), "2,3": (0.5, 1)}
FOUR_GPUS_SECONDS = 200


def run_lane(lane: str, seconds: float) -> None:
    """Run the tasks of one lane in this process, on its GPUs and cores."""
    start_recording()
    cores = sorted(os.sched_getaffinity(0))
    if lane in CORES:
        first, last = (int(len(cores) * share) for share in CORES[lane])
        os.sched_setaffinity(0, set(cores[first:last]))
    run(LANES[lane], seconds)


def start_lane(lane: str, seconds: float) -> subprocess.Popen[bytes]:
    """Run a lane in its own process, which writes to its own folder."""
    environment = os.environ | {"LAB_LANE": lane.replace(",", ""), "CUDA_VISIBLE_DEVICES": lane}
    command = [sys.executable, "-m", "benchmarks.engine.plan_comparison", str(seconds), "--lane", lane]
    return subprocess.Popen(command, env=environment)


def main() -> None:
    """Run one lane, or all of them."""
    parser = parser_of(__doc__)
    parser.add_argument("--lane", choices=list(LANES), help="run only this lane; its GPUs must be visible to CUDA")
    options = parser.parse_args()
    if options.lane:
        run_lane(options.lane, options.seconds)
        return
    began = time.monotonic()
    start_recording()
    compile_bytecode()
    together = [start_lane(lane, options.seconds - FOUR_GPUS_SECONDS) for lane in CORES]
    for process in together:
        process.wait()
    start_lane("0,1,2,3", options.seconds - (time.monotonic() - began)).wait()


if __name__ == "__main__":
    main()
