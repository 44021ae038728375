"""The gateway's memory under floods: 25 kinds at once, at full speed.

    .venv/bin/python -m benchmarks.gateway.hostile

Each kind has its own connections, which are reopened when the gateway closes them. The gateway runs in its own process, with
default settings and without an engine. Memory is read every 0.2 s; the result is the growth of the resident set from idle to
the highest reading. Alongside the floods, a normal client sends one request after another to /v1/models.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import os
import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.gateway.running import gateway
from benchmarks.reports import publish

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


# Each yields the bytes of one connection.
FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    # after the body
    "trailers": _endless(_POST + _CHUNKED + b"0\r\n", b"a: b\r\n" * 5000),
    "trailers, with a key": _endless(_POST + _KEY + _CHUNKED + b"0\r\n", b"a: b\r\n" * 5000),
    "a trailer without an end": _endless(_POST + _KEY + _CHUNKED + b"0\r\na: ", _BLOCK),
    "trailers of complete requests": _again(
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
    "a body where none is expected": _endless(
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
    # pipelines whose responses are never read
    "pipelined requests": _again(b"GET /health HTTP/1.1\r\n" + _HOST + b"\r\n"),
    "pipelined requests, many at once": _again((b"GET /nowhere HTTP/1.1\r\n" + _HOST + b"\r\n") * 2000),
    "pipelined bodies": _again(_POST + _KEY + b"content-length: %d\r\n\r\n" % len(_BODY) + _BODY),
    "upgrades": _again(_POST + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 65536\r\n\r\n" + _BLOCK),
    "expectations": _again(_POST + _KEY + b"expect: 100-continue\r\ncontent-length: 18\r\n\r\n" + _BODY),
}  # fmt: skip


async def ask(port: int) -> float:
    """Send one normal request. Returns the seconds it took."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nconnection: close\r\n" + _HOST + _KEY + b"\r\n")
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"a normal request failed: {answer[:100]!r}")
    return time.monotonic() - began


async def _flood(port: int, flood: Callable[[], Iterator[bytes]], sent: dict[str, int], name: str) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                for data in flood():
                    writer.write(data)
                    sent[name] += len(data)
                    async with asyncio.timeout(1):  # times out once the gateway waits for its responses to be read
                        await writer.drain()
                    await asyncio.sleep(0)
            except TimeoutError:
                await asyncio.sleep(1)
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.01)


async def run(seconds: float, connections: int, names: list[str] | None = None) -> dict[str, Any]:
    """Flood a gateway. Returns the figures."""
    names = names or list(FLOODS)
    sent = dict.fromkeys(names, 0)
    memory: list[float] = []
    honest: list[float] = []
    async with gateway("model", KEY, None, drain_timeout_seconds=1) as running:
        port = running.port
        for _ in range(50):
            await ask(port)
        at_rest = running.memory_mib()
        floods = [
            asyncio.create_task(_flood(port, FLOODS[name], sent, name)) for name in names for _ in range(connections)
        ]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(0.2)
            memory.append(running.memory_mib())
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


def main() -> None:
    """Run the floods, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="duration; 60 by default")
    parser.add_argument("--connections", type=int, default=2, help="connections for each kind of flood; 2 by default")
    parser.add_argument("--only", help="kinds of flood, separated by semicolons; all by default")
    parser.add_argument("--out", type=Path, help="write the results to this file as JSON")
    options = parser.parse_args()
    names = options.only.split(";") if options.only else None
    if unknown := sorted(set(names or ()) - set(FLOODS)):
        parser.error(f"--only: unknown kinds {unknown}. The kinds are: {'; '.join(FLOODS)}")
    publish(asyncio.run(run(options.seconds, options.connections, names)), options.out)


if __name__ == "__main__":
    main()
