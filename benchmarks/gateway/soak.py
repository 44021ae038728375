"""A thousand concurrent streams for ten minutes: none is dropped or altered, and memory and descriptors do not leak.

    .venv/bin/python -m benchmarks.gateway.soak

The engine and the clients are the C programs fake_engine.c and load.c, compiled with gcc. The clients check the number
and order of the tokens of each stream. The exit status is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gateway.running import gateway
from benchmarks.reports import context, publish
from local.preflight import free_port

FOLDER = Path(__file__).parent
KEY = "sk-soak"
MODEL = "fake-model"  # the model that load.c requests
TOKENS_A_SECOND = 2


def build(folder: Path) -> dict[str, str]:
    """Compile the C programs into a folder. Returns the path of each by name."""
    programs = {}
    for name in ("fake_engine", "load"):
        programs[name] = str(folder / name)
        subprocess.run(["gcc", "-O2", "-w", "-o", programs[name], str(FOLDER / f"{name}.c")], check=True)
    return programs


async def soak(streams: int, seconds: int) -> dict[str, Any]:
    """Run the streams. Returns the figures."""
    with tempfile.TemporaryDirectory() as folder:
        programs = build(Path(folder))
        port = free_port()
        serving = await asyncio.create_subprocess_exec(programs["fake_engine"], str(port))
        try:
            settings = {"concurrency_per_replica": streams, "drain_timeout_seconds": 5}
            async with gateway(MODEL, KEY, f"http://127.0.0.1:{port}", **settings) as running:
                tokens = seconds * TOKENS_A_SECOND

                async def load(count: int, tokens: int, gap_us: int) -> dict[str, Any]:
                    # mode, connections, requests, seconds, tokens, gap, delay, aligned, ramp
                    spec = ["stream", count, count, seconds + 60, tokens, gap_us, 0, 0, 5000, KEY]
                    process = await asyncio.create_subprocess_exec(
                        programs["load"], str(running.port), *map(str, spec), stdout=subprocess.PIPE
                    )
                    out, _ = await process.communicate()
                    found: dict[str, Any] = json.loads(out)
                    return found

                fresh = running.memory_mib()
                await load(streams, 24, 500_000)  # warm up caches and pools
                await asyncio.sleep(5)
                before = running.descriptors(), running.memory_mib()
                memory: list[float] = []
                most = 0.0

                async def watch() -> None:
                    nonlocal most
                    while True:
                        await asyncio.sleep(10)
                        memory.append(round(running.memory_mib(), 1))
                        most = max(most, await running.metric("gateway_requests_running"))

                watching = asyncio.create_task(watch())
                result = await load(streams, tokens, 1_000_000 // TOKENS_A_SECOND)
                watching.cancel()
                await asyncio.sleep(5)
                after = running.descriptors(), running.memory_mib()
        finally:
            serving.terminate()
            await serving.wait()
    during = memory[2:-1] or memory
    return {
        "streams": streams,
        "seconds": seconds,
        "at_once": most,
        "done": result["done"],
        "errors": result["errors"],
        "chunks": result["chunks"],
        "chunk_delay_us_p50_p99": [round(result["lag"][p]) for p in ("p50", "p99")],
        "descriptors": [before[0], after[0]],
        "memory_mib_fresh": round(fresh, 1),
        "memory_mib_idle_before_after": [round(before[1], 1), round(after[1], 1)],
        "memory_mib_every_10_s": memory,
        "goals": {
            "none dropped or altered": result["done"] == streams and result["errors"] == 0,
            "memory grows under 5% from when all streams are open to the end": max(*during, after[1])
            <= 1.05 * memory[0],
            "descriptors back": after[0] <= before[0],
        },
    }


def main() -> int:
    """Run the soak test. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000, help="number of concurrent streams; 1000 by default")
    parser.add_argument("--seconds", type=int, default=600, help="duration; 600 by default")
    parser.add_argument("--out", type=Path, help="write the results to this file as JSON")
    arguments = parser.parse_args()
    result = asyncio.run(soak(arguments.streams, arguments.seconds))
    publish(context() | {"soak": result}, arguments.out)
    return 0 if all(result["goals"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
