"""Compiles and runs exact_engine.c, and reads what it wrote down."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Answer:
    """One answer as the engine sent it: seconds from the request's last byte to each token."""

    read_at: float
    tokens: tuple[float, ...]


@dataclass(frozen=True)
class Engine:
    """A running engine."""

    endpoint: str
    log: Path

    def answers(self, last: int) -> list[Answer]:
        """Return the last so many answers that were finished."""
        lines = [[int(word) / 1e6 for word in line.split()] for line in self.log.read_text().splitlines()[-last:]]
        return [Answer(first, tuple(time - first for time in rest)) for first, *rest in lines]


@contextmanager
def engine(ttft_ms: float, gap_ms: float) -> Iterator[Engine]:
    """Serve on a free port until the block ends."""
    with TemporaryDirectory() as folder:
        program, log = Path(folder) / "exact_engine", Path(folder) / "log"
        subprocess.run(["cc", "-O2", "-o", program, HERE / "exact_engine.c"], check=True)
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
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
