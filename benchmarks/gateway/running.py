"""A running gateway on free ports of 127.0.0.1: in its own process, or in this process's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image.gateway.backends import FixedDiscovery
from image.gateway.service import Service
from image.gateway.settings import Settings
from image.gateway.telemetry import Telemetry
from local.preflight import free_port

ROOT = Path(__file__).parents[2]
START_LIMIT_SECONDS = 30


def resident_mib(pid: int) -> float:
    """MiB of resident memory of a process. Raises ProcessLookupError if it has exited."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


@dataclass
class Gateway:
    """A gateway in its own process."""

    port: int
    metrics_port: int
    pid: int

    def memory_mib(self) -> float:
        """MiB of resident memory."""
        return resident_mib(self.pid)

    def descriptors(self) -> int:
        """Number of open files and sockets."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    async def metric(self, sample: str) -> float:
        """The value of a sample, 0 if it is missing."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.metrics_port)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        return next(
            (float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample + " ")), 0.0
        )


@contextlib.asynccontextmanager
async def gateway(model: str, key: str, engine: str | None, **settings: Any) -> AsyncIterator[Gateway]:
    """Start a gateway in its own process, and stop it with SIGTERM.

    It is ready, or without the URL of an engine only listening, when the block begins. `settings` are those of the
    environment without the prefix: `max_queued_requests=100`.
    """
    port, metrics_port = free_port(), free_port()
    variables = {
        "PATH": os.environ["PATH"],
        "GATEWAY_MODEL": model,
        "GATEWAY_DISCOVERY": f"fixed:{engine or f'http://127.0.0.1:{free_port()}'}",
        "GATEWAY_KEYS": "env:BENCHMARK_KEY",
        "BENCHMARK_KEY": f"benchmark={key}",
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_METRICS_PORT": str(metrics_port),
        **{f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()},
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "image.gateway", cwd=ROOT, env=variables, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_LIMIT_SECONDS):
            awaited = b"replica_ready" if engine else b"listening"
            while awaited not in (line := await process.stdout.readline()):
                if not line:
                    raise SystemExit(f"the gateway exited with {await process.wait()}")
            while not await _accepts(port):  # noqa: ASYNC110 - "listening" is logged just before the port accepts
                await asyncio.sleep(0.01)
        discard_log = asyncio.create_task(process.stdout.read())
        yield Gateway(port, metrics_port, process.pid)
        process.terminate()
        await discard_log
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


def loopback_settings(model: str, engine_ports: Sequence[int], **settings: Any) -> Settings:
    """Settings of a gateway on free ports, for engines on 127.0.0.1."""
    defaults: dict[str, Any] = {
        "model": model,
        "discovery": FixedDiscovery(tuple(("127.0.0.1", port) for port in engine_ports)),
        "host": "127.0.0.1",
        "port": 0,
        "metrics_port": 0,
    }
    return Settings(**(defaults | settings))


@contextlib.asynccontextmanager
async def in_process(settings: Settings, replicas: int, log: int) -> AsyncIterator[Service]:
    """Run a gateway in this event loop until the block ends; so many replicas are ready when it begins."""
    service = Service(settings, telemetry=Telemetry(log))
    running = asyncio.create_task(service.run())
    try:
        await until(lambda: len(service.fleet.rotation) == replicas)
        yield service
    finally:
        service.stop()
        await running


def port_of(service: Service) -> int:
    """The port on which a gateway in this process listens."""
    return int(service.sockets[0].getsockname()[1])


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the gateway has no event to wait for
            await asyncio.sleep(0.002)
