"""The effect of two workers on one port (SO_REUSEPORT): CPU per request, and requests rejected while slots are free.

    .venv/bin/python -m benchmarks.gateway.two_workers

Runs the gateway as one process, and as two that share its port, on the same core. GATEWAY_COUNT is the number of processes.
32 clients keep one request each in flight; there are exactly 32 slots and no queue.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.gateway.bench import ENGINES, KEY, PORT, command, pinned, until_ready, usage
from benchmarks.gateway.running import ROOT
from benchmarks.gateway.soak import build
from benchmarks.reports import context, publish

CLIENTS = 32
SECONDS = 6
JSON_LOAD = ("json", "16", "100000000", "4", "64", "0", "0", "0", "0")


def worker() -> None:
    """Run the gateway with sockets that other processes can share."""
    create = socket.create_server

    def shared(*arguments: Any, **more: Any) -> socket.socket:
        return create(*arguments, **{**more, "reuse_port": True})

    socket.create_server = shared
    from image.gateway.__main__ import main

    sys.exit(main())


def workers(count: int) -> None:
    """Run so many workers until SIGTERM."""
    arguments = [sys.executable, "-m", "benchmarks.gateway.two_workers", "--worker"]
    running = [subprocess.Popen(arguments, env=os.environ) for _ in range(count)]

    def stop(*_: object) -> None:
        for process in running:
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    for process in running:
        process.wait()


def ask_for(seconds: float, statuses: Counter[str]) -> None:
    """One client: one request after another on one connection; each takes the engine 100 ms."""
    text = "Hi fake:5:20000:0:0"
    body = json.dumps({"model": "fake-model", "messages": [{"role": "user", "content": text}], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    end = time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", PORT)) as sock:
        while time.monotonic() < end:
            sock.sendall(head.encode() + body)
            answer = b""
            while not answer.endswith((b"0\r\n\r\n", b"}")):
                answer += sock.recv(65536)
            statuses[answer[9:12].decode()] += 1
            if not answer.startswith(b"HTTP/1.1 200"):
                time.sleep(0.05)


def measure(count: int) -> dict[str, Any]:
    """Measure so many workers."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        programs = build(Path(folder))
        for port in ENGINES:
            stack.enter_context(pinned(0, [programs["fake_engine"], str(port)]))
        _, environment = command("gateway", argparse.Namespace(), Path(folder))
        slots = {
            "GATEWAY_CONCURRENCY_PER_REPLICA": str(CLIENTS // len(ENGINES)),
            "GATEWAY_COUNT": str(count),
            "GATEWAY_MAX_QUEUED_REQUESTS": "0",
        }
        module = [sys.executable, "-m", "benchmarks.gateway.two_workers", "--workers", str(count)]
        process = stack.enter_context(
            pinned(1, module, env=environment | slots, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        until_ready(PORT, process)
        time.sleep(2)  # until the other worker is ready, too
        statuses: Counter[str] = Counter()
        threads = [threading.Thread(target=ask_for, args=(SECONDS, statuses)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        arguments = ["taskset", "-c", "0", programs["load"], str(PORT), *JSON_LOAD, KEY]
        before = usage(process.pid)[0]
        done = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)["done"]
        after, memory = usage(process.pid)
        return {
            "workers": count,
            "statuses_of_32_clients_for_32_slots": dict(statuses),
            "cpu_us_per_request": round((after - before) / done * 1e6, 1),
            "memory_mib": round(memory, 1),
        }


def main() -> None:
    """Measure one and two workers in turn, three times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results to this file as JSON")
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker()
    if options.workers:
        workers(options.workers)
        return
    report = context()
    report["runs"] = [measure(count) for _ in range(3) for count in (1, 2)]
    publish(report, options.out)


if __name__ == "__main__":
    main()
