"""Compiles and runs exact_engine.c, an engine with exact timing, and reads its log."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from local.preflight import free_port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "docs/benchmarks/client"


@dataclass(frozen=True)
class Answer:
    """The timing of one response, from the engine: seconds from the last byte of the request to each token."""

    read_at: float
    tokens: tuple[float, ...]


@dataclass(frozen=True)
class Engine:
    """A running engine."""

    endpoint: str
    log: Path

    def answers(self, last: int) -> list[Answer]:
        """Return the last so many completed responses."""
        lines = [[int(word) / 1e6 for word in line.split()] for line in self.log.read_text().splitlines()[-last:]]
        return [Answer(first, tuple(time - first for time in rest)) for first, *rest in lines]


@contextmanager
def engine(ttft_ms: float, gap_ms: float) -> Iterator[Engine]:
    """Run the engine on a free port until the block ends."""
    with TemporaryDirectory() as folder:
        program, log = Path(folder) / "exact_engine", Path(folder) / "log"
        subprocess.run(["cc", "-O2", "-o", program, HERE / "exact_engine.c"], check=True)
        port = free_port()
        times = [str(round(ms * 1000)) for ms in (ttft_ms, gap_ms)]
        running = subprocess.Popen([program, str(port), *times, log])
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.01)
            yield Engine(f"http://127.0.0.1:{port}", log)
        finally:
            running.kill()
            running.wait()
