"""Damaged, stale and concurrently used caches and weights with real vLLM on the CPU: is the response ever wrong?

    sudo .venv/bin/python -m benchmarks.engine.cache_safety result.jsonl

Requires .venv-engine (make local creates it), a C++ compiler, and root for unshare: each replica runs in its own mount
namespace, so that its local folder has the same path but different content, as in a container. The Hub is a fake one on
loopback; the model is the stand-in model.

Expected before the run: every start returns the same text (greedy, one prompt); a start from the cache takes less than half
the CPU time of a first start; damaged archives are reported and discarded, and the start is as slow as a first one; only
damaged weight files are downloaded again; two concurrent starts, and one that is killed while it writes an archive, leave
nothing that a later start misreads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes.fake_hub import FakeHub, FakeModel, fake_hub
from image.engine.prepare import prewarm_marker
from local.preflight import free_port
from local.stand_in import files

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-engine/bin/python"
MODEL = "acme/stand-in"
PLAN_KEY = "plan"
START_LIMIT_SECONDS = 900


class Replica:
    """An engine, started by the entrypoint in its own mount namespace."""

    def __init__(self, base: Path, name: str, hub: FakeHub, **arguments: str) -> None:
        self.name, self.began = name, time.monotonic()
        self.log = base / f"{name}.log"
        self.port = free_port()
        private, seen = base / f"{name}.tmp", base / "tmp"
        for folder in (private, seen):
            folder.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(private), "TMPDIR": str(seen),
            "ENGINE_DEVICE": "cpu", "HF_HOME": str(base / "weights"), "HF_ENDPOINT": hub.address,
            "ENGINE_CACHE": str(base / "cache"), "ENGINE_PLAN_KEY": PLAN_KEY, "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1", "PYTHONWARNINGS": "ignore", "PORT": str(self.port),
        }  # fmt: skip
        options = {"--max-model-len": "512", "--max-num-seqs": "8", "--shutdown-timeout": "5"} | arguments
        engine = [str(PYTHON), "-m", "image.engine", MODEL, *(word for pair in options.items() for word in pair)]
        script = 'mount --bind "$1" "$2"; shift 2; exec "$@"'
        command = ["unshare", "-m", "sh", "-c", script, "sh", str(private), str(seen), *engine]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def logged(self) -> str:
        """The engine's log."""
        return self.log.read_text(errors="replace")

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition. Raises RuntimeError with the log if the engine exits first."""
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{self.logged()[-3000:]}")
            time.sleep(0.05)

    def answer(self) -> str:
        """The response to the one prompt."""
        body = {
            "model": MODEL,
            "prompt": "the people of the old town",
            "max_tokens": 40,
            "temperature": 0,
            "ignore_eos": True,
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            return str(json.load(answer)["choices"][0]["text"])

    def ready(self) -> bool:
        """Whether its watcher reported that it is ready."""
        return "engine: ready after" in self.logged()

    def cpu_seconds(self) -> float:
        """CPU seconds of the engine's session: its running processes, and the exited children they waited for."""
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid:
                total += sum(int(field) for field in fields[11:15])
        return total / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Stop the engine and its processes."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid:
                    os.kill(int(stat.parent.name), signal.SIGKILL)
            except OSError:
                continue
        self.process.wait()


def cache_lines(log: str) -> list[str]:
    """The lines of the entrypoint and its watcher about caches and weights."""
    wanted = (
        "engine: compile cache:",
        "engine: compiled:",
        "engine: bytecode:",
        "engine: weights:",
        "engine: ready",
        "engine: ledger",
    )
    return [line.removeprefix("engine: ") for line in log.splitlines() if line.startswith(wanted)]


class Study:
    """Runs starts, and writes a line of results for each."""

    def __init__(self, result: Path, base: Path, hub: FakeHub) -> None:
        self.result, self.base, self.hub = result, base, hub
        self.reference = ""

    def record(self, replica: Replica, **more: Any) -> None:
        """Send the prompt, and write the line of this start."""
        text, cpu = replica.answer(), replica.cpu_seconds()
        self.reference = self.reference or text
        line = {
            "start": replica.name, "cpu_seconds": round(cpu, 1), "same_answer": text == self.reference,
            "fetched_files": sorted({one.name for one in self.hub.served}), **more, "log": cache_lines(replica.logged()),
        }  # fmt: skip
        self.hub.served.clear()
        print(json.dumps({name: value for name, value in line.items() if name != "log"}), flush=True)
        with self.result.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def run(self, name: str, until: str = "engine: compile cache: compiled: cached", **arguments: str) -> None:
        """One start, until it has written its archives or has nothing to write."""
        replica = Replica(self.base, name, self.hub, **arguments)
        try:
            replica.wait(replica.ready)
            seconds = round(time.monotonic() - replica.began, 1)
            replica.wait(lambda: until in replica.logged() or prewarm_marker(self.base / "cache", PLAN_KEY).exists())
            self.record(replica, ready_seconds=seconds)
        finally:
            replica.stop()

    def archive(self, kind: str) -> Path:
        """The newest archive."""
        return max((self.base / "cache" / kind).glob("*/*.tar"), key=lambda path: path.stat().st_mtime_ns)


def main() -> None:
    """Run all scenarios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="file for the results, a JSON line per start")
    result = parser.parse_args().result
    if not PYTHON.exists():
        parser.error(f"{PYTHON.relative_to(ROOT)}: not found. Run make local once")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the finally blocks stop what was started
    result.unlink(missing_ok=True)
    base = Path(tempfile.mkdtemp(prefix="cache-safety-"))
    try:
        with fake_hub() as hub:
            hub.models[MODEL] = FakeModel(dict(files()))
            scenarios(Study(result, base, hub))
    finally:
        shutil.rmtree(base, ignore_errors=True)


def scenarios(study: Study) -> None:
    """Cause each fault, and start an engine after it."""
    base, hub = study.base, study.hub
    marker = prewarm_marker(base / "cache", PLAN_KEY)

    # Killed while it writes the archive of compiled files.
    killed = Replica(base, "killed-while-keeping", hub)
    try:
        killed.wait(lambda: bool([*(base / "cache").glob("*/*/*.part")]))
        os.killpg(killed.process.pid, signal.SIGSTOP)  # vLLM; its watcher is in another session
        parts = len([*(base / "cache").glob("*/*/*.part")])
        watcher = [pid for pid in _watchers(killed) if pid != killed.process.pid]
        for pid in watcher:
            os.kill(pid, signal.SIGKILL)
        os.killpg(killed.process.pid, signal.SIGCONT)
        study.record(killed, parts_left=parts, watchers_killed=len(watcher))
    finally:
        killed.stop()

    study.run("first")
    marker.unlink(missing_ok=True)
    study.run("kept", until="never")
    marker.unlink(missing_ok=True)

    archive = study.archive("compiled")
    os.truncate(archive, archive.stat().st_size // 2)
    (blob,) = [path for path in base.glob("weights/hub/*/blobs/*") if path.stat().st_size > 1 << 17][:1]
    os.truncate(blob, blob.stat().st_size // 2)
    study.run("torn-archive-and-torn-weights")
    marker.unlink(missing_ok=True)

    content = bytearray(study.archive("bytecode").read_bytes())
    content[len(content) // 3] ^= 1
    study.archive("bytecode").write_bytes(content)
    study.run("one-bit-of-bytecode", until="engine: compile cache: bytecode: cached")
    marker.unlink(missing_ok=True)

    study.run("stale-other-argument", **{"--max-num-seqs": "4"})
    marker.unlink(missing_ok=True)

    shutil.rmtree(base / "cache")
    shutil.rmtree(base / "weights")
    both = [Replica(base, f"two-at-once-{number}", hub) for number in (1, 2)]
    try:
        for replica in both:
            replica.wait(replica.ready)
        for replica in both:
            replica.wait(lambda r=replica: "engine: compile cache: compiled: cached" in r.logged())  # type: ignore[misc]
            study.record(replica)
    finally:
        for replica in both:
            replica.stop()
    study.run("after-two-at-once", until="never")


def _watchers(replica: Replica) -> list[int]:
    """The watcher of a replica: a process outside the replica's session that has the same log open."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str((folder / "fd/1").readlink()) == str(replica.log):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) != replica.process.pid:
                    found.append(int(folder.name))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main()
