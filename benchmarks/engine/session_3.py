"""Third session, the comparison: seed 000, seed 001, vLLM's defaults and ours, one after the other on one GPU; bytecode.

Usage: session_3.py SECONDS
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from lab import BASE_ENVIRONMENT, HOME, RESULTS, Server, Zygote, bench, make_variant, record, served, wait_for_free_gpu
from session_1 import FEW_GRAPHS, FORK, boot_once, cache, run, shell
from session_2 import FP8_BLOCKS, SIZES

OURS = ("--compilation-config", f'{{"cudagraph_capture_sizes": {SIZES}, "compile_sizes": [1]}}')
EAGER = ("--enforce-eager",)
SEED_001 = (
    "--max-num-seqs", "12", "--max-num-batched-tokens", "10240", "--gpu-memory-utilization", "0.95",
    "--max-model-len", "32768",
)  # fmt: skip
# concurrency -> prompts: five rounds where a round is short, three where it is not.
LOAD = {1: 6, 10: 50, 16: 80, 64: 320, 100: 400, 256: 1024}
SLOW_LOAD = {1: 4, 10: 30, 16: 48, 64: 192, 256: 768}
NARROW_LOAD = {1: 6, 10: 50, 16: 64, 64: 192, 256: 384}


def loaded(server: Server, load: dict[int, int], tag: str = "") -> Callable[[Zygote], None]:
    """Boot a server and put each load on it."""

    def task(zygote: Zygote) -> None:
        with served(server) as came_up:
            for concurrency, prompts in load.items():
                if came_up:
                    bench(zygote, server, concurrency, prompts=prompts, tag=tag)

    return task


def bytecode(zygote: Zygote) -> None:
    """Kept compile cache, but Python's bytecode missing altogether; then kept in a folder of its own and read back."""
    del zygote
    elsewhere = {"PYTHONPYCACHEPREFIX": str(HOME / "nowhere"), "PYTHONDONTWRITEBYTECODE": "1"}
    boot_once(Server("z-default-kept-nobytecode", "qwen3-4b", environment=cache("z-default") | elsewhere))
    kept = {"PYTHONPYCACHEPREFIX": str(HOME / "pycache"), "PYTHONDONTWRITEBYTECODE": ""}
    boot_once(Server("z-ours-kept-pycache-new", "qwen3-4b", OURS, cache("z-ours") | FORK | kept))
    boot_once(Server("z-ours-kept-pycache-kept", "qwen3-4b", OURS, cache("z-ours") | FORK | kept))
    shell("sizes", "du -sm ~/pycache ~/caches/*; find ~/pycache -name '*.pyc' | wc -l")


def step_profile(zygote: Zygote) -> None:
    """GPU time of our decode step by kernel, at one and ten streams."""
    arguments = {
        "environment": cache("z-ours"),
        "engine": {
            "model": str(HOME / "models/qwen3-4b"), "load_format": "dummy", "max_model_len": 8192,
            "max_num_batched_tokens": 8192, "max_num_seqs": 1024,
            "compilation_config": {"cudagraph_capture_sizes": [1, 2, 4, 8, 16], "compile_sizes": [1]},
        },
        "batches": [1, 10],
    }  # fmt: skip
    output = RESULTS / "profile-ours.txt"
    status = zygote.run("profile", output, arguments, 150)
    lines = [line for line in output.read_text().splitlines() if line.startswith("PROFILE")]
    record("profile", name="ours", status=status, lines=lines)
    wait_for_free_gpu()


def without_deepgemm(zygote: Zygote) -> None:
    """The FP8 checkpoint's speed and start without DeepGEMM."""
    make_variant("qwen3-32b-fp8", "qwen3-32b", **FP8_BLOCKS)
    environment = cache("32b-fp8") | FORK | {"VLLM_USE_DEEP_GEMM": "0"}
    loaded(Server("32b-fp8-blocks-nodeepgemm", "qwen3-32b-fp8", FEW_GRAPHS, environment), {1: 3, 10: 30, 64: 192})(
        zygote
    )


DEFAULT = Server("z-default", "qwen3-4b", environment=cache("z-default"))
OURS_SERVER = Server("z-ours", "qwen3-4b", OURS, cache("z-ours") | FORK)
TASKS = [
    ("defaults, empty cache", 110, loaded(DEFAULT, LOAD)),
    ("ours, empty cache", 120, loaded(OURS_SERVER, LOAD)),
    ("seed 000", 130, loaded(Server("z-eager", "qwen3-4b", EAGER, cache("z-eager")), SLOW_LOAD)),
    ("defaults, kept cache", 80, loaded(Server("z-default-kept", "qwen3-4b", environment=cache("z-default")), LOAD)),
    ("ours, kept cache", 75, loaded(Server("z-ours-kept", "qwen3-4b", OURS, cache("z-ours") | FORK), LOAD)),
    ("bytecode", 110, bytecode),
    ("seed 001", 130, loaded(Server("z-seed001", "qwen3-4b", SEED_001, cache("z-seed001")), NARROW_LOAD)),
    ("step profile", 60, step_profile),
    ("without DeepGEMM", 120, without_deepgemm),
]

if __name__ == "__main__":
    began = time.monotonic()
    os.environ.update(BASE_ENVIRONMENT)
    RESULTS.mkdir(parents=True, exist_ok=True)
    shell("compileall", "python3 -m compileall -q -j 16 ~/site $(python3 -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])') >/dev/null 2>&1")  # fmt: skip
    run(TASKS, float(sys.argv[1]) - (time.monotonic() - began))
