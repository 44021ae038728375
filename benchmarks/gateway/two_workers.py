"""What several workers on one port (SO_REUSEPORT) would give: CPU per request, and who is refused while slots are free.

    .venv/bin/python -m benchmarks.gateway.two_workers --out two_workers.json

The same gateway once as one process and once as two that share its port, each told that there are two (GATEWAY_COUNT), on
the same core. 32 clients keep one request each in flight, for which there are exactly 32 slots and no queue.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
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

from benchmarks.gateway.bench import ENGINES, KEY, PORT, ROOT, command, pinned, until_ready, usage
from benchmarks.gateway.soak import build

CLIENTS = 32
SECONDS = 6
JSON_LOAD = ("json", "16", "100000000", "4", "64", "0", "0", "0", "0")


def worker() -> None:
    """Run the gateway with every socket of it shared with other processes."""
    create = socket.create_server

    def shared(*arguments: Any, **more: Any) -> socket.socket:
        return create(*arguments, **{**more, "reuse_port": True})

    socket.create_server = shared
    from image.gateway.__main__ import main

    sys.exit(main())


def workers(count: int) -> None:
    """So many of them, until SIGTERM."""
    arguments = [sys.executable, "-m", "benchmarks.gateway.two_workers", "--worker"]
    running = [subprocess.Popen(arguments, env=os.environ) for _ in range(count)]
    signal.signal(signal.SIGTERM, lambda *_: [process.terminate() for process in running] and None)
    for process in running:
        process.wait()


def ask_for(seconds: float, statuses: Counter[str]) -> None:
    """One client: one request after another on one connection, each 100 ms long at the engine."""
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
    """The figures of so many workers."""
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
        time.sleep(2)  # the other one, too
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
    """Measure, in turn, three times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--worker", action="store_true")
    options = parser.parse_args()
    if options.worker:
        worker()
    if options.workers:
        workers(options.workers)
        return
    report = {"schema": 1, "python": platform.python_version(), "load_before": os.getloadavg()[0]}
    report["runs"] = [measure(count) for _ in range(3) for count in (1, 2)]
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
