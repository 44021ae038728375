"""Two to eight processes that download one model into one folder at once, while they are killed and the disk fails.

    .venv/bin/python -m benchmarks.engine.weight_writers result.jsonl --runs 60

Each run draws a fault: no working lock (``flock`` fails with ENOLCK, EOPNOTSUPP or ESTALE, or succeeds without locking), a
disk that is full for a while, a mount that becomes read-only for a while (a real tmpfs; both need root), connections that
break. Writers are killed with SIGKILL at random moments and started again. Expected: no file with a hash as its name ever has
another content, and in the end a start without the Hub finds a complete model.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fakes.fake_hub import FakeHub, FakeModel, fake_hub

ROOT = Path(__file__).resolve().parents[2]
MODEL = "acme/tiny"
MIB = 1 << 20
RUN_LIMIT_SECONDS = 120
LOCKS = {"works": None, "enolck": errno.ENOLCK, "eopnotsupp": errno.EOPNOTSUPP, "estale": errno.ESTALE, "lies": 0}
DISKS = ("good", "full", "read-only")
WRITER = """
import fcntl, os, runpy, sys
number = os.environ.get("FLOCK")
def flock(*_):
    if int(number):
        raise OSError(int(number), os.strerror(int(number)))
if number is not None:
    fcntl.flock = flock
sys.argv = ["fetch", os.environ["MODEL"]]
runpy.run_module("image.engine.fetch", run_name="__main__")
"""


def model(seed: int, sizes: Sequence[int]) -> FakeModel:
    """Files of random bytes."""
    made = random.Random(seed)  # noqa: S311
    files = {f"model-{i:05}-of-{len(sizes):05}.safetensors": made.randbytes(size) for i, size in enumerate(sizes, 1)}
    return FakeModel({"config.json": b'{"model_type": "tiny"}', **files})


def wrong_files(home: Path) -> list[str]:
    """Files whose name is a hash and whose content has another one."""
    found = []
    for blob in home.glob("hub/*/blobs/*"):
        if blob.suffix != ".part":
            content = blob.read_bytes()
            git = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
            if blob.name not in (hashlib.sha256(content).hexdigest(), git):
                found.append(blob.name)
    return found


def start(home: Path, hub: FakeHub, lock: int | None, code: Path) -> subprocess.Popen[bytes]:
    """A writer."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(code), "HF_HOME": str(home), "HF_ENDPOINT": hub.address,
                   "MODEL": MODEL, "PYTHONDONTWRITEBYTECODE": "1"} | ({} if lock is None else {"FLOCK": str(lock)})  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", WRITER], env=environment, cwd=code, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


@contextlib.contextmanager
def disk(folder: Path, size_mib: int) -> Iterator[bool]:
    """A tmpfs of a limited size; False without root."""
    folder.mkdir()
    mounted = os.getuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)], check=False
    ).returncode  # fmt: skip
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def remount(folder: Path, options: str) -> None:
    """Change the mount."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=False, stderr=subprocess.DEVNULL)


def run(seed: int, base: Path, hub: FakeHub, code: Path) -> dict[str, Any]:
    """One run; returns what happened."""
    drawn = random.Random(seed)  # noqa: S311
    sizes = [drawn.randrange(1, 5) * MIB + drawn.randrange(MIB) for _ in range(drawn.randrange(2, 5))]
    hub.models[MODEL] = model(seed, sizes)
    hub.served.clear()
    hub.sent = 0
    writers, fault = drawn.randrange(2, 9), drawn.choice(DISKS)
    lock = drawn.choice(list(LOCKS))
    home, needed = base / f"home-{seed}", sum(sizes)
    wrong: list[str] = []
    deaths, began = 0, time.monotonic()
    # The spare space that the entrypoint wants is far more than these files: the size of the disk is not the fault here.
    with disk(home, 1200) as mounted:
        for name in list(hub.models[MODEL].files)[1:]:
            if drawn.random() < 0.3:
                hub.models[MODEL].cuts[name] = drawn.randrange(1, MIB)
        running = [start(home, hub, LOCKS[lock], code) for _ in range(writers)]
        done, kills, faulty = 0, drawn.randrange(0, 6), fault != "good" and mounted
        ballast = home / "ballast"
        while running and time.monotonic() - began < RUN_LIMIT_SECONDS:
            time.sleep(drawn.uniform(0.02, 0.25))
            wrong += wrong_files(home)
            if faulty and fault == "full":
                with contextlib.suppress(OSError), ballast.open("wb") as file:
                    file.write(bytes(1199 * MIB - 2 * MIB))
            elif faulty:
                remount(home, "ro")
            if kills:
                kills -= 1
                drawn.choice(running).send_signal(signal.SIGKILL)
            for process in [one for one in running if one.poll() is not None]:
                running.remove(process)
                process.communicate()
                done += process.returncode == 0
                deaths += process.returncode != 0
                if process.returncode != 0:
                    if mounted:
                        remount(home, "rw")
                        ballast.unlink(missing_ok=True)
                        faulty = False
                    running.append(start(home, hub, LOCKS[lock], code))
        for process in running:
            process.kill()
            process.communicate()
        wrong += wrong_files(home)
        fetched = hub.sent
        whole = is_whole(home, code)
        content = hub.models[MODEL].files
        snapshot = home / "hub/models--acme--tiny/snapshots" / hub.models[MODEL].commit
        same = all((snapshot / name).is_file() and (snapshot / name).read_bytes() == content[name] for name in content)
    return {"seed": seed, "writers": writers, "lock": lock, "disk": fault if mounted else "good", "deaths": deaths,
            "wrong": len(wrong), "whole": bool(whole and same), "fetched_over_needed": round(fetched / needed, 2),
            "seconds": round(time.monotonic() - began, 1)}  # fmt: skip


def is_whole(home: Path, code: Path) -> bool:
    """Whether a start without a Hub finds the model."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(code),
        "HF_HOME": str(home),
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    done = subprocess.run([sys.executable, "-m", "image.engine.fetch", MODEL], env=environment, cwd=code,
                          capture_output=True, check=False, timeout=60)  # fmt: skip
    return done.returncode == 0


def main() -> None:
    """Run, and write a line of JSON for each run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine.weight_writers", description=__doc__.splitlines()[0]
    )
    parser.add_argument("result", type=Path, help="file for the results, a line of JSON for each run")
    parser.add_argument("--runs", type=int, default=60, help="number of runs (60)")
    parser.add_argument("--code", type=Path, default=ROOT, help="the checkout to test (this one)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, fake_hub() as hub, given.result.open("w") as file:
        for seed in range(given.runs):
            found = run(seed, Path(folder), hub, given.code.resolve())
            print(json.dumps(found), flush=True)
            file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
