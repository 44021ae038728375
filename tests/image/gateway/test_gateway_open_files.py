"""Clients with idle connections do not lock out other clients."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys

import pytest

from fakes import fake_engine
from image.gateway.open_files import ROOM, Room
from local.preflight import free_port
from tests.image.gateway.conftest import StartEngine, StartGateway, until

HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_the_connection_that_is_idle_for_longest_makes_room(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await start_engine(fake_engine.say_nothing)
    gateway = await start_gateway(engine)
    before = ROOM.open
    asked = asyncio.create_task(gateway.chat())
    await until(lambda: engine.running == 1)
    monkeypatch.setattr(Room, "most", before + 4)
    readers, writers = [], []
    for _ in range(8):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(HEALTH)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        readers.append(reader)
        writers.append(writer)
    await until(lambda: ROOM.open == before + 4)
    assert [reader.at_eof() for reader in readers[:4]] == [True] * 4 or all(
        [not await asyncio.wait_for(reader.read(1), 5) for reader in readers[:4]]
    )
    writers[-1].write(HEALTH)  # the newest are as they were
    assert (await readers[-1].readuntil(b"}")).startswith(b"HTTP/1.1 200")
    assert not asked.done()
    asked.cancel()
    for writer in writers:
        writer.close()
    await until(lambda: ROOM.open <= before)
    assert await gateway.metric('gateway_refusals_total{reason="idle_connection"}') >= 4


def test_a_process_with_few_files_goes_on_accepting() -> None:
    port, metrics_port, nobody = free_port(), free_port(), free_port()
    environment = os.environ | {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_METRICS_PORT": str(metrics_port),
        "GATEWAY_MODEL": "model",
        "GATEWAY_DISCOVERY": f"fixed:http://127.0.0.1:{nobody}",
        "GATEWAY_KEYS": "env:TEST_KEYS",
        "TEST_KEYS": "a=sk-x",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "image.gateway"],
        env=environment,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128)),
    )
    held = []
    try:
        assert process.stdout is not None
        assert b"listening" in process.stdout.readline()
        for _ in range(300):
            for _ in range(100):
                try:
                    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
                    break
                except ConnectionRefusedError:  # the line comes before the port
                    pass
            held.append(connection)
            connection.sendall(HEALTH)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        for connection in held:
            connection.close()
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
