"""`make local` end to end, with the real gateway and a fake vLLM: started, drained, killed, stopped at any time."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.preflight import free_port

ROOT = Path(__file__).parents[2]
FAKE_VLLM = Path(__file__).with_name("fake_vllm.py")
SECONDS = 30.0


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {SECONDS:.0f} s for {what}"
        time.sleep(0.02)
    return found


class Clone:
    """A copy of the repository whose environments are this one's, and whose vLLM is the fake."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.port = free_port()
        self.runner: subprocess.Popen[bytes] | None = None
        for name in ("image", "infra", "local"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Pulumi.yaml", "Pulumi.dev.yaml"):
            shutil.copy(ROOT / name, folder / name)
        self.program(".venv-local", f'exec {sys.executable} "$@"')
        self.program(".venv-engine", f'exec {sys.executable} {FAKE_VLLM} "$@"')

    def program(self, environment: str, line: str) -> None:
        python = self.folder / environment / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{line}\n")
        python.chmod(0o755)

    def start(self, *arguments: str, module: str = "local.serve") -> None:
        command = [sys.executable, "-m", module, "--weights", "stand-in", "--port", str(self.port), *arguments]
        with self.output.open("wb") as output:
            self.runner = subprocess.Popen(command, cwd=self.folder, stdout=output, stderr=output)

    def says(self, words: str) -> None:
        until(lambda: words in self.output.read_text() or self.ended() is not None, words)
        assert words in self.output.read_text(), self.output.read_text()

    def ended(self) -> int | None:
        assert self.runner
        return self.runner.poll()

    def signal(self, number: signal.Signals) -> int:
        assert self.runner
        self.runner.send_signal(number)
        return self.runner.wait(SECONDS)

    def processes(self) -> dict[int, str]:
        """All processes of this clone except the runner."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_text().replace("\0", " ")
                inside = str(self.folder) in command or (entry / "cwd").readlink().is_relative_to(self.folder)
            except OSError:
                continue
            if inside and command and (self.runner is None or int(entry.name) != self.runner.pid):
                found[int(entry.name)] = command
        return found

    def engine(self) -> int:
        (pid,) = [
            pid for pid, command in self.processes().items() if command.startswith(f"{sys.executable} {FAKE_VLLM}")
        ]
        return pid

    def stream(self, max_tokens: int) -> Iterator[str]:
        key = (self.folder / ".local" / "api-key").read_text().strip()
        body = {"model": "Qwen/Qwen3-4B-Instruct-2507", "stream": True, "max_tokens": max_tokens,
                "messages": [{"role": "user", "content": "Hello!"}]}  # fmt: skip
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions", json.dumps(body).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    yield line[len(b"data: ") :].decode().strip()

    def info(self) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/info", timeout=5) as answer:
            return json.load(answer)


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    made = Clone(tmp_path)
    yield made
    if made.runner and made.runner.poll() is None:
        made.runner.kill()
        made.runner.wait()
    until(lambda: not made.processes(), "every process to be gone")


def test_it_serves_outlives_its_engine_drains_and_leaves_nothing(clone: Clone) -> None:
    clone.start()
    clone.says("Ctrl-C stops.")
    shown = clone.output.read_text()
    assert f"at http://127.0.0.1:{clone.port}/v1, vLLM 9.9.9 on the CPU" in shown
    assert "STAND-IN: Qwen/Qwen3-4B-Instruct-2507 is not available (WEIGHTS=stand-in)" in shown
    assert (clone.folder / ".local" / "api-key").read_text().strip() not in shown
    metrics = re.search(r"^Metrics +(\S+)", shown, re.MULTILINE)
    assert metrics
    with urllib.request.urlopen(metrics[1], timeout=5) as answer:
        scraped = answer.read()
    assert b"# TYPE " in scraped
    assert b"gateway_cold_start_seconds_count 0.0" in scraped
    assert b'path="/health' not in scraped, "probes are not counted"
    assert "vLLM 9.9.9 here, but the stack deploys 0." in shown
    info = clone.info()
    assert (info["engine_version"], info["stand_in"], info["gpu"]) == ("9.9.9", True, None)
    assert info["cold_start"] is None, "vLLM was ready before the gateway started"

    # The engine dies under a stream: the client is told, the gateway lives, the engine comes back.
    events = clone.stream(max_tokens=500)
    assert "word0" in next(events)
    os.kill(clone.engine(), signal.SIGKILL)
    rest = list(events)
    assert "error" in json.loads(next(event for event in reversed(rest) if event != "[DONE]"))
    assert clone.info()["engine_version"] == "9.9.9"
    clone.says("vLLM exited: it was killed (SIGKILL)")
    assert list(clone.stream(max_tokens=3))[-1] == "[DONE]"
    clone.says("vLLM is ready again")

    # Asked to stop under a stream: the stream ends whole.
    events = clone.stream(max_tokens=40)
    next(events)
    assert clone.runner
    clone.runner.send_signal(signal.SIGTERM)
    rest = list(events)
    assert (len(rest), rest[-1]) == (40, "[DONE]")
    assert clone.runner.wait(SECONDS) == 0
    assert clone.output.read_text().endswith("stopped; nothing is left running\n")
    assert clone.processes() == {}
    assert not (clone.folder / ".local" / "tmp").exists()


def test_a_runner_that_is_killed_takes_gateway_and_engine_along(clone: Clone) -> None:
    clone.start()
    clone.says("Ctrl-C stops.")
    assert len(clone.processes()) >= 5  # two leashes, gateway, engine, the engine's child
    assert clone.signal(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not clone.processes(), "every process to be gone")


def test_a_stop_while_vllm_loads_leaves_nothing(clone: Clone) -> None:
    clone.start("--set", "engineEnvironment=[FAKE_VLLM=hangs]")
    log = clone.folder / ".local" / "logs" / "engine.log"
    until(lambda: log.exists() and "Starting to load model" in log.read_text(), "the fake to load")
    assert clone.signal(signal.SIGTERM) == 128 + signal.SIGTERM
    assert clone.processes() == {}


def test_a_second_signal_ends_a_drain_at_once(clone: Clone) -> None:
    clone.start()
    clone.says("Ctrl-C stops.")
    events = clone.stream(max_tokens=5000)
    next(events)
    assert clone.runner
    clone.runner.send_signal(signal.SIGTERM)
    clone.says("stop     ")
    assert clone.signal(signal.SIGTERM) == 128 + signal.SIGTERM
    assert clone.processes() == {}


def test_an_engine_that_dies_while_loading_is_one_line_with_the_log(clone: Clone) -> None:
    clone.start("--set", "engineEnvironment=[FAKE_VLLM=dies]")
    until(lambda: clone.ended() is not None, "the end")
    assert clone.ended() == 1
    last = clone.output.read_text().splitlines()[-1]
    assert last == (
        "error: load: vLLM exited: ValueError: the model's config has no layers. "
        f"The log: {clone.folder}/.local/logs/engine.log"
    )
    assert "Traceback" not in clone.output.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stack", "none"], "there is no Pulumi.none.yaml. Set one of: dev"),
        (["--set", "gpu=a11g"], "gpu: found 'a11g'"),
        (
            ["--set", "maxModelLen=999999"],
            "maxModelLen: found 999999, but Qwen/Qwen3-4B-Instruct-2507 supports at most 262144",
        ),
    ],
)
def test_a_plan_that_cannot_work_is_told_without_a_trace(clone: Clone, arguments: list[str], words: str) -> None:
    clone.start(*arguments)
    until(lambda: clone.ended() is not None, "the end")
    assert clone.ended() == 1
    assert words in clone.output.read_text()
    assert "Traceback" not in clone.output.read_text()


def test_a_busy_port_is_one_line_before_anything_is_installed(clone: Clone) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", clone.port))
        busy.listen()
        clone.start(module="local")
        until(lambda: clone.ended() is not None, "the end")
    assert clone.ended() == 1
    expected = (
        f"port {clone.port} is busy (Address already in use). Set another, for example make local PORT={clone.port + 1}"
    )
    assert f"error: {expected}\n" in clone.output.read_text()
    assert "Traceback" not in clone.output.read_text()
    assert not (clone.folder / ".local" / "logs").exists()


def test_clients_find_the_endpoint_while_it_runs(clone: Clone) -> None:
    clone.start()
    clone.says("Ready after")
    address = clone.folder / ".local" / "endpoint"
    assert address.read_text() == f"http://127.0.0.1:{clone.port}\n"
    with urllib.request.urlopen(address.read_text().strip(), timeout=5) as page:
        assert b"<title>Chat</title>" in page.read()
    clone.signal(signal.SIGINT)
    assert not address.exists()
