"""First session: where a cold start goes, what shortens it, which serving settings matter, what vLLM says of memory.

Usage: session_1.py SECONDS     (tasks that would not end in time are left out, and named)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import BASE_ENVIRONMENT, HOME, RESULTS, Server, Zygote, bench, memory_probe, record, served, wait_for_free_gpu

CACHES = HOME / "caches"
FORK = {"VLLM_WORKER_MULTIPROC_METHOD": "fork"}
RUST = {"VLLM_USE_RUST_FRONTEND": "1"}
NO_AUTOTUNE = ("--no-enable-flashinfer-autotune",)
FEW_GRAPHS = (
    "--compilation-config",
    '{"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]}',
)
# The collector off while importing, on again before serving.
GC_OFF = "import gc, sys; gc.disable(); from vllm.entrypoints.cli.main import main; gc.enable(); sys.argv[0] = 'vllm'; main()"


def cache(name: str) -> dict[str, str]:
    """The environment of a kept cache, as the plan sets it."""
    root = str(CACHES / name)
    return {
        "VLLM_CACHE_ROOT": root,
        "TORCHINDUCTOR_CACHE_DIR": f"{root}/inductor",
        "TRITON_CACHE_DIR": f"{root}/triton",
        "FLASHINFER_WORKSPACE_BASE": root,
        "VLLM_ENABLE_STARTUP_PLAN": "1",
    }


def boot_once(server: Server, **labels: object) -> None:
    """Boot, ask for one token, stop."""
    with served(server, **labels):
        pass


def shell(name: str, command: str) -> None:
    """Run a command, time it, keep the end of what it printed."""
    began = time.monotonic()
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    (RESULTS / f"{name}.txt").write_text(done.stdout + done.stderr)
    record("shell", name=name, status=done.returncode, seconds=round(time.monotonic() - began, 2), tail=(done.stdout + done.stderr)[-300:])  # fmt: skip


def imports() -> None:
    """What the imports cost: without bytecode, with it, with the collector off, and which modules."""
    module = "vllm.entrypoints.cli.serve"
    shell("facts", "nvidia-smi; python3 -V; python3 -m pip list 2>/dev/null | grep -iE '^(torch|triton|transformers|vllm|numpy) '; nproc; uname -r; find ~/site -name '*.pyc' | wc -l")  # fmt: skip
    shell("import-without-bytecode", f"PYTHONDONTWRITEBYTECODE=1 python3 -c 'import {module}'")
    shell("import-without-bytecode-again", f"PYTHONDONTWRITEBYTECODE=1 python3 -c 'import {module}'")
    shell("compileall", "python3 -m compileall -q -j 16 ~/site >/dev/null 2>&1; python3 -m compileall -q -j 16 $(python3 -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])') >/dev/null 2>&1")  # fmt: skip
    shell("import-with-bytecode", f"python3 -c 'import {module}'")
    shell("import-with-bytecode-again", f"python3 -c 'import {module}'")
    shell("import-collector-off", f"python3 -c 'import gc; gc.disable(); import {module}'")
    shell("import-torch", "python3 -c 'import torch'")
    shell("importtime", f"python3 -X importtime -c 'import {module}' 2>&1 | sort -t'|' -k2 -n | tail -150")


def starts_of_4b(zygote: Zygote) -> None:
    """One model, started in every way worth a measurement."""
    del zygote
    kept = cache("4b")
    boot_once(Server("4b-empty", "qwen3-4b", environment=kept))
    boot_once(Server("4b-kept", "qwen3-4b", environment=kept))
    boot_once(Server("4b-kept-fork", "qwen3-4b", environment=kept | FORK))
    boot_once(Server("4b-eager", "qwen3-4b", ("--enforce-eager",), cache("4b-eager")))
    boot_once(Server("4b-eager-again-fork", "qwen3-4b", ("--enforce-eager",), cache("4b-eager") | FORK))
    boot_once(Server("4b-kept-fork-rust", "qwen3-4b", environment=kept | FORK | RUST))
    boot_once(Server("4b-kept-fork-noautotune", "qwen3-4b", NO_AUTOTUNE, kept | FORK))
    boot_once(Server("4b-kept-fork-gcoff", "qwen3-4b", environment=kept | FORK, python=(sys.executable, "-c", GC_OFF)))


def sampled_start(zygote: Zygote) -> None:
    """A kept-cache start under a sampling profiler, for the seconds that the log does not name."""
    del zygote
    prefix = ("py-spy", "record", "--subprocesses", "--rate", "40", "--format", "raw", "--nonblocking", "--duration", "60",
              "--output", str(RESULTS / "pyspy.txt"), "--")  # fmt: skip
    server = Server("4b-kept-fork-sampled", "qwen3-4b", environment=cache("4b") | FORK, prefix=prefix)
    if server.boot():
        time.sleep(max(0.0, 64 - (time.monotonic() - server.started)))  # py-spy writes when its time is up
        server.stop()
    wait_for_free_gpu()


def fewer_graphs(zygote: Zygote) -> None:
    """15 capture sizes instead of 51."""
    del zygote
    for name in ("4b-fewgraphs-new", "4b-fewgraphs-kept"):
        boot_once(Server(name, "qwen3-4b", FEW_GRAPHS, cache("4b") | FORK))


def explore(zygote: Zygote) -> None:
    """Five configurations side by side on the GPU, loaded in turn: which is worth a run of its own?"""
    shared = ("--gpu-memory-utilization", "0.15", "--kv-cache-memory-bytes", str(14 << 30))
    fused = ("--compilation-config", '{"pass_config": {"enable_qk_norm_rope_fusion": true}}')
    variants: list[tuple[str, Sequence[str], dict[str, str]]] = [
        ("x-default", (), {}),
        ("x-interactivity", ("--performance-mode", "interactivity"), {}),
        ("x-rust", (), RUST),
        ("x-fp8", ("--quantization", "fp8"), {}),
        ("x-qknormrope", fused, {}),
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
            alive.append(server)
        else:
            record("died", name=server.name, tail=server.log.read_text()[-1500:])
            server.stop()
    for round_number, concurrencies in enumerate([(1, 10, 16, 64, 256), (10, 64, 256)]):
        for concurrency in concurrencies:
            for server in alive:
                prompts = 8 if concurrency == 1 else max(50, min(concurrency * 5, 1024))
                bench(zygote, server, concurrency, prompts=prompts, seed=round_number, tag=f"-r{round_number}")
    for server in alive:
        server.stop()
    wait_for_free_gpu()


def eager_probes(zygote: Zygote) -> None:
    """What the engine reports of memory, eager, in 11 configurations."""
    probes: list[tuple[str, str, dict[str, object]]] = [
        ("0.6b", "qwen3-0.6b", {}),
        ("4b", "qwen3-4b", {}),
        ("8b", "qwen3-8b", {}),
        ("32b", "qwen3-32b", {}),
        ("4b-fp8", "qwen3-4b", {"quantization": "fp8"}),
        ("8b-fp8", "qwen3-8b", {"quantization": "fp8"}),
        ("32b-fp8", "qwen3-32b", {"quantization": "fp8"}),
        ("4b-kvfp8", "qwen3-4b", {"kv_cache_dtype": "fp8"}),
        ("4b-small-batch", "qwen3-4b", {"max_num_batched_tokens": 2048, "max_num_seqs": 256}),
        ("4b-large-batch", "qwen3-4b", {"max_num_batched_tokens": 32768, "max_num_seqs": 1024}),
        ("4b-seed001", "qwen3-4b", {"max_num_batched_tokens": 10240, "max_num_seqs": 12, "gpu_memory_utilization": 0.95, "max_model_len": 32768}),
        ("0.6b-many-seqs", "qwen3-0.6b", {"max_num_batched_tokens": 8192, "max_num_seqs": 4096}),
    ]  # fmt: skip
    for name, model, engine in probes:
        memory_probe(zygote, f"eager-{name}", model, cache("probes"), **engine)


def compiled_probes(zygote: Zygote) -> None:
    """The same, compiled, without graphs: they come after the cache is sized."""
    compiled: dict[str, object] = {"enforce_eager": False, "compilation_config": {"cudagraph_mode": "NONE"}}
    memory_probe(zygote, "compiled-4b", "qwen3-4b", cache("probes"), **compiled)
    small: dict[str, object] = {"max_num_batched_tokens": 2048, "max_num_seqs": 256}
    memory_probe(zygote, "compiled-4b-small-batch", "qwen3-4b", cache("probes"), **small, **compiled)
    memory_probe(zygote, "compiled-4b-fp8", "qwen3-4b", cache("probes"), quantization="fp8", **compiled)


def step_profile(zygote: Zygote) -> None:
    """GPU time of a decode step by kernel, bf16 and fp8, at 1, 10 and 64 streams."""
    for name, engine in (("bf16", {}), ("fp8", {"quantization": "fp8"})):
        arguments = {
            "environment": cache("x-fp8" if name == "fp8" else "4b"),
            "engine": {"model": str(HOME / "models/qwen3-4b"), "load_format": "dummy", "max_model_len": 8192, "max_num_batched_tokens": 8192, "max_num_seqs": 1024, **engine},
            "batches": [1, 10, 64],
        }  # fmt: skip
        output = RESULTS / f"profile-{name}.txt"
        status = zygote.run("profile", output, arguments, 120)
        lines = [line for line in output.read_text().splitlines() if line.startswith("PROFILE")]
        record("profile", name=name, status=status, lines=lines)
        wait_for_free_gpu()


def ledger(model: str) -> Callable[[Zygote], None]:
    """Eager, empty and kept, as stock vLLM starts, and the kept one forked."""

    def task(zygote: Zygote) -> None:
        del zygote
        short = model.removeprefix("qwen3-")
        boot_once(Server(f"{short}-empty", model, environment=cache(short)))
        boot_once(Server(f"{short}-kept", model, environment=cache(short)))
        boot_once(Server(f"{short}-kept-fork", model, environment=cache(short) | FORK))
        boot_once(Server(f"{short}-eager", model, ("--enforce-eager",), cache(f"{short}-eager")))

    return task


TASKS: list[tuple[str, int, Callable[[Zygote], None]]] = [
    ("starts of 4B", 360, starts_of_4b),
    ("explore", 300, explore),
    ("eager probes", 140, eager_probes),
    ("step profile", 90, step_profile),
    ("fewer graphs", 90, fewer_graphs),
    ("sampled start", 70, sampled_start),
    ("compiled probes", 120, compiled_probes),
    ("ledger 0.6B", 150, ledger("qwen3-0.6b")),
    ("ledger 8B", 200, ledger("qwen3-8b")),
    ("ledger 32B", 280, ledger("qwen3-32b")),
]


def run(tasks: list[tuple[str, int, Callable[[Zygote], None]]], seconds: float) -> None:
    """Each task whose estimate still fits, in order."""
    began = time.monotonic()
    RESULTS.mkdir(parents=True, exist_ok=True)
    zygote = Zygote()
    for name, estimate, task in tasks:
        left = seconds - (time.monotonic() - began)
        if estimate > left:
            record("skipped", name=name, estimate=estimate, left=round(left))
            continue
        started = time.monotonic()
        try:
            task(zygote)
        except Exception as error:
            record("failed", name=name, error=repr(error)[:500])
        record("task", name=name, seconds=round(time.monotonic() - started, 1))
    Path(RESULTS / "done").touch()


if __name__ == "__main__":
    import os

    os.environ.update(BASE_ENVIRONMENT)
    RESULTS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    imports()
    run(TASKS, float(sys.argv[1]) - (time.monotonic() - began))
