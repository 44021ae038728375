"""Second session: the candidates that the first one left, the FP8 checkpoint that `prod` serves, more memory probes.

Usage: session_2.py SECONDS
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from lab import (
    BASE_ENVIRONMENT,
    HOME,
    RESULTS,
    Server,
    Zygote,
    bench,
    bench_by_many,
    make_variant,
    memory_probe,
    record,
    served,
    wait_for_free_gpu,
)
from session_1 import CACHES, FEW_GRAPHS, FORK, GC_OFF, RUST, boot_once, cache, run, shell

SIZES = "[1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]"
FP8_BLOCKS = {
    "quantization_config": {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
    }
}
NO_PLAN = {"VLLM_ENABLE_STARTUP_PLAN": "0"}
# What one A10G offers to vLLM at 0.92 (20.3 GiB), taken from this GPU; its default batch is 2,048 tokens, 256 sequences.
AS_ON_A10G = ("--gpu-memory-utilization", "0.1452", "--max-num-batched-tokens", "2048", "--max-num-seqs", "256")


def starts(zygote: Zygote) -> None:
    """The kept-cache start of 4B with fewer graphs: forked, with the collector off while importing, again, spawned."""
    del zygote
    kept = cache("4b")
    boot_once(Server("4b-few-empty-fork", "qwen3-4b", FEW_GRAPHS, kept | FORK))
    boot_once(Server("4b-few-kept-fork", "qwen3-4b", FEW_GRAPHS, kept | FORK))
    collector_off = (sys.executable, "-c", GC_OFF)
    boot_once(Server("4b-few-kept-fork-gcoff", "qwen3-4b", FEW_GRAPHS, kept | FORK, python=collector_off))
    boot_once(Server("4b-few-kept-fork-again", "qwen3-4b", FEW_GRAPHS, kept | FORK))
    boot_once(Server("4b-few-kept-fork-gcoff-again", "qwen3-4b", FEW_GRAPHS, kept | FORK, python=collector_off))
    boot_once(Server("4b-few-kept-spawn", "qwen3-4b", FEW_GRAPHS, kept))
    boot_once(Server("4b-few-kept-fork-noplan", "qwen3-4b", FEW_GRAPHS, kept | FORK | NO_PLAN))


def fp8_checkpoint(zygote: Zygote) -> None:
    """Qwen3-32B-FP8's kind of checkpoint (128 x 128 blocks), with and without DeepGEMM."""
    make_variant("qwen3-32b-fp8", "qwen3-32b", **FP8_BLOCKS)
    boot_once(Server("32b-fp8-blocks-empty", "qwen3-32b-fp8", FEW_GRAPHS, cache("32b-fp8") | FORK))
    for name, environment in (("deepgemm", {}), ("nodeepgemm", {"VLLM_USE_DEEP_GEMM": "0"})):
        server = Server(f"32b-fp8-blocks-{name}", "qwen3-32b-fp8", FEW_GRAPHS, cache("32b-fp8") | FORK | environment)
        with served(server) as came_up:
            for concurrency, prompts in ((1, 3), (10, 30), (64, 192)):
                if came_up:
                    bench(zygote, server, concurrency, prompts=prompts)


def explore(zygote: Zygote) -> None:
    """Front ends, statically compiled sizes and fewer graphs, side by side, loaded in turn by one and by four clients."""
    shared = ("--gpu-memory-utilization", "0.15", "--kv-cache-memory-bytes", str(14 << 30))
    static = ("--compilation-config", f'{{"cudagraph_capture_sizes": {SIZES}, "compile_sizes": [1, 2, 4, 8, 16]}}')
    variants: list[tuple[str, Sequence[str], dict[str, str]]] = [
        ("y-default", (), {}),
        ("y-few", FEW_GRAPHS, {}),
        ("y-static", static, {}),
        ("y-rust", FEW_GRAPHS, RUST),
        ("y-api2", (*FEW_GRAPHS, "--api-server-count", "2"), {}),
    ]
    servers = []
    for number, (name, flags, environment) in enumerate(variants):
        shutil.copytree(CACHES / "4b", CACHES / name, dirs_exist_ok=True)
        server = Server(name, "qwen3-4b", (*shared, *flags), cache(name) | FORK | environment, port=8100 + number)
        server.start()
        servers.append(server)
    alive = []
    for server in servers:
        if server.ready():
            server.first_token()
            record("up", name=server.name, ready_seconds=round(server.ready_seconds, 1))
            alive.append(server)
        else:
            record("died", name=server.name, tail=server.log.read_text()[-1500:])
            server.stop()
    for concurrency, prompts in ((1, 6), (10, 50), (20, 100), (40, 160)):
        for server in alive:
            bench(zygote, server, concurrency, prompts=prompts, tag="-r0")
    for round_number in range(2):
        for server in alive:
            bench_by_many(zygote, server, 256, 4, prompts=1024, seed=round_number, tag=f"-r{round_number}")
    for server in alive:
        server.stop()
    wait_for_free_gpu()


def probes(zygote: Zygote) -> None:
    """Memory: a mixture of experts, many sequences, a large batch compiled, and the room that an A10G has."""
    make_variant(
        "qwen3-30b-a3b", "qwen3-4b", architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", hidden_size=2048,
        intermediate_size=6144, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, num_hidden_layers=48,
        num_attention_heads=32, num_key_value_heads=4, tie_word_embeddings=False, norm_topk_prob=True,
        decoder_sparse_step=1, mlp_only_layers=[],
    )  # fmt: skip
    environment = cache("probes") | NO_PLAN
    memory_probe(zygote, "eager-0.6b-many-seqs", "qwen3-0.6b", environment, max_num_seqs=4096)
    memory_probe(zygote, "eager-30b-a3b", "qwen3-30b-a3b", environment)
    compiled: dict[str, object] = {"enforce_eager": False, "compilation_config": {"cudagraph_mode": "NONE"}}
    memory_probe(zygote, "compiled-4b-large-batch", "qwen3-4b", environment, max_num_batched_tokens=32768, **compiled)
    memory_probe(zygote, "compiled-30b-a3b", "qwen3-30b-a3b", environment, **compiled)
    for name in ("4b-a10g-room-first", "4b-a10g-room-kept"):
        boot_once(Server(name, "qwen3-4b", (*FEW_GRAPHS, *AS_ON_A10G), cache("a10g") | FORK))


def bytecode(zygote: Zygote) -> None:
    """The kept-cache start where no bytecode was compiled, and with the bytecode kept beside the compile cache."""
    del zygote
    subprocess.run(["bash", "-c", "find ~/site -name '*.pyc' -delete"], check=True)
    kept = cache("4b")
    without = {"PYTHONDONTWRITEBYTECODE": "1"}
    boot_once(Server("4b-few-kept-spawn-nobytecode", "qwen3-4b", FEW_GRAPHS, kept | without))
    prefix = {"PYTHONPYCACHEPREFIX": str(HOME / "pycache")}
    boot_once(Server("4b-few-kept-fork-pycache-new", "qwen3-4b", FEW_GRAPHS, kept | FORK | prefix))
    boot_once(Server("4b-few-kept-fork-pycache-kept", "qwen3-4b", FEW_GRAPHS, kept | FORK | prefix))
    shell("pycache-size", "du -sm ~/pycache; find ~/pycache -name '*.pyc' | wc -l; du -sm ~/caches/*")


TASKS = [
    ("starts", 200, starts),
    ("explore", 380, explore),
    ("probes", 130, probes),
    ("FP8 checkpoint", 200, fp8_checkpoint),
    ("bytecode", 90, bytecode),
]

if __name__ == "__main__":
    began = time.monotonic()
    os.environ.update(BASE_ENVIRONMENT)
    RESULTS.mkdir(parents=True, exist_ok=True)
    shell("compileall", "python3 -m compileall -q -j 16 ~/site $(python3 -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])') >/dev/null 2>&1")  # fmt: skip
    run(TASKS, float(sys.argv[1]) - (time.monotonic() - began))
