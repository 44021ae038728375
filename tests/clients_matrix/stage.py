"""A gateway process with the environment that the plan renders, between the matrix's clients and a fake engine."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fakes.fake_engine import FakeEngine
from infra.planning import make_plan
from infra.stack_files import load_stack
from local.preflight import free_port
from tests.clients_matrix import engine

ROOT = Path(__file__).parents[2]
KEY = "sk-matrix-0123456789"
LIMITED_KEY = "sk-limited-0123456789"
LIMITED_NAME = "limited"
HEALTH_KEY = "sk-health-0123456789"
MODEL = "Qwen/Qwen3-4B-Instruct-2507"
ALIAS = "fast"
START_SECONDS = 1.0
PAGE = b"<!doctype html><meta charset=utf-8><title>A page of another origin</title>"


def wait_until(condition: Callable[[], bool], seconds: float = 20.0, what: str = "it") -> float:
    """Wait for something of another process; returns the seconds it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.01)
    return time.monotonic() - began


def _drain(answer: http.client.HTTPResponse) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, AttributeError):  # closed meanwhile
        answer.read()


class _Handler(BaseHTTPRequestHandler):
    """Two things on one port: the runner that wakes the engine, and a web page of another origin."""

    stage: Stage

    def do_GET(self) -> None:
        if self.path == "/state":
            self._reply(200, b'{"error": null, "phases": {}}', "application/json")
        else:
            self._reply(200, PAGE, "text/html")

    def do_POST(self) -> None:
        self.stage.wake()
        self._reply(202, b"{}", "application/json")

    def _reply(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the gateway's log is enough."""


class Stage:
    """What stands behind the clients."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._replicas = folder / "replicas"
        self._log = folder / "gateway.log"
        self._read = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.engine = FakeEngine(engine.answer)
        self._in_loop(self.engine.start())
        handler = type("Handler", (_Handler,), {"stage": self})
        self._helper = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._helper.serve_forever, daemon=True).start()
        self._lock = threading.Lock()
        self._starting: threading.Timer | None = None
        self.page_origin = f"http://127.0.0.1:{self._helper.server_port}"
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.starts = 0
        stack = {
            "servedModelName": f"{MODEL},{ALIAS}",
            "allowedOrigins": [self.page_origin],
            # Short, so that a start of a second sends comments.
            "gatewayEnvironment": ["GATEWAY_SSE_COMMENT_SECONDS=0.1", "GATEWAY_PROBE_SECONDS=0.1"],
        }
        plan = make_plan(load_stack("dev", stack))
        self.model = plan.gateway.environment["GATEWAY_MODEL"]
        keys = folder / "keys.json"
        health = {"key": HEALTH_KEY, "health": True}
        limited = {"key": LIMITED_KEY, "limits": {"concurrency": 1}}
        keys.write_text(json.dumps({"tester": KEY, LIMITED_NAME: limited, "health": health}))
        variables = {
            **plan.gateway.environment,
            # What a rendering adds, as `make local` does.
            "PATH": os.environ["PATH"],
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_METRICS_PORT": str(free_port()),
            "GATEWAY_DISCOVERY": f"file:{self._replicas}",
            "GATEWAY_DISCOVERY_SECONDS": "0.05",
            "GATEWAY_CAPACITY": f"local:{self.page_origin}",
            "GATEWAY_KEYS": f"file:{keys}",
            "GATEWAY_DRAIN_DELAY_SECONDS": "0",
        }
        self.publish()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "image.gateway"], cwd=ROOT, env=variables, stdout=log, stderr=log
            )
        try:
            wait_until(self._is_ready, what="the gateway's start")
        except BaseException:
            self.close()
            raise

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"the gateway ended: {self._log.read_text()[-2000:]}")
        try:
            return bool(self.info()["replicas"]["ready"])
        except OSError:
            return False

    def close(self) -> None:
        """Stop everything."""
        self._process.terminate()
        self.release()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._starting is not None:
            self._starting.cancel()
            self._starting.join()
        self._helper.shutdown()
        self._helper.server_close()
        self._in_loop(self.engine.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _in_loop(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    # The engine comes and goes

    def publish(self) -> None:
        """The engine is there."""
        self._replicas.with_suffix(".new").write_text(f"{self.engine.url}\n")
        self._replicas.with_suffix(".new").rename(self._replicas)

    def make_cold(self) -> None:
        """As a stack scaled to zero: the next request wakes the engine, which takes a second to start."""
        self._replicas.unlink(missing_ok=True)
        wait_until(lambda: self.info()["replicas"]["known"] == 0, what="the scale to zero")

    def wake(self) -> None:
        """The gateway asked the runner for an engine: start it unless it runs or starts."""
        with self._lock:
            if self._replicas.exists() or (self._starting is not None and self._starting.is_alive()):
                return
            self.starts += 1
            self._starting = threading.Timer(START_SECONDS, self.publish)
            self._starting.start()

    def watch(self) -> None:
        """From here on, look for a client that leaves."""
        self._loop.call_soon_threadsafe(self.engine.abandoned.clear)
        self._loop.call_soon_threadsafe(self.engine.reached.clear)
        self._loop.call_soon_threadsafe(self.engine.go_on.clear)

    def release(self) -> None:
        """Let every endless stream end."""
        self._loop.call_soon_threadsafe(self.engine.go_on.set)

    # What the gateway says

    def info(self) -> dict[str, Any]:
        """The gateway's /info."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/info")
            document: dict[str, Any] = json.loads(connection.getresponse().read())
            return document
        finally:
            connection.close()

    def log(self) -> list[dict[str, Any]]:
        """The lines that the gateway has logged since the last call."""
        data = self._log.read_bytes()
        end = data.rfind(b"\n") + 1
        lines = data[self._read : end].splitlines()
        self._read = end
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    @contextlib.contextmanager
    def stream_of_the_limited_key(self) -> Iterator[None]:
        """A stream that takes the only request that the limited key may have at once; ends with `release`."""
        self.watch()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = {"model": self.model, "stream": True, "messages": [{"role": "user", "content": engine.FOR_EVER}]}
        headers = {"authorization": f"Bearer {LIMITED_KEY}", "content-type": "application/json"}
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            drained = threading.Thread(target=_drain, args=(answer,), daemon=True)
            drained.start()
            yield
            self.release()
            drained.join(10)
        finally:
            self.release()
            connection.close()
