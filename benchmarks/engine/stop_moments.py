"""SIGTERM at 20 moments of a start, sent to the entrypoint as PID 1 of its own process namespace.

    sudo .venv/bin/python -m benchmarks.engine.stop_moments result.jsonl

Each start is stopped at another moment: while the driver hangs, the lock is held, the Hub does not answer, a file stalls,
and while a fake vLLM is imported. Expected: the
namespace ends within a second, with exit code 143, and the next start with the same folders finds nothing half-written.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from fakes.fake_hub import FakeHub, FakeModel, fake_hub

ROOT = Path(__file__).resolve().parents[2]
MODEL = "acme/tiny"
LIMIT_SECONDS = 60.0
DEAF_SECONDS = 3.0  # Python starts in milliseconds, on a busy machine in seconds
VLLM = (
    "import sys, time; print('VLLM', sys.argv[1:], flush=True); time.sleep(float(__import__('os').environ['IMPORT']))\n"
)
DRIVER = "#!/bin/sh\nsleep $HANG\necho 'NVIDIA A10G, 23028, 580.95.05, 8.6, 0'\n"
# The fault, and the line of the log after which SIGTERM is sent, or the seconds to wait. They count from the moment at which PID 1
# has a handler; a deployment's own init covers the time before, in which Python starts.
MOMENTS: list[tuple[str, str | float]] = [
    ("none", 0.0), ("none", 0.02), ("none", 0.05), ("none", 0.1), ("none", 0.15), ("none", 0.2), ("none", 0.3), ("none", 0.4),
    ("driver hangs", 0.5), ("driver hangs", 1.0), ("lock held", "waiting"), ("lock held", 1.5),
    ("hub does not answer", 1.0), ("hub does not answer", 2.0), ("hub is busy", "waiting"),
    ("file stalls", "GiB to download"), ("file stalls", 1.5), ("file stalls", 0.5),
    ("vLLM is imported", "VLLM"), ("vLLM is imported", 3.0),
]  # fmt: skip


class Start:
    """The entrypoint as PID 1."""

    def __init__(self, base: Path, hub: FakeHub, code: Path, **more: str) -> None:
        self.log = base / "log"
        environment = {
            "PATH": f"{base / 'bin'}:/usr/bin:/bin", "PYTHONPATH": f"{code}:{base / 'site'}", "HF_HOME": str(base / "home"),
            "HF_ENDPOINT": hub.address, "ENGINE_CACHE": str(base / "cache"), "ENGINE_STAGE": str(base / "disk"),
            "TMPDIR": str(base / "tmp"), "HANG": "0", "IMPORT": "0", "PORT": "18765",
        } | more  # fmt: skip
        command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "image.engine", MODEL]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=code, stdout=log, stderr=log)

    def inside(self) -> int | None:
        """The process that is PID 1 inside."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def hears(self) -> bool:
        """Whether PID 1 waits for signals, so that the kernel delivers them: it then blocks SIGCHLD, too."""
        if (pid := self.inside()) is None:
            return False
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return bool(int(status["SigBlk"], 16) >> (signal.SIGCHLD - 1) & 1)

    def wait_for(self, moment: str | float) -> None:
        """Wait for a line of the log, or for some seconds after the start."""
        deadline = time.monotonic() + (moment if isinstance(moment, float) else LIMIT_SECONDS)
        began = time.monotonic()
        while time.monotonic() - began < DEAF_SECONDS and not self.hears():
            time.sleep(0.002)
        deadline += time.monotonic() - began
        while time.monotonic() < deadline and not (isinstance(moment, str) and moment in self.log.read_text()):
            time.sleep(0.005)

    def stop(self) -> tuple[float, int]:
        """Send SIGTERM; returns the seconds until all ended, and the exit code (-1: it had to be killed)."""
        began = time.monotonic()
        if (pid := self.inside()) is not None:
            os.kill(pid, signal.SIGTERM)
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = -1
        return time.monotonic() - began, code


def prepare(base: Path) -> None:
    """A driver, a vLLM and folders."""
    module = base / "site/vllm/entrypoints/openai/api_server.py"
    module.parent.mkdir(parents=True)
    for folder in module.parents[:3]:
        (folder / "__init__.py").touch()
    module.write_text(VLLM)
    for name in ("bin", "disk", "tmp", "home/hub/models--acme--tiny"):
        (base / name).mkdir(parents=True)
    (base / "bin/nvidia-smi").write_text(DRIVER)
    (base / "bin/nvidia-smi").chmod(0o755)


def run(fault: str, moment: str | float, base: Path, code: Path) -> dict[str, Any]:
    """Stop one start, then start again with the same folders."""
    prepare(base)
    with fake_hub() as hub, (base / "home/hub/models--acme--tiny/.lock").open("a+") as lock:
        model = hub.models[MODEL] = FakeModel({"config.json": b"{}", "model.safetensors": os.urandom(24 << 20)})
        stalled = threading.Event()
        more: dict[str, str] = {}
        if fault == "none":
            more["IMPORT"] = "20"
        elif fault == "driver hangs":
            more["HANG"] = "20"
        elif fault == "lock held":
            fcntl.flock(lock, fcntl.LOCK_EX)
        elif fault == "hub does not answer":
            hub.stalled = stalled
        elif fault == "hub is busy":
            hub.busy = 600
        elif fault == "file stalls":
            model.stalled["model.safetensors"] = stalled
        elif fault == "vLLM is imported":
            more["IMPORT"] = "20"
        start = Start(base, hub, code, **more)
        start.wait_for(moment)
        seconds, exit_code = start.stop()
        fcntl.flock(lock, fcntl.LOCK_UN)
        stalled.set()
        hub.stalled, hub.busy = None, 0
        model.stalled.clear()
        again = Start(base, hub, code)
        sound = again.process.wait(LIMIT_SECONDS) == 0 and "VLLM ['--model'" in again.log.read_text()
        content = model.files["model.safetensors"]
        found = [path for path in base.rglob("model.safetensors") if ".part" not in str(path)]
        sound = sound and bool(found) and all(path.read_bytes() == content for path in found)
    return {
        "fault": fault,
        "moment": moment,
        "seconds": round(seconds, 2),
        "exit_code": exit_code,
        "next_start_is_sound": sound,
    }


def main() -> None:
    """Stop 20 starts, and write a line of JSON for each."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine.stop_moments", description=__doc__.splitlines()[0]
    )
    parser.add_argument("result", type=Path, help="file for the results, a line of JSON for each start")
    parser.add_argument("--code", type=Path, default=ROOT, help="the checkout to test (this one)")
    given = parser.parse_args()
    with given.result.open("w") as file:
        for fault, moment in MOMENTS:
            with tempfile.TemporaryDirectory() as folder:
                found = run(fault, moment, Path(folder), given.code.resolve())
            print(json.dumps(found), flush=True)
            file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
