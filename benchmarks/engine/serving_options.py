"""The effect of serving options on throughput: servers side by side on one GPU, and block FP8 with and without DeepGEMM.

python -m benchmarks.engine.serving_options 900
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.engine.lab import Server, bench_by_many, make_variant
from benchmarks.engine.tasks import (
    FEW_GRAPHS,
    FORK,
    FP8_BLOCKS,
    SIZES,
    Task,
    boot_and_bench,
    boot_once,
    cache,
    compile_bytecode,
    in_turn,
    main,
    measure_side_by_side,
    sharing,
    side_by_side,
)
from benchmarks.engine.zygote import Zygote

RUST = {"VLLM_USE_RUST_FRONTEND": "1"}
KV_CACHE_GIB = 14
Option = tuple[str, Sequence[str], dict[str, str]]
"""Name, flags and environment."""


def _servers(options: Sequence[Option]) -> list[Server]:
    shared = sharing(KV_CACHE_GIB)
    return [
        Server(name, "qwen3-4b", (*shared, *flags), cache(name) | FORK | environment)
        for name, flags, environment in options
    ]


def engine_options(zygote: Zygote) -> None:
    """Performance mode, Rust front end, FP8 weights and a fused kernel, compared with vLLM's defaults."""
    fused = ("--compilation-config", '{"pass_config": {"enable_qk_norm_rope_fusion": true}}')
    options: list[Option] = [
        ("x-default", (), {}),
        ("x-interactivity", ("--performance-mode", "interactivity"), {}),
        ("x-rust", (), RUST),
        ("x-fp8", ("--quantization", "fp8"), {}),
        ("x-qknormrope", fused, {}),
    ]
    rounds = [{1: 8, 10: 50, 16: 80, 64: 320, 256: 1024}, {10: 50, 64: 320, 256: 1024}]
    measure_side_by_side(zygote, [(server, rounds) for server in _servers(options)], 8100)


def graphs_and_front_ends(zygote: Zygote) -> None:
    """Fewer CUDA graphs, statically compiled sizes, and front ends, with load from one and from four clients."""
    static = ("--compilation-config", f'{{"cudagraph_capture_sizes": {SIZES}, "compile_sizes": [1, 2, 4, 8, 16]}}')
    options: list[Option] = [
        ("y-default", (), {}),
        ("y-few", FEW_GRAPHS, {}),
        ("y-static", static, {}),
        ("y-rust", FEW_GRAPHS, RUST),
        ("y-api2", (*FEW_GRAPHS, "--api-server-count", "2"), {}),
    ]
    with side_by_side(_servers(options), 8100) as alive:
        in_turn(zygote, alive, {server.name: [{1: 6, 10: 50, 20: 100, 40: 160}] for server in alive})
        for number in range(2):
            for server in alive:
                bench_by_many(zygote, server, 256, 4, prompts=1024, seed=number, tag=f"-r{number}")


def fp8_checkpoint(zygote: Zygote) -> None:
    """A checkpoint like Qwen3-32B-FP8 (128 x 128 blocks), with and without DeepGEMM."""
    make_variant("qwen3-32b-fp8", "qwen3-32b", **FP8_BLOCKS)
    environment = cache("32b-fp8") | FORK
    boot_once(Server("32b-fp8-blocks-empty", "qwen3-32b-fp8", FEW_GRAPHS, environment))
    for name, more in (("deepgemm", {}), ("nodeepgemm", {"VLLM_USE_DEEP_GEMM": "0"})):
        server = Server(f"32b-fp8-blocks-{name}", "qwen3-32b-fp8", FEW_GRAPHS, environment | more)
        boot_and_bench(zygote, server, {1: 3, 10: 30, 64: 192})


TASKS: list[Task] = [
    ("engine options", 300, engine_options),
    ("graphs and front ends", 380, graphs_and_front_ends),
    ("FP8 checkpoint", 200, fp8_checkpoint),
]

if __name__ == "__main__":
    main(__doc__, TASKS, compile_bytecode)
