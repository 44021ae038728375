"""The gateway under overload, with clients that disconnect and with slow clients, in front of a fake engine.

    .venv/bin/python -m benchmarks.gateway.under_load all

cancel               500 clients disconnect at random stages: how soon the engine's request is closed, and what leaks
overload             five times the engine's capacity: rejected and admitted requests, /health, memory
overload_long_queue  the same with a queue of 256 requests, to compare
slow                 500 clients send headers slowly, 500 send bodies slowly, 500 do not read; normal clients alongside

The gateway runs in its own process. The exit status is 1 if a figure misses its goal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from benchmarks.gateway import running
from benchmarks.reports import context, publish
from fakes.fake_engine import COMPLETION, EVENTS, MODEL, FakeEngine, Line, Request
from smoke_tests.benchmark.figures import percentile

KEY = "sk-load"


def gateway(engine: FakeEngine, **settings: Any) -> AbstractAsyncContextManager[running.Gateway]:
    """A gateway in its own process before this engine."""
    return running.gateway(MODEL, KEY, engine.url, drain_timeout_seconds=5, **settings)


def request(stream: bool, identity: str = "-", pad: int = 0, close: bool = True) -> bytes:
    """A completion request as bytes."""
    body = json.dumps({"model": MODEL, "prompt": "Hi", "stream": stream, "pad": "x" * pad}).encode()
    connection = "close" if close else "keep-alive"
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nx-request-id: {identity}\r\n"
        f"content-type: application/json\r\nconnection: {connection}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def settled(condition: Callable[[], Awaitable[bool]], seconds: float) -> float:
    """Seconds until a condition holds; infinity if it times out."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if await condition():
            return round(time.monotonic() - began, 3)
        await asyncio.sleep(0.05)
    return float("inf")


async def cancel(clients: int = 500) -> dict[str, Any]:
    """Clients disconnect while they send, while they are queued, and during the response."""
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
    async with gateway(engine, concurrency_per_replica=clients // 2, max_queued_requests=clients) as started:
        left: Counter[str] = Counter()

        async def client(number: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", started.port)
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
            return not open_at_engine and await started.metric("gateway_demand") == 0

        for _ in range(2):  # warm up caches and pools; with five waves, memory did not grow after the second
            await wave()
            await settled(quiet, 10)
            await asyncio.sleep(4)
        before = started.descriptors(), started.memory_mib()
        closed_after.clear()
        left_at.clear()
        await wave()
        quiet_after = await settled(quiet, 10)
        await asyncio.sleep(4)
        after = started.descriptors(), started.memory_mib()
        stages = {
            stage: await started.metric(f'gateway_cancellations_total{{stage="{stage}"}}')
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
    """60, then 400 requests per second to an engine that completes 80: 16 slots, 100 to 300 ms per request."""
    capacity = 80
    dice = random.Random(9)  # noqa: S311
    gc.disable()  # otherwise a pause of the clients would count as one of the gateway

    async def engine_does(asked: Request, line: Line) -> None:
        # Vary the duration: on a real engine, requests that start together do not finish together.
        await asyncio.sleep(dice.uniform(0.1, 0.3))
        line.reply(COMPLETION)

    engine = await FakeEngine(engine_does).start()
    async with gateway(engine, concurrency_per_replica=16, **settings) as started:

        async def offer(rate: float, duration: float) -> tuple[Counter[int], list[float], list[float]]:
            statuses: Counter[int] = Counter()
            admitted: list[float] = []
            refused: list[float] = []
            idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

            async def one() -> None:
                reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", started.port)
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
                reader, writer = await asyncio.open_connection("127.0.0.1", started.port)
                writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                health[int((await reader.read())[9:12])] += 1
                writer.close()
                memory.append(started.memory_mib())
                await asyncio.sleep(0.25)

        normal_statuses, normal, _ = await offer(0.75 * capacity, max(seconds / 4, 5))
        health: Counter[int] = Counter()
        memory: list[float] = []
        watching = asyncio.create_task(watch(health, memory))
        statuses, admitted, refused = await offer(5 * capacity, seconds)
        watching.cancel()
    await engine.stop()
    normal_p99, admitted_p99 = percentile(normal, 99), percentile(admitted, 99)
    return {
        "offered_per_second": 5 * capacity,
        "seconds": seconds,
        "statuses": statuses,
        "normal_statuses": normal_statuses,
        "refused_ms_p50_p99_max": [round(1000 * percentile(refused, p), 1) for p in (50, 99, 100)],
        "admitted_ms_p50_p99": [round(1000 * percentile(admitted, p), 1) for p in (50, 99)],
        "normal_ms_p50_p99": [round(1000 * percentile(normal, p), 1) for p in (50, 99)],
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
    """So many slow clients of each of three kinds, and normal clients alongside."""

    async def engine_does(asked: Request, line: Line) -> None:
        if not asked.json["stream"]:
            line.reply(COMPLETION)
            return
        # With larger buffers the kernel accepts megabytes of each stream; filling them would delay the normal clients.
        line.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        line.head(content_type="text/event-stream")
        for _ in range(2000):
            line.chunk(EVENTS[0] * 20)
            await line.writer.drain()
        line.end()

    engine = await FakeEngine(engine_does).start()
    limits = {"header_timeout_seconds": 6, "body_timeout_seconds": 8, "stalled_reader_seconds": 6}
    async with gateway(engine, concurrency_per_replica=clients + 100, max_queued_requests=100, **limits) as started:
        evicted: Counter[str] = Counter()
        honest: list[float] = []
        failed = 0
        stop = asyncio.Event()

        async def drip(kind: str, beginning: bytes, byte: bytes) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", started.port)
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
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)  # otherwise the kernel buffers the stream
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", started.port))
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
                        reader, writer = await asyncio.open_connection("127.0.0.1", started.port)
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
        idle_memory = started.memory_mib()
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
            memory = max(memory, started.memory_mib())
            stalled = await started.metric("gateway_requests_running") == 0
            return evicted["headers"] == evicted["bodies"] == clients and stalled

        evicted_after = await settled(done, 60)
        stalled = await started.metric('gateway_cancellations_total{stage="answering"}')
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
        "honest_ms_p50_p99_alone": [round(1000 * percentile(alone, p), 1) for p in (50, 99)],
        "honest_ms_p50_p99_beside": [round(1000 * percentile(honest, p), 1) for p in (50, 99)],
        "memory_mib_idle_most": [round(idle_memory, 1), round(memory, 1)],
        "goals": {
            "95% of honest requests unharmed": harmed <= 0.05 * len(honest),
            "all evicted": evicted_after < 60 and stalled == clients,
        },
    }


def main() -> int:
    """Run the scenarios named on the command line. Returns the exit status."""
    scenarios: dict[str, Callable[[], Coroutine[Any, Any, dict[str, Any]]]] = {
        "cancel": cancel,
        "overload": lambda: overload(arguments.seconds),
        # The trade-off of the default: with this queue, no client is rejected at once. It has no goal to meet.
        "overload_long_queue": lambda: overload(arguments.seconds, max_queued_requests=256),
        "slow": slow,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=[*scenarios, "all"], help="what to run")
    parser.add_argument("--out", type=Path, help="write the results to this file as JSON")
    parser.add_argument("--seconds", type=float, default=60, help="duration of an overload; 60 by default")
    arguments = parser.parse_args()
    report = context()
    missed = False
    for name in scenarios if arguments.scenario == "all" else [arguments.scenario]:
        report[name] = asyncio.run(scenarios[name]())
        missed |= name != "overload_long_queue" and not all(report[name]["goals"].values())
    publish(report, arguments.out)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
