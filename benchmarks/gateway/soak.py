"""A thousand streams at once for ten minutes: none dropped or altered, memory and descriptors where they were.

    .venv/bin/python -m benchmarks.gateway.soak [--streams 1000] [--seconds 600] [--out FILE]

The engine and the clients are the C programs beside this file (built here with gcc); every token of every stream is
checked for its number and order. Exit status 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gateway.under_load import KEY, gateway
from fakes.fake_engine import FakeEngine
from image.gateway import __version__

FOLDER = Path(__file__).parent
MODEL = "fake-model"  # what load.c asks for
TOKENS_A_SECOND = 2


def build(folder: Path) -> dict[str, str]:
    """The C programs, built there; name -> path."""
    programs = {}
    for name in ("fake_engine", "load"):
        programs[name] = str(folder / name)
        subprocess.run(["gcc", "-O2", "-w", "-o", programs[name], str(FOLDER / f"{name}.c")], check=True)
    return programs


async def soak(streams: int, seconds: int) -> dict[str, Any]:
    """The figures."""
    with tempfile.TemporaryDirectory() as folder:
        programs = build(Path(folder))
        engine = await FakeEngine().start()  # for a free port, and in rotation until its place is taken
        await engine.stop()
        serving = await asyncio.create_subprocess_exec(programs["fake_engine"], str(engine.port))
        try:
            async with gateway(engine, model=MODEL, concurrency_per_replica=streams) as running:
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
                await load(streams, 24, 500_000)  # what is kept for good, kept
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
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    report = {
        "schema": 1,
        "gateway": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "soak": asyncio.run(soak(arguments.streams, arguments.seconds)),
    }
    print(json.dumps(report, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(report["soak"]["goals"].values()) else 1  # type: ignore[index]


if __name__ == "__main__":
    sys.exit(main())
