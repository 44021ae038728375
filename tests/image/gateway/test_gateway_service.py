"""The gateway as a process: how it starts, drains and stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from fakes import fake_engine
from fakes.fake_engine import EVENTS, MODEL, FakeEngine
from local.preflight import free_port
from tests.image.gateway.conftest import KEY, TLS, StartEngine, StartGateway, until

ROOT = Path(__file__).parents[3]
BASE = {"PATH": os.environ["PATH"], "GATEWAY_HOST": "127.0.0.1", "GATEWAY_MODEL": MODEL}


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    """A gateway that does not get as far as serving."""
    return subprocess.run(
        [sys.executable, "-m", "image.gateway"],
        cwd=ROOT,
        env=BASE | environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_wrong_settings_are_said_in_a_line_each() -> None:
    done = run(GATEWAY_PORT="x")
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("gateway: GATEWAY_") for line in lines)


def test_a_busy_port_and_missing_keys_are_said_in_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        done = run(GATEWAY_DISCOVERY="fixed:http://127.0.0.1:1", GATEWAY_PORT=port)
    assert done.returncode == 2
    assert f"gateway: GATEWAY_PORT: 127.0.0.1:{port}: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = run(
        GATEWAY_DISCOVERY="fixed:http://127.0.0.1:1",
        GATEWAY_PORT=str(free_port()),
        GATEWAY_METRICS_PORT=str(free_port()),
        GATEWAY_KEYS="file:/nowhere/keys",
    )
    assert done.returncode == 2
    assert done.stderr == "gateway: the keys file /nowhere/keys: No such file or directory\n"


class Process:
    """A gateway in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.client = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {KEY}"},
            timeout=20,
            trust_env=False,
            verify=TLS,
        )

    async def line(self, event: str) -> dict[str, object]:
        """The next log line of this event."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            while line := await self.process.stdout.readline():
                document: dict[str, object] = json.loads(line)
                if document["event"] == event:
                    return document
        raise AssertionError(f"no {event} in the log")

    async def exit_status(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def started(engine: FakeEngine, **environment: str) -> AsyncIterator[Process]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "image.gateway",
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env=BASE
        | {
            "GATEWAY_DISCOVERY": f"fixed:{engine.url}",
            "GATEWAY_KEYS": "env:SECRET",
            "SECRET": KEY,
            "GATEWAY_PORT": str(port),
            "GATEWAY_METRICS_PORT": str(free_port()),
        }
        | environment,
    )
    gateway = Process(process, port)
    try:
        await gateway.line("replica_ready")
        yield gateway
    finally:
        await gateway.client.aclose()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_sigterm_fails_readiness_lets_a_stream_finish_and_exits_0(start_engine: StartEngine) -> None:
    engine = await start_engine(fake_engine.answer_when_told)
    async with started(engine) as gateway:
        assert (await gateway.client.get("/health/ready")).status_code == 200
        body = {"model": MODEL, "stream": True}
        stream = asyncio.create_task(gateway.client.post("/v1/completions", json=body))
        await engine.reached.wait()
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.line("draining")
        assert (await gateway.client.get("/health/ready")).status_code == 503
        health = await gateway.client.get("/health")
        assert health.status_code == 200
        assert health.headers["connection"] == "close"
        refused = await gateway.client.post("/v1/completions", json=body)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "draining"
        engine.go_on.set()
        assert (await stream).content == b"".join(EVENTS)
        assert await gateway.exit_status() == 0


async def test_a_second_sigterm_exits_at_once(start_engine: StartEngine) -> None:
    engine = await start_engine(fake_engine.stream_for_ever)
    async with started(engine) as gateway:
        body = {"model": MODEL, "stream": True}
        stream = asyncio.create_task(gateway.client.post("/v1/completions", json=body))
        await engine.reached.wait()
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.line("draining")
        gateway.process.send_signal(signal.SIGTERM)
        assert await gateway.exit_status() == 1
        with pytest.raises(httpx2.RemoteProtocolError):
            await stream


async def test_an_idle_gateway_stops_on_sigint(start_engine: StartEngine) -> None:
    async with started(await start_engine()) as gateway:
        gateway.process.send_signal(signal.SIGINT)
        assert await gateway.exit_status() == 0


def test_without_aws_boto3_is_not_imported() -> None:
    code = "import sys, image.gateway.__main__; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=BASE, check=True, timeout=20)


async def test_what_outlasts_the_drain_is_ended_with_an_error(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(fake_engine.stream_for_ever)
    gateway = await start_gateway(engine, drain_timeout_seconds=0.1)
    stream = asyncio.create_task(gateway.chat(stream=True))
    await engine.reached.wait()
    engine.behaviour = fake_engine.say_nothing
    engine.reached.clear()
    plain = asyncio.create_task(gateway.chat())
    await engine.reached.wait()
    gateway.service.stop()
    content = (await stream).content
    assert json.loads(content.removeprefix(EVENTS[0]).removeprefix(b"data: "))["error"]["code"] == "draining"
    response = await plain
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "draining"
    await until(lambda: bool(gateway.log("stopped")))


async def test_in_the_drain_delay_requests_are_still_taken(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(await start_engine(), drain_delay_seconds=0.5)
    gateway.service.stop()
    await until(lambda: gateway.service.app.draining)
    assert (await gateway.client.get("/health/ready")).status_code == 503
    response = await gateway.chat()
    assert response.status_code == 200
    assert response.headers["connection"] == "close"
    await until(lambda: bool(gateway.log("stopped")))
