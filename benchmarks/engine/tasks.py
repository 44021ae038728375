"""What the engine's benchmarks share: their command line, a list of tasks with a time limit, and common tasks."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmarks.engine.lab import HOME, RESULTS, Server, bench, record, served, wait_for_free_gpu
from benchmarks.engine.zygote import BASE_ENVIRONMENT, Zygote

SETUP = """
Requires vLLM and an NVIDIA GPU; pynvml reads its memory. ~/models/qwen3-0.6b, -4b, -8b and -32b must contain config.json
and the tokenizer of the model of that name; the weights are random. Results are written to ~/results.
"""
CACHES = HOME / "caches"
FORK, SPAWN = ({"VLLM_WORKER_MULTIPROC_METHOD": how} for how in ("fork", "spawn"))
STARTUP_PLAN = {"VLLM_ENABLE_STARTUP_PLAN": "1"}
NO_BYTECODE = {"PYTHONPYCACHEPREFIX": str(HOME / "nowhere"), "PYTHONDONTWRITEBYTECODE": "1"}
COMPILE_BYTECODE = (
    "python3 -m compileall -q -j 16 ~/site $(python3 -c 'import torch, pathlib; "
    "print(pathlib.Path(torch.__file__).parents[1])') >/dev/null 2>&1"
)
SIZES = "[1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]"
FEW_GRAPHS = ("--compilation-config", f'{{"cudagraph_capture_sizes": {SIZES}}}')
FP8_BLOCKS = {
    "quantization_config": {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
    }
}  # fmt: skip
Load = Mapping[int, int]
"""Concurrent requests -> number of prompts."""
Task = tuple[str, int, Callable[[Zygote], None]]
"""Name, estimated seconds, and what to run."""


def parser_of(description: str) -> argparse.ArgumentParser:
    """The command line of a benchmark: a number of seconds."""
    parser = argparse.ArgumentParser(
        description=f"{description}\n{SETUP.strip()}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seconds", type=float, help="time limit; tasks that would exceed it are skipped and recorded")
    return parser


def main(description: str, tasks: Sequence[Task], first: Callable[[], None] = lambda: None) -> None:
    """Parse the command line, then run the tasks."""
    seconds = parser_of(description).parse_args().seconds
    began = time.monotonic()
    start_recording()
    first()
    run(tasks, seconds - (time.monotonic() - began))


def start_recording() -> None:
    """Create the folder for results, and set the environment that every process inherits."""
    os.environ.update(BASE_ENVIRONMENT)
    RESULTS.mkdir(parents=True, exist_ok=True)


def run(tasks: Sequence[Task], seconds: float) -> None:
    """Run the tasks in order, except those whose estimate exceeds the remaining time."""
    began = time.monotonic()
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
    (RESULTS / "done").touch()


def cache(name: str) -> dict[str, str]:
    """The environment that puts every compile cache into a folder of this name."""
    root = str(CACHES / name)
    return {
        "VLLM_CACHE_ROOT": root,
        "TORCHINDUCTOR_CACHE_DIR": f"{root}/inductor",
        "TRITON_CACHE_DIR": f"{root}/triton",
        "FLASHINFER_WORKSPACE_BASE": root,
    }


def shell(name: str, command: str) -> None:
    """Run a shell command, and record its duration and the end of its output."""
    began = time.monotonic()
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    (RESULTS / f"{name}.txt").write_text(output)
    seconds = round(time.monotonic() - began, 2)
    record("shell", name=name, status=done.returncode, seconds=seconds, tail=output[-300:])


def compile_bytecode() -> None:
    """Compile the bytecode of all installed packages, so that no start includes it."""
    shell("compileall", COMPILE_BYTECODE)


def boot_once(server: Server, **labels: object) -> None:
    """Start a server, request one token, and stop it."""
    with served(server, **labels):
        pass


def boot_and_bench(zygote: Zygote, server: Server, load: Load) -> None:
    """Start a server, put each load on it, and stop it."""
    with served(server) as came_up:
        for concurrency, prompts in load.items():
            if came_up:
                bench(zygote, server, concurrency, prompts=prompts)


def sharing(kv_cache_gib: int) -> tuple[str, ...]:
    """Flags of one of several servers on a GPU, each with a fixed KV cache. They override earlier flags."""
    return ("--gpu-memory-utilization", "0.12", "--kv-cache-memory-bytes", str(kv_cache_gib << 30))


@contextlib.contextmanager
def side_by_side(servers: Sequence[Server], first_port: int) -> Iterator[list[Server]]:
    """Run several servers on one GPU until the block ends. Yields those that started."""
    for number, server in enumerate(servers):
        server.port = first_port + number
        server.start()
    alive = []
    try:
        for server in servers:
            if server.ready():
                server.first_token()
                record("up", name=server.name, ready_seconds=round(server.ready_seconds, 1), flags=list(server.flags))
                alive.append(server)
            else:
                record("died", name=server.name, tail=server.log.read_text()[-1500:])
        yield alive
    finally:
        for server in servers:
            server.stop()
        wait_for_free_gpu()


def in_turn(zygote: Zygote, servers: Sequence[Server], rounds: Mapping[str, Sequence[Load]]) -> None:
    """Put load on one server at a time, round after round; odd rounds in reverse order. `rounds` is by server name."""
    for number in range(max((len(rounds[server.name]) for server in servers), default=0)):
        loads = {s.name: rounds[s.name][number] for s in servers if number < len(rounds[s.name])}
        for concurrency in sorted({concurrency for load in loads.values() for concurrency in load}):
            for server in servers if number % 2 == 0 else servers[::-1]:
                if prompts := loads.get(server.name, {}).get(concurrency):
                    bench(zygote, server, concurrency, prompts=prompts, seed=number, tag=f"-r{number}")


def measure_side_by_side(zygote: Zygote, measured: Sequence[tuple[Server, Sequence[Load]]], first_port: int) -> None:
    """Start several servers on one GPU, and put each one's rounds of load on it, one server at a time."""
    with side_by_side([server for server, _ in measured], first_port) as alive:
        in_turn(zygote, alive, {server.name: rounds for server, rounds in measured})
