"""Local scale-to-zero with the real supervisor, the real gateway and a fake vLLM as a real process."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from local.engine import Engine
from local.preflight import free_port
from local.progress import Progress
from local.supervision import Supervisor

FAKE_VLLM = Path(__file__).with_name("fake_vllm.py")
SECONDS = 30.0
STARTED = "non-default args"


class Stage:
    """An engine, its supervisor and a gateway, stepped by the test."""

    def __init__(self, folder: Path, idle_seconds: float | None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.obstacle = folder / "obstacle"
        self.shown = StringIO()
        progress = Progress(self.shown)
        program: list[str | Path] = [
            "sh",
            "-c",
            'test -e "$0" && { echo "ValueError: in the way"; exit 1; }; exec "$@"',
        ]
        program += [self.obstacle, sys.executable, FAKE_VLLM]
        engine_port = free_port()
        arguments = ["--port", str(engine_port), "--model", "tiny"]
        self.engine = Engine(program, arguments, engine_port, os.environ, folder / "engine.log")
        self.engine.start()
        self.engine.wait_ready(progress, SECONDS)
        self.supervisor = Supervisor(self.engine, folder / "replicas", progress, SECONDS, idle_seconds)
        settings = {
            "HOST": "127.0.0.1", "PORT": str(self.port), "METRICS_PORT": str(free_port()), "MODEL": "tiny",
            "DISCOVERY": f"file:{folder / 'replicas'}", "DISCOVERY_SECONDS": "0.02", "PROBE_SECONDS": "0.05",
            "CAPACITY": f"local:{self.supervisor.url}", "KEYS": "none", "CONCURRENCY_PER_REPLICA": "32",
        }  # fmt: skip
        with (folder / "gateway.log").open("wb") as log:
            self.gateway = subprocess.Popen(
                [sys.executable, "-m", "image.gateway"], stdout=log, stderr=log,
                env={**os.environ, **{f"GATEWAY_{name}": value for name, value in settings.items()}},
            )  # fmt: skip
        self.log = folder / "gateway.log"
        self.progress = progress
        self.until(lambda: self.info().get("state") == "ready", "the gateway to be ready")

    def close(self) -> None:
        self.gateway.kill()
        self.gateway.wait()
        self.supervisor.close()
        self.engine.stop(self.progress)

    def until(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}\n{self.shown.getvalue()}\n{self.log.read_text()}"
            self.supervisor.step(self.url)
            time.sleep(0.01)

    def info(self) -> Any:
        try:
            with urllib.request.urlopen(f"{self.url}/info", timeout=5) as answer:
                return json.load(answer)
        except (OSError, urllib.error.URLError):
            return {}

    def ask(self, max_tokens: int = 3) -> list[str]:
        """The data of every event of a streamed answer."""
        body = {
            "model": "tiny",
            "stream": True,
            "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": "?"}],
        }
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return [line[6:].decode().strip() for line in answer if line.startswith(b"data: ")]

    def starts(self) -> int:
        return self.engine.log.read_text().count(STARTED)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[[float | None], Stage]]:
    made: list[Stage] = []

    def make(idle_seconds: float | None) -> Stage:
        made.append(Stage(tmp_path, idle_seconds))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_an_idle_engine_is_stopped_and_twenty_requests_wake_it_once(stage: Callable[[float | None], Stage]) -> None:
    it = stage(0.3)
    it.until(lambda: "scaled to zero" in it.shown.getvalue(), "the engine to be stopped")
    assert it.engine.death() is not None
    assert it.info()["state"] == "cold"
    with ThreadPoolExecutor(20) as pool:
        answers: list[Future[list[str]]] = [pool.submit(it.ask) for _ in range(20)]
        it.until(lambda: all(answer.done() for answer in answers), "all to be answered")
    assert [answer.result()[-1] for answer in answers] == ["[DONE]"] * 20
    assert it.starts() == 2
    told = [phase["phase"] for phase in it.info()["cold_start"]["phases"]]
    assert (told[:2], told[-1][-5:]) == (["instance", "image"], "ready")


def test_an_engine_with_a_stream_open_is_never_stopped(stage: Callable[[float | None], Stage]) -> None:
    it = stage(0.3)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(it.ask, 100)  # two seconds
        it.until(answer.done, "the stream to end")
        assert answer.result()[-1] == "[DONE]"
        assert it.starts() == 1
        assert "scaled to zero" not in it.shown.getvalue()


def test_without_a_time_it_stays(stage: Callable[[float | None], Stage]) -> None:
    it = stage(None)
    it.until(lambda: it.info()["idle_seconds"] > 0.5, "half a second")
    assert it.engine.death() is None


@pytest.mark.parametrize(
    "last", [{"replicas": {"known": 0}, "idle_seconds": 0.0}, {"replicas": {"known": 1}, "idle_seconds": 9.0}, {}]
)
def test_it_stays_when_a_request_comes_or_the_gateway_does_not_let_go(
    stage: Callable[[float | None], Stage], last: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    it = stage(5.0)
    told = [{"replicas": {"known": 1}, "idle_seconds": 9.0}]
    monkeypatch.setattr("local.supervision._info", lambda url: told.pop() if told else last)
    monkeypatch.setattr("local.supervision.ROTATION_SECONDS", 0.1)
    it.until(lambda: not told, "a look at the gateway")
    assert it.engine.death() is None
    assert (tmp_path / "replicas").read_text() == f"{it.engine.url}\n"


def test_a_start_that_fails_is_told_and_tried_again(stage: Callable[[float | None], Stage]) -> None:
    it = stage(0.3)
    it.until(lambda: "scaled to zero" in it.shown.getvalue(), "the engine to be stopped")
    it.obstacle.touch()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(it.ask)
        it.until(lambda: "ValueError: in the way" in it.shown.getvalue(), "the failed start")
        with urllib.request.urlopen(f"{it.supervisor.url}/state", timeout=5) as state:
            assert json.load(state)["error"] == "the engine fails to start"
        it.obstacle.unlink()
        it.until(answer.done, "the answer")
        assert answer.result()[-1] == "[DONE]"
