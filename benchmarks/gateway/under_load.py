"""What the gateway does under load and abuse, as a process of its own before a fake engine; prints and keeps figures.

    .venv/bin/python -m benchmarks.gateway.under_load cancel|overload|overload_long_queue|slow|all [--out FILE] [--seconds 60]

cancel    500 clients leave at random stages: how soon the engine is told, and what is left behind
overload  five times what the engine can do, for a minute: refusals, those let in, /health, memory
slow      500 clients drip headers, 500 drip bodies, 500 read nothing; honest ones beside them

Exit status 1 where a figure misses its goal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import platform
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes.fake_engine import COMPLETION, EVENTS, MODEL, FakeEngine, Line, Request
from image.gateway import __version__

ROOT = Path(__file__).parents[2]
KEY = "sk-load"


@dataclass
class Gateway:
    """A gateway's process."""

    port: int
    metrics_port: int
    pid: int

    def memory_mib(self) -> float:
        """Resident, of the process."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise ProcessLookupError

    def descriptors(self) -> int:
        """Open files and sockets."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    async def metric(self, sample: str) -> float:
        """One sample's value, 0 where there is none."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.metrics_port)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        return next(
            (float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample + " ")), 0.0
        )


@contextlib.asynccontextmanager
async def gateway(engine: FakeEngine, **settings: Any) -> AsyncIterator[Gateway]:
    """Start one on free ports, and stop it by SIGTERM."""
    free = [await FakeEngine().start() for _ in range(2)]
    for one in free:
        await one.stop()
    variables = {
        "PATH": os.environ["PATH"],
        "GATEWAY_MODEL": MODEL,
        "GATEWAY_DISCOVERY": f"fixed:{engine.url}",
        "GATEWAY_KEYS": "env:LOAD_KEY",
        "LOAD_KEY": KEY,
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(free[0].port),
        "GATEWAY_METRICS_PORT": str(free[1].port),
        "GATEWAY_DRAIN_TIMEOUT_SECONDS": "5",
        **{f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()},
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "image.gateway", cwd=ROOT, env=variables, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while b"replica_ready" not in await process.stdout.readline():
            pass
    swallow = asyncio.create_task(process.stdout.read())
    try:
        yield Gateway(free[0].port, free[1].port, process.pid)
    finally:
        process.terminate()
        await process.wait()
        await swallow


def request(stream: bool, identity: str = "-", pad: int = 0, close: bool = True) -> bytes:
    """A request's bytes."""
    body = json.dumps({"model": MODEL, "prompt": "Hi", "stream": stream, "pad": "x" * pad}).encode()
    connection = "close" if close else "keep-alive"
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nx-request-id: {identity}\r\n"
        f"content-type: application/json\r\nconnection: {connection}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies, in the unit of the values."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


async def settled(condition: Callable[[], Awaitable[bool]], seconds: float) -> float:
    """Seconds until a condition holds; infinity when it does not in time."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if await condition():
            return round(time.monotonic() - began, 3)
        await asyncio.sleep(0.05)
    return float("inf")


async def cancel(clients: int = 500) -> dict[str, Any]:
    """Clients leave while they send, wait, are asked for, and are answered."""
    dice = random.Random(5)  # noqa: S311
    open_at_engine: set[str] = set()
    left_at: dict[str, float] = {}
    closed_after: list[float] = []

    async def engine_does(asked: Request, line: Line) -> None:
        identity = asked.headers["x-request-id"]
        open_at_engine.add(identity)
        try:
            if asked.json["stream"]:
                line.head(content_type="text/event-stream")
                line.chunk(EVENTS[0])
            await line.gone()
        finally:
            open_at_engine.discard(identity)
            if identity in left_at:
                closed_after.append(time.monotonic() - left_at[identity])

    engine = await FakeEngine(engine_does).start()
    async with gateway(engine, concurrency_per_replica=clients // 2, max_queued_requests=clients) as running:
        left: Counter[str] = Counter()

        async def client(number: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            data = request(dice.random() < 0.5, f"c{number}", dice.randrange(50_000))
            early = dice.random() < 0.2
            writer.write(data[: dice.randrange(len(data))] if early else data)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(dice.random() * 4):
                    await reader.read(1)
                    await asyncio.sleep(dice.random() * 2)
            left_at[f"c{number}"] = time.monotonic()
            left["sending" if early else "later"] += 1
            writer.transport.abort()

        async def wave() -> None:
            await asyncio.gather(*(client(number) for number in range(clients)))

        async def quiet() -> bool:
            return not open_at_engine and await running.metric("gateway_demand") == 0

        for _ in range(2):  # which grow what is kept for good; five in a row showed no more growth after them
            await wave()
            await settled(quiet, 10)
            await asyncio.sleep(4)
        before = running.descriptors(), running.memory_mib()
        closed_after.clear()
        left_at.clear()
        await wave()
        quiet_after = await settled(quiet, 10)
        await asyncio.sleep(4)
        after = running.descriptors(), running.memory_mib()
        stages = {
            stage: await running.metric(f'gateway_cancellations_total{{stage="{stage}"}}')
            for stage in ("receiving", "waiting", "connecting", "asked", "answering")
        }
    await engine.stop()
    return {
        "clients": clients,
        "closed_at_engine": len(closed_after),
        "slowest_close_seconds": round(max(closed_after), 3),
        "all_freed_after_seconds": quiet_after,
        "stages_of_all_waves": stages,
        "descriptors": [before[0], after[0]],
        "memory_mib": [round(before[1], 1), round(after[1], 1)],
        "goals": {
            "every upstream request closed within 1 s": max(closed_after) < 1 and quiet_after < 1,
            "descriptors back": after[0] <= before[0],
            "memory back (5%)": after[1] <= before[1] * 1.05,
        },
    }


async def overload(seconds: float = 60, **settings: Any) -> dict[str, Any]:
    """An engine of 16 slots and 100 to 300 ms: 80 a second. First 60 a second, then 400."""
    capacity = 80
    dice = random.Random(9)  # noqa: S311
    gc.disable()  # a pause of the clients must not be taken for one of the gateway

    async def engine_does(asked: Request, line: Line) -> None:
        # Not all alike: requests that begin together must not end together, as no engine's do.
        await asyncio.sleep(dice.uniform(0.1, 0.3))
        line.reply(COMPLETION)

    engine = await FakeEngine(engine_does).start()
    async with gateway(engine, concurrency_per_replica=16, **settings) as running:

        async def offer(rate: float, duration: float) -> tuple[Counter[int], list[float], list[float]]:
            statuses: Counter[int] = Counter()
            admitted: list[float] = []
            refused: list[float] = []
            idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

            async def one() -> None:
                reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", running.port)
                began = time.monotonic()
                writer.write(request(False, close=False))
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                status = int(head[9:12])
                statuses[status] += 1
                (admitted if status == 200 else refused).append(time.monotonic() - began)
                idle.append((reader, writer))

            tasks: set[asyncio.Task[None]] = set()
            began = time.monotonic()
            for number in range(int(rate * duration)):
                await asyncio.sleep(max(began + number / rate - time.monotonic(), 0))
                task = asyncio.create_task(one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)
            for _, writer in idle:
                writer.close()
            return statuses, admitted, refused

        async def watch(health: Counter[int], memory: list[float]) -> None:
            while True:
                reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
                writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                health[int((await reader.read())[9:12])] += 1
                writer.close()
                memory.append(running.memory_mib())
                await asyncio.sleep(0.25)

        normal_statuses, normal, _ = await offer(0.75 * capacity, max(seconds / 4, 5))
        health: Counter[int] = Counter()
        memory: list[float] = []
        watching = asyncio.create_task(watch(health, memory))
        statuses, admitted, refused = await offer(5 * capacity, seconds)
        watching.cancel()
    await engine.stop()
    normal_p99, admitted_p99 = percentile(normal, 0.99), percentile(admitted, 0.99)
    return {
        "offered_per_second": 5 * capacity,
        "seconds": seconds,
        "statuses": statuses,
        "normal_statuses": normal_statuses,
        "refused_ms_p50_p99_max": [round(1000 * percentile(refused, p), 1) for p in (0.5, 0.99, 1)],
        "admitted_ms_p50_p99": [round(1000 * percentile(admitted, p), 1) for p in (0.5, 0.99)],
        "normal_ms_p50_p99": [round(1000 * percentile(normal, p), 1) for p in (0.5, 0.99)],
        "health": health,
        "memory_mib_first_most": [round(memory[0], 1), round(max(memory), 1)],
        "goals": {
            "refused within 50 ms": max(refused) < 0.05,
            "admitted p99 at most 1.5 times normal": admitted_p99 <= 1.5 * normal_p99,
            "health 200 throughout": set(health) == {200},
            "only 200 and 429": set(statuses) == {200, 429},
        },
    }


async def slow(clients: int = 500) -> dict[str, Any]:
    """Three kinds of slow clients, so many of each, and honest ones beside them."""

    async def engine_does(asked: Request, line: Line) -> None:
        if not asked.json["stream"]:
            line.reply(COMPLETION)
            return
        # Else the kernel takes megabytes of each of 500 streams, and to make them keeps the honest clients here waiting.
        line.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        line.head(content_type="text/event-stream")
        for _ in range(2000):
            line.chunk(EVENTS[0] * 20)
            await line.writer.drain()
        line.end()

    engine = await FakeEngine(engine_does).start()
    limits = {"header_timeout_seconds": 6, "body_timeout_seconds": 8, "stalled_reader_seconds": 6}
    async with gateway(engine, concurrency_per_replica=clients + 100, max_queued_requests=100, **limits) as running:
        evicted: Counter[str] = Counter()
        honest: list[float] = []
        failed = 0
        stop = asyncio.Event()

        async def drip(kind: str, beginning: bytes, byte: bytes) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(beginning)
            with contextlib.suppress(OSError):
                while not reader.at_eof():
                    writer.write(byte)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            if not await reader.read(4096):
                                break
            evicted[kind] += 1
            writer.transport.abort()

        async def read_nothing() -> None:
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)  # else the kernel reads for it
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", running.port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
            writer.write(request(True))
            transport: Any = writer.transport
            transport.pause_reading()
            await stop.wait()
            transport.resume_reading()
            with contextlib.suppress(OSError):
                while await reader.read(1 << 20):
                    pass
            writer.transport.abort()

        async def honest_client() -> None:
            nonlocal failed
            while not stop.is_set():
                began = time.monotonic()
                try:
                    async with asyncio.timeout(5):
                        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
                        writer.write(request(False))
                        if (await reader.read())[9:12] != b"200":
                            failed += 1
                        writer.close()
                except (OSError, TimeoutError):
                    failed += 1
                honest.append(time.monotonic() - began)
                await asyncio.sleep(0.2)

        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        whole = f"{head}content-type: application/json\r\ncontent-length: 9999\r\n\r\n"
        idle_memory = running.memory_mib()
        tasks = [asyncio.create_task(honest_client()) for _ in range(20)]
        await asyncio.sleep(3)
        alone = list(honest)
        honest.clear()
        for _ in range(clients):
            tasks += [
                asyncio.create_task(drip("headers", head.encode(), b"a")),
                asyncio.create_task(drip("bodies", whole.encode(), b" ")),
                asyncio.create_task(read_nothing()),
            ]
        memory = 0.0

        async def done() -> bool:
            nonlocal memory
            memory = max(memory, running.memory_mib())
            stalled = await running.metric("gateway_requests_running") == 0
            return evicted["headers"] == evicted["bodies"] == clients and stalled

        evicted_after = await settled(done, 60)
        stalled = await running.metric('gateway_cancellations_total{stage="answering"}')
        stop.set()
        await asyncio.gather(*tasks)
    await engine.stop()
    harmed = sum(seconds > 1 for seconds in honest) + failed
    return {
        "clients_of_each_kind": clients,
        "limits_seconds": limits,
        "evicted": dict(evicted) | {"not reading": stalled},
        "all_evicted_after_seconds": evicted_after,
        "honest": len(honest),
        "honest_failed": failed,
        "honest_over_1_s": harmed - failed,
        "honest_ms_p50_p99_alone": [round(1000 * percentile(alone, p), 1) for p in (0.5, 0.99)],
        "honest_ms_p50_p99_beside": [round(1000 * percentile(honest, p), 1) for p in (0.5, 0.99)],
        "memory_mib_idle_most": [round(idle_memory, 1), round(memory, 1)],
        "goals": {
            "95% of honest requests unharmed": harmed <= 0.05 * len(honest),
            "all evicted": evicted_after < 60 and stalled == clients,
        },
    }


def main() -> int:
    """Run what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", choices=["cancel", "overload", "overload_long_queue", "slow", "all"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    scenes = {
        "cancel": cancel,
        "overload": lambda: overload(arguments.seconds),
        # What the default trades: all may wait that fit into the queue.
        "overload_long_queue": lambda: overload(arguments.seconds, max_queued_requests=256),
        "slow": slow,
    }
    report: dict[str, Any] = {
        "schema": 1,
        "gateway": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }
    for name in scenes if arguments.scene == "all" else [arguments.scene]:
        report[name] = asyncio.run(scenes[name]())
        print(name, json.dumps(report[name], indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    compared = ("overload_long_queue",)  # which has no goal to meet
    goals = [
        met for name in scenes if name in report and name not in compared for met in report[name]["goals"].values()
    ]
    return 0 if all(goals) else 1


if __name__ == "__main__":
    sys.exit(main())
