"""Cold starts: where the time goes, and the effect of caches, bytecode, forking, fewer CUDA graphs and other options.

python -m benchmarks.engine.start_options 1800
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from benchmarks.engine.lab import HOME, RESULTS, Server, wait_for_free_gpu
from benchmarks.engine.tasks import (
    COMPILE_BYTECODE,
    FEW_GRAPHS,
    FORK,
    NO_BYTECODE,
    STARTUP_PLAN,
    Task,
    boot_once,
    cache,
    main,
    shell,
)
from benchmarks.engine.zygote import Zygote

RUST = {"VLLM_USE_RUST_FRONTEND": "1"}
NO_AUTOTUNE = ("--no-enable-flashinfer-autotune",)
NO_PLAN = {"VLLM_ENABLE_STARTUP_PLAN": "0"}
# Disable the garbage collector during imports, and enable it again before serving.
GC_OFF = "import gc, sys; gc.disable(); from vllm.entrypoints.cli.main import main; gc.enable(); sys.argv[0] = 'vllm'; main()"
COLLECTOR_OFF = (sys.executable, "-c", GC_OFF)
KEPT = cache("4b") | STARTUP_PLAN


def imports() -> None:
    """The cost of importing vLLM: without bytecode, with it, without the garbage collector, and by module."""
    module = "vllm.entrypoints.cli.serve"
    packages = "python3 -m pip list 2>/dev/null | grep -iE '^(torch|triton|transformers|vllm|numpy) '"
    shell("facts", f"nvidia-smi; python3 -V; {packages}; nproc; uname -r; find ~/site -name '*.pyc' | wc -l")
    shell("import-without-bytecode", f"PYTHONDONTWRITEBYTECODE=1 python3 -c 'import {module}'")
    shell("import-without-bytecode-again", f"PYTHONDONTWRITEBYTECODE=1 python3 -c 'import {module}'")
    shell("compileall", COMPILE_BYTECODE)
    shell("import-with-bytecode", f"python3 -c 'import {module}'")
    shell("import-with-bytecode-again", f"python3 -c 'import {module}'")
    shell("import-collector-off", f"python3 -c 'import gc; gc.disable(); import {module}'")
    shell("import-torch", "python3 -c 'import torch'")
    shell("importtime", f"python3 -X importtime -c 'import {module}' 2>&1 | sort -t'|' -k2 -n | tail -150")


def starts_of_4b(zygote: Zygote) -> None:
    """One model, with each option that affects a start."""
    del zygote
    boot_once(Server("4b-empty", "qwen3-4b", environment=KEPT))
    boot_once(Server("4b-kept", "qwen3-4b", environment=KEPT))
    boot_once(Server("4b-kept-fork", "qwen3-4b", environment=KEPT | FORK))
    eager = cache("4b-eager") | STARTUP_PLAN
    boot_once(Server("4b-eager", "qwen3-4b", ("--enforce-eager",), eager))
    boot_once(Server("4b-eager-again-fork", "qwen3-4b", ("--enforce-eager",), eager | FORK))
    boot_once(Server("4b-kept-fork-rust", "qwen3-4b", environment=KEPT | FORK | RUST))
    boot_once(Server("4b-kept-fork-noautotune", "qwen3-4b", NO_AUTOTUNE, KEPT | FORK))
    boot_once(Server("4b-kept-fork-gcoff", "qwen3-4b", environment=KEPT | FORK, python=COLLECTOR_OFF))


def fewer_graphs(zygote: Zygote) -> None:
    """15 CUDA graph sizes instead of 51, combined with the other options."""
    del zygote
    boot_once(Server("4b-few-empty-fork", "qwen3-4b", FEW_GRAPHS, KEPT | FORK))
    for again in ("", "-again"):
        boot_once(Server(f"4b-few-kept-fork{again}", "qwen3-4b", FEW_GRAPHS, KEPT | FORK))
        boot_once(Server(f"4b-few-kept-fork-gcoff{again}", "qwen3-4b", FEW_GRAPHS, KEPT | FORK, python=COLLECTOR_OFF))
    boot_once(Server("4b-few-kept-spawn", "qwen3-4b", FEW_GRAPHS, KEPT))
    boot_once(Server("4b-few-kept-fork-noplan", "qwen3-4b", FEW_GRAPHS, KEPT | FORK | NO_PLAN))


def sampled_start(zygote: Zygote) -> None:
    """A start with caches under a sampling profiler, for the seconds that the log does not explain."""
    del zygote
    prefix = ("py-spy", "record", "--subprocesses", "--rate", "40", "--format", "raw", "--nonblocking", "--duration", "60",
              "--output", str(RESULTS / "pyspy.txt"), "--")  # fmt: skip
    server = Server("4b-kept-fork-sampled", "qwen3-4b", environment=KEPT | FORK, prefix=prefix)
    if server.boot():
        time.sleep(max(0.0, 64 - (time.monotonic() - server.started)))  # py-spy writes its file after --duration
        server.stop()
    wait_for_free_gpu()


def bytecode(zygote: Zygote) -> None:
    """Starts with a compile cache: without bytecode, and with bytecode stored next to the compile cache."""
    del zygote
    boot_once(Server("4b-kept-nobytecode", "qwen3-4b", environment=KEPT | NO_BYTECODE))
    boot_once(Server("4b-few-kept-spawn-nobytecode", "qwen3-4b", FEW_GRAPHS, KEPT | NO_BYTECODE))
    stored = {"PYTHONPYCACHEPREFIX": str(HOME / "pycache"), "PYTHONDONTWRITEBYTECODE": ""}
    boot_once(Server("4b-few-kept-fork-pycache-new", "qwen3-4b", FEW_GRAPHS, KEPT | FORK | stored))
    boot_once(Server("4b-few-kept-fork-pycache-kept", "qwen3-4b", FEW_GRAPHS, KEPT | FORK | stored))
    shell("pycache-size", "du -sm ~/pycache ~/caches/*; find ~/pycache -name '*.pyc' | wc -l")


def starts_of(model: str) -> Callable[[Zygote], None]:
    """Starts of another model: empty cache, compile cache, forked, eager."""

    def task(zygote: Zygote) -> None:
        del zygote
        short = model.removeprefix("qwen3-")
        kept = cache(short) | STARTUP_PLAN
        boot_once(Server(f"{short}-empty", model, environment=kept))
        boot_once(Server(f"{short}-kept", model, environment=kept))
        boot_once(Server(f"{short}-kept-fork", model, environment=kept | FORK))
        boot_once(Server(f"{short}-eager", model, ("--enforce-eager",), cache(f"{short}-eager") | STARTUP_PLAN))

    return task


TASKS: list[Task] = [
    ("starts of 4B", 360, starts_of_4b),
    ("fewer graphs", 200, fewer_graphs),
    ("bytecode", 120, bytecode),
    ("sampled start", 70, sampled_start),
    ("starts of 0.6B", 150, starts_of("qwen3-0.6b")),
    ("starts of 8B", 200, starts_of("qwen3-8b")),
    ("starts of 32B", 280, starts_of("qwen3-32b")),
]

if __name__ == "__main__":
    main(__doc__, TASKS, imports)
