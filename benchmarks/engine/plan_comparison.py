"""Fourth session, four GPUs: what the plan renders, against the seeds' settings and vLLM's defaults; TP and DP; memory.

Usage: LAB_LANE=NAME CUDA_VISIBLE_DEVICES=LANE session_4.py SECONDS     LANE: 0, 1, 2,3 or 0,1,2,3: GPUs
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import (
    BASE_ENVIRONMENT,
    HOME,
    RESULTS,
    Server,
    Zygote,
    bench,
    make_variant,
    memory_probe,
    record,
    served,
    wait_for_free_gpu,
)
from session_1 import boot_once, run
from session_2 import FP8_BLOCKS

PLANS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[2] / "docs/benchmarks/engine/session_4_plans.json").read_text()
)
FORK, SPAWN = ({"VLLM_WORKER_MULTIPROC_METHOD": how} for how in ("fork", "spawn"))
NO_BYTECODE = {"PYTHONPYCACHEPREFIX": str(HOME / "nowhere"), "PYTHONDONTWRITEBYTECODE": "1"}
LENGTH = ("--max-model-len", "8192")
# Several servers beside each other on one GPU: each is told how large its cache is, so that none profiles the others.
FULL_CACHE_GIB, SMALL_CACHE_GIB = 14, 4
FULL_LOAD = {1: 6, 10: 50, 16: 80, 64: 320, 256: 1024}
SHORT_LOAD = {1: 6, 10: 50, 64: 320}
EAGER_LOAD = {1: 3, 10: 30, 16: 48, 64: 192, 256: 512}
SEED_001 = ("--max-num-seqs", "12", "--max-num-batched-tokens", "10240", "--gpu-memory-utilization", "0.95")
# Seed 004 names no engine flag: these are the defaults of the vLLM 0.6 it ran, said to today's.
SEED_004 = (
    "--gpu-memory-utilization", "0.90", "--max-num-seqs", "256", "--no-enable-prefix-caching",
    "--no-enable-chunked-prefill", "--no-async-scheduling", "--max-num-batched-tokens", "8192",
)  # fmt: skip
# The host's other GPUs are shared: nothing that needs NVLink multicast.
NO_MULTICAST = {"VLLM_ALLREDUCE_USE_SYMM_MEM": "0", "VLLM_FLASHINFER_ALLREDUCE_BACKEND": "trtllm"}


def planned(
    name: str,
    plan: str,
    model: str,
    extra: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    **values: Any,
) -> Server:
    """A server with the plan's arguments and environment, to the letter."""
    rendered = PLANS[plan]
    arguments = [*rendered["args"], *extra]
    served_name = arguments[arguments.index("--served-model-name") + 1]
    return Server(
        name, model, arguments, rendered["environment"] | (environment or {}), served_name=served_name, **values
    )


def cache(name: str) -> dict[str, str]:
    """A cache folder of its own, for what is not the plan's."""
    root = str(HOME / "caches" / name)
    return {
        "VLLM_CACHE_ROOT": root,
        "TORCHINDUCTOR_CACHE_DIR": f"{root}/inductor",
        "TRITON_CACHE_DIR": f"{root}/triton",
    }


def boot_and_bench(zygote: Zygote, server: Server, load: dict[int, int], tag: str = "") -> None:
    """Boot, put each load on it, stop."""
    with served(server) as came_up:
        for concurrency, prompts in load.items():
            if came_up:
                bench(zygote, server, concurrency, prompts=prompts, tag=tag)


def starts(zygote: Zygote) -> None:
    """4B alone on the GPU: the plan's start, empty, kept, without bytecode; eager as the seeds start it, and again."""
    boot_once(planned("4b-plan-empty", "4b", "qwen3-4b"))
    boot_and_bench(zygote, planned("4b-plan-kept", "4b", "qwen3-4b"), {10: 50})
    boot_and_bench(zygote, Server("4b-eager-fresh", "qwen3-4b", ("--enforce-eager",), cache("eager")), {10: 30})
    boot_once(planned("4b-plan-kept-again", "4b", "qwen3-4b"))
    boot_once(Server("4b-eager-again", "qwen3-4b", ("--enforce-eager",), cache("eager")))
    boot_once(planned("4b-plan-kept-nobytecode", "4b", "qwen3-4b", environment=NO_BYTECODE))
    boot_once(Server("4b-eager-nobytecode", "qwen3-4b", ("--enforce-eager",), cache("eager") | NO_BYTECODE))
    boot_once(planned("4b-plan-kept-third", "4b", "qwen3-4b"))


def beside(zygote: Zygote, servers: list[tuple[Server, list[dict[int, int]]]], first_port: int) -> None:
    """All servers at once on one GPU, loaded in turn, round after round; odd rounds in the opposite order."""
    for number, (server, _) in enumerate(servers):
        server.port = first_port + number
        server.start()
    alive = []
    for server, rounds in servers:
        if server.ready():
            server.first_token()
            record("up", name=server.name, ready_seconds=round(server.ready_seconds, 1), flags=list(server.flags))
            alive.append((server, rounds))
        else:
            record("died", name=server.name, tail=server.log.read_text()[-1500:])
            server.stop()
    for number in range(max(len(rounds) for _, rounds in alive)):
        for concurrency in FULL_LOAD:
            for server, rounds in alive if number % 2 == 0 else alive[::-1]:
                if number < len(rounds) and concurrency in rounds[number]:
                    bench(
                        zygote, server, concurrency, prompts=rounds[number][concurrency], seed=number, tag=f"-r{number}"
                    )
    for server, _ in alive:
        server.stop()
    wait_for_free_gpu()


def shared(gib: int) -> tuple[str, ...]:
    """The flags of one of several servers on a GPU; given last, they win over the plan's."""
    return ("--gpu-memory-utilization", "0.12", "--kv-cache-memory-bytes", str(gib << 30))


def comparison(zygote: Zygote) -> None:
    """Seeds 000, 001 and 004, vLLM's defaults, the plan, and the plan with FP8 weights."""
    full, small = shared(FULL_CACHE_GIB), shared(SMALL_CACHE_GIB)
    beside(
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
    """FP8 with and without the plan, a static size for FP8, throughput mode, n-gram speculation that never hits."""
    full, small = shared(FULL_CACHE_GIB), shared(SMALL_CACHE_GIB)
    fp8 = ("--quantization", "fp8")
    sizes = PLANS["4b-fp8"]["args"][PLANS["4b-fp8"]["args"].index("--compilation-config") + 1]
    static = ("--compilation-config", json.dumps(json.loads(sizes) | {"compile_sizes": [1]}))
    wide = {64: 320, 256: 1024}
    beside(
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


def probes(zygote: Zygote) -> None:
    """What vLLM reports of memory, in configurations that no session had."""
    make_variant(
        "qwen3-1.7b", "qwen3-4b", hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16
    )
    make_variant(
        "qwen3-14b", "qwen3-8b", hidden_size=5120, intermediate_size=17408, num_hidden_layers=40, num_attention_heads=40
    )
    make_variant("qwen3-8b-fp8", "qwen3-8b", **FP8_BLOCKS)
    make_variant(
        "qwen3-30b-a3b", "qwen3-8b", architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", hidden_size=2048,
        intermediate_size=6144, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, num_hidden_layers=48,
        num_attention_heads=32, num_key_value_heads=4, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[],
    )  # fmt: skip
    no_deepgemm = {"VLLM_USE_DEEP_GEMM": "0"}
    draft = {"model": str(HOME / "models/qwen3-0.6b"), "num_speculative_tokens": 4}
    todo: list[tuple[str, str, dict[str, str], dict[str, object]]] = [
        ("1.7b", "qwen3-1.7b", {}, {}),
        ("14b", "qwen3-14b", {}, {}),
        ("14b-fp8", "qwen3-14b", {}, {"quantization": "fp8"}),
        ("8b-fp8-blocks", "qwen3-8b-fp8", no_deepgemm, {}),
        ("4b-len40960-util0.8", "qwen3-4b", {}, {"max_model_len": 40960, "gpu_memory_utilization": 0.8}),
        ("8b-kvfp8-util0.9", "qwen3-8b", {}, {"kv_cache_dtype": "fp8", "gpu_memory_utilization": 0.9}),
        ("1.7b-small-batch-room", "qwen3-1.7b", {}, {"max_num_batched_tokens": 2048, "max_num_seqs": 256, "gpu_memory_utilization": 0.145}),
        ("30b-a3b-256-seqs", "qwen3-30b-a3b", {}, {"max_num_seqs": 256}),
        ("4b-throughput", "qwen3-4b", {}, {"max_num_batched_tokens": 16384, "max_num_seqs": 2048}),
        ("4b-two-adapters", "qwen3-4b", {}, {"enable_lora": True, "max_loras": 2, "max_lora_rank": 16}),
        ("4b-draft-0.6b", "qwen3-4b", {}, {"speculative_config": draft}),
    ]  # fmt: skip
    for name, model, environment, engine in todo:
        memory_probe(zygote, f"eager-{name}", model, cache("probes") | environment, **engine)


def model_starts(plan: str, load: dict[int, int]) -> Any:
    """Empty and kept start of another model with the plan's arguments, loaded once."""

    def task(zygote: Zygote) -> None:
        boot_and_bench(zygote, planned(f"{plan}-plan-empty", plan, f"qwen3-{plan}"), load)
        boot_once(planned(f"{plan}-plan-kept", plan, f"qwen3-{plan}"))

    return task


def step_profile(zygote: Zygote) -> None:
    """GPU time of a decode step by kernel, at one and ten streams, bf16 and FP8."""
    config = {"cudagraph_capture_sizes": [1, 2, 4, 8, 16]}
    for name, engine in (
        ("bf16", {"compilation_config": config | {"compile_sizes": [1]}}),
        ("fp8", {"quantization": "fp8", "compilation_config": config}),
    ):
        arguments = {
            "environment": cache(f"profile-{name}"),
            "engine": {"model": str(HOME / "models/qwen3-4b"), "load_format": "dummy", "max_model_len": 8192, "max_num_batched_tokens": 8192, "max_num_seqs": 1024, **engine},
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


def without_fusion(plan: str) -> tuple[str, ...]:
    """The plan's compilation config without the fused all-reduce, which may use multicast."""
    args = PLANS[plan]["args"]
    config = json.loads(args[args.index("--compilation-config") + 1])
    return ("--compilation-config", json.dumps(config | {"pass_config": {"fuse_allreduce_rms": False}}))


WIDE = {1: 4, 10: 40, 64: 192, 256: 768}


def two_gpus(zygote: Zygote) -> None:
    """4B as two copies, 32B on two GPUs, 4B split in two with spawned and forked workers."""
    boot_and_bench(zygote, planned("4b-dp2", "4b-dp2", "qwen3-4b"), {10: 50, 64: 320, 256: 1024, 512: 2048})
    boot_and_bench(zygote, planned("32b-tp2", "32b-tp2", "qwen3-32b", without_fusion("32b-tp2"), NO_MULTICAST), WIDE)
    four = planned("4b-tp2-spawn-empty", "4b-tp2", "qwen3-4b", without_fusion("4b-tp2"), NO_MULTICAST | SPAWN)
    boot_and_bench(zygote, four, {1: 6, 10: 50, 64: 320, 256: 1024})
    boot_once(planned("4b-tp2-spawn-kept", "4b-tp2", "qwen3-4b", without_fusion("4b-tp2"), NO_MULTICAST | SPAWN))
    boot_once(planned("4b-tp2-fork-kept", "4b-tp2", "qwen3-4b", without_fusion("4b-tp2"), NO_MULTICAST | FORK))


def four_gpus(zygote: Zygote) -> None:
    """32B on four GPUs, 4B as four copies."""
    boot_and_bench(zygote, planned("32b-tp4", "32b-tp4", "qwen3-32b", without_fusion("32b-tp4"), NO_MULTICAST), WIDE)
    boot_and_bench(zygote, planned("4b-dp4", "4b-dp4", "qwen3-4b"), {64: 320, 256: 1024, 1024: 4096})


def on_first_gpu(task: Any) -> Any:
    """The task on the lane's first GPU alone."""

    def alone(zygote: Zygote) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0]
        task(zygote)

    return alone


LANES: dict[str, list[tuple[str, int, Any]]] = {
    "0": [("starts", 240, starts), ("comparison", 420, comparison)],
    "1": [
        ("probes", 70, probes),
        ("variants", 300, variants),
        ("step profile", 60, step_profile),
        ("8B", 100, model_starts("8b", {1: 4, 10: 50})),
        ("0.6B", 80, model_starts("0.6b", {1: 4, 10: 50})),
    ],
    "2,3": [("two GPUs", 200, two_gpus), ("32B", 150, on_first_gpu(model_starts("32b", WIDE)))],
    "0,1,2,3": [("four GPUs", 150, four_gpus)],
}
CORES = {"0": (0, 0.25), "1": (0.25, 0.5), "2,3": (0.5, 1)}

if __name__ == "__main__":
    os.environ.update(BASE_ENVIRONMENT)
    RESULTS.mkdir(parents=True, exist_ok=True)
    lane = os.environ["CUDA_VISIBLE_DEVICES"]
    cores = sorted(os.sched_getaffinity(0))
    if lane in CORES:  # so that one lane's compiling does not slow the other's measuring
        first, last = (int(len(cores) * share) for share in CORES[lane])
        os.sched_setaffinity(0, set(cores[first:last]))
    run(LANES[lane], float(sys.argv[1]))
