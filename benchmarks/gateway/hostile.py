"""What hostile clients can make the gateway keep in memory: every kind of flood at once, at full speed.

    .venv/bin/python -m benchmarks.gateway.hostile [--seconds 60] [--connections 2] [--out hostile.json]

Each kind has its connections, opened again when they are closed. The gateway runs with its default settings as a process of its
own, without an engine. Memory is read every 0.2 s; the figure to trust is the growth of the resident set from the gateway at rest
to the highest reading. Beside the floods an honest client asks for /v1/models with a key, one request after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import os
import socket
import statistics
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KEY = "sk-hostile"
_HOST = b"host: x\r\ncontent-type: application/json\r\n"
_KEY = b"authorization: Bearer %b\r\n" % KEY.encode()
_POST = b"POST /v1/completions HTTP/1.1\r\n" + _HOST
_CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
_BODY = b'{"model":"nobody"}'
_BOMB = gzip.compress(b" " * (40 << 20))
_BLOCK = b"a" * 65536


def _endless(first: bytes, then: bytes) -> Callable[[], Iterator[bytes]]:
    def send() -> Iterator[bytes]:
        yield first
        while True:
            yield then

    return send


def _again(request: bytes) -> Callable[[], Iterator[bytes]]:
    return _endless(b"", request)


# Each gives the bytes of one connection; None in place of bytes would be silence.
FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    # behind the body
    "trailers": _endless(_POST + _CHUNKED + b"0\r\n", b"a: b\r\n" * 5000),
    "trailers, with a key": _endless(_POST + _KEY + _CHUNKED + b"0\r\n", b"a: b\r\n" * 5000),
    "a trailer without an end": _endless(_POST + _KEY + _CHUNKED + b"0\r\na: ", _BLOCK),
    "trailers of requests that are whole": _again(
        _POST + _CHUNKED + b"0\r\n" + b"".join(b"a%d: b\r\n" % number for number in range(1500)) + b"\r\n"
    ),
    # headers
    "headers": _endless(b"GET /health HTTP/1.1\r\n", b"a: b\r\n" * 5000),
    "a header without an end": _endless(b"GET /health HTTP/1.1\r\na: ", _BLOCK),
    "a name without an end": _endless(b"GET /health HTTP/1.1\r\n", _BLOCK),
    "a target without an end": _endless(b"GET /", _BLOCK),
    "heads of nearly 64 KiB": _again(
        b"GET /health HTTP/1.1\r\n" + _HOST + b"".join(b"a%d: %b\r\n" % (n, b"b" * 240) for n in range(250)) + b"\r\n"
    ),
    "empty lines": _again(b"\r\n" * 30_000),
    "nonsense": _again(os.urandom(65536)),
    # bodies
    "a body without a key": _endless(_POST + b"content-length: 99999999999\r\n\r\n", _BLOCK),
    "a body of chunks without a key": _endless(_POST + _CHUNKED, b"10000\r\n%b\r\n" % _BLOCK),
    "a body that nobody asked for": _endless(
        b"GET /health HTTP/1.1\r\n" + _HOST + b"content-length: 999999999\r\n\r\n", _BLOCK
    ),
    "a body of one-byte chunks": _endless(_POST + _KEY + _CHUNKED, b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n"),
    "chunk extensions": _endless(_POST + _KEY + _CHUNKED, b"1;" + b"a" * 1000 + b"\r\na\r\n"),
    "a chunk extension without an end": _endless(_POST + _KEY + _CHUNKED + b"1;", _BLOCK),
    "gzip bombs": _again(
        _POST + _KEY + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(_BOMB) + _BOMB
    ),
    "gzip of nothing, very often": _again(
        _POST + _KEY + b"content-encoding: gzip\r\ncontent-length: 40000\r\n\r\n" + gzip.compress(b"") * 2000
    ),
    "zlib for gzip": _again(
        _POST + _KEY + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(zlib.compress(_BODY)) + zlib.compress(_BODY)
    ),
    # pipelines, whose answers are never read
    "pipelined requests": _again(b"GET /health HTTP/1.1\r\n" + _HOST + b"\r\n"),
    "pipelined requests, many at once": _again((b"GET /nowhere HTTP/1.1\r\n" + _HOST + b"\r\n") * 2000),
    "pipelined bodies": _again(_POST + _KEY + b"content-length: %d\r\n\r\n" % len(_BODY) + _BODY),
    "upgrades": _again(_POST + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 65536\r\n\r\n" + _BLOCK),
    "expectations": _again(_POST + _KEY + b"expect: 100-continue\r\ncontent-length: 18\r\n\r\n" + _BODY),
}  # fmt: skip


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[tuple[int, int]]:
    """A gateway with its default settings; gives its port and its process id."""
    port, metrics_port, nobody = _free_ports(3)
    environment = {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_METRICS_PORT": str(metrics_port),
        "GATEWAY_MODEL": "model",
        "GATEWAY_DISCOVERY": f"fixed:http://127.0.0.1:{nobody}",
        "GATEWAY_KEYS": "env:HOSTILE_KEYS",
        "HOSTILE_KEYS": f"honest={KEY}",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "image.gateway"),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    await ask(port)
                    break
                except OSError:
                    await asyncio.sleep(0.1)
        yield port, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def ask(port: int) -> float:
    """One honest request; the seconds it took."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nconnection: close\r\n" + _HOST + _KEY + b"\r\n")
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"an honest request was answered {answer[:100]!r}")
    return time.monotonic() - began


def resident_mib(pid: int) -> float:
    """MiB of resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the gateway has ended")


async def _flood(port: int, flood: Callable[[], Iterator[bytes]], sent: dict[str, int], name: str) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                for data in flood():
                    writer.write(data)
                    sent[name] += len(data)
                    async with asyncio.timeout(1):  # an answer that is never read stops it
                        await writer.drain()
                    await asyncio.sleep(0)
            except TimeoutError:
                await asyncio.sleep(1)
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.01)


async def run(seconds: float, connections: int, names: list[str] | None = None) -> dict[str, Any]:
    """Flood a gateway, and return what was measured."""
    names = names or list(FLOODS)
    sent = dict.fromkeys(names, 0)
    memory: list[float] = []
    honest: list[float] = []
    async with gateway() as (port, pid):
        for _ in range(50):
            await ask(port)
        at_rest = resident_mib(pid)
        floods = [
            asyncio.create_task(_flood(port, FLOODS[name], sent, name)) for name in names for _ in range(connections)
        ]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(0.2)
            memory.append(resident_mib(pid))
            honest.append(await ask(port))
        for flood in floods:
            flood.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
    return {
        "seconds": seconds,
        "connections": connections * len(names),
        "sent_mib": {name: round(size / (1 << 20), 1) for name, size in sent.items()},
        "memory_at_rest_mib": round(at_rest, 1),
        "memory_most_mib": round(max(memory), 1),
        "memory_growth_mib": round(max(memory) - at_rest, 1),
        "honest_requests": len(honest),
        "honest_p50_seconds": round(statistics.median(honest), 3),
        "honest_slowest_seconds": round(max(honest), 3),
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=2, help="of each kind")
    parser.add_argument("--only", help="kinds, separated by semicolons")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = asyncio.run(run(options.seconds, options.connections, options.only.split(";") if options.only else None))
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
