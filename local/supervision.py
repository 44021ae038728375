"""Supervises the local engine: starts it on demand, restarts it after a crash, stops it when idle."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from local.engine import Engine
from local.failures import LocalError
from local.loopback import open_loopback
from local.progress import Progress

LONGEST_PAUSE_SECONDS = 60.0
RESTART_AFTER_SECONDS = 2.0
ROTATION_SECONDS = 10.0
ASK_EVERY_SECONDS = 1.0


class Supervisor:
    """Starts and stops one engine for the gateway; docs/gateway.md describes the protocol between them.

    The gateway sends requests over HTTP on loopback and reads the engine's address from a file, which is empty while the
    engine must not receive requests: an engine is removed from the file, then from the gateway's rotation, and only then
    stopped. `step` starts and stops the engine, in the caller's thread; the HTTP server only records requests.

    Args:
        engine: the engine, which is already running.
        replicas: the file that the gateway's discovery reads.
        progress: shows starts and stops.
        startup_seconds: timeout of a start.
        idle_seconds: idle time after which the engine is stopped; None for never.
    """

    def __init__(
        self, engine: Engine, replicas: Path, progress: Progress, startup_seconds: float, idle_seconds: float | None
    ) -> None:
        self._engine = engine
        self._replicas = replicas
        self._progress = progress
        self._startup_seconds = startup_seconds
        self._idle_seconds = idle_seconds
        self._asked = threading.Event()
        self._stopped = False
        self._error: str | None = None
        self._pause_seconds = RESTART_AFTER_SECONDS
        self._not_before = 0.0
        self._ask_again = 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="supervisor", daemon=True).start()
        self.publish(True)

    @property
    def url(self) -> str:
        """The URL for the gateway."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop the HTTP server."""
        self._server.shutdown()
        self._server.server_close()

    def publish(self, there: bool) -> None:
        """Publish the engine's address to the gateway, or remove it."""
        new = self._replicas.with_suffix(".new")
        new.write_text(f"{self._engine.url}\n" if there else "")
        new.replace(self._replicas)

    def step(self, gateway_url: str) -> None:
        """Do what is due now; blocks during a start.

        Args:
            gateway_url: the gateway, whose /info reports the idle time.
        """
        now = time.monotonic()
        if self._stopped:
            if self._asked.is_set() and now >= self._not_before:
                self._start()
        elif why := self._engine.death():
            self._progress.say(f"vLLM exited: {why}. The gateway holds requests; restarting vLLM")
            self._error = "the engine exited and is restarting"
            self._stopped = True
            self._asked.set()
            self._not_before = now + RESTART_AFTER_SECONDS
        elif self._idle_seconds is not None and now >= self._ask_again:
            self._ask_again = now + ASK_EVERY_SECONDS
            if float(_info(gateway_url).get("idle_seconds", 0.0)) >= self._idle_seconds:
                self._scale_down(gateway_url)

    def _start(self) -> None:
        started = self._progress.elapsed()
        self._engine.start()
        try:
            self._engine.wait_ready(self._progress, self._startup_seconds)
        except LocalError as error:
            # Not fatal: held requests get the reason, and a retry may succeed (after memory or a disk was full).
            self._error = "the engine fails to start"
            self._not_before = time.monotonic() + self._pause_seconds
            self._progress.fail(f"{error}. Retrying in {self._pause_seconds:.0f} s")
            self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
            return
        self._asked.clear()
        self._stopped, self._error, self._pause_seconds = False, None, RESTART_AFTER_SECONDS
        self.publish(True)
        self._progress.end(f"vLLM is ready again after {self._progress.elapsed() - started:.0f} s")

    def _scale_down(self, gateway_url: str) -> None:
        """Stop the engine, unless a request arrives before the gateway has removed it from rotation."""
        self._asked.clear()
        self.publish(False)
        deadline = time.monotonic() + ROTATION_SECONDS
        while (info := _info(gateway_url)).get("replicas", {}).get("known") != 0:
            if time.monotonic() > deadline:
                self.publish(True)
                return
            time.sleep(0.05)
        if self._asked.is_set() or info["idle_seconds"] < (self._idle_seconds or 0.0):
            self.publish(True)
            return
        self._progress.phase("stop", "idle; vLLM stops")
        self._engine.stop(self._progress)
        self._stopped = True
        self._progress.end("scaled to zero; the next request starts vLLM again")

    def _answer(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        if (method, path) == ("POST", "/wake"):
            self._asked.set()
            return 202, {}
        if (method, path) == ("GET", "/state"):
            return 200, {"error": self._error, "phases": dict(self._engine.phase_ends)}
        return 404, {"error": "unknown path; use POST /wake or GET /state"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, document = answer(self.command, self.path)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815 - as the base class names them; neither has a body that is read

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing: the gateway logs its wakes."""

        return Handler


def _info(gateway_url: str) -> Mapping[str, Any]:
    """The gateway's /info; empty if it does not respond."""
    try:
        with open_loopback(f"{gateway_url}/info", 5) as answer:
            told: dict[str, Any] = json.load(answer)
            return told
    except (OSError, ValueError):
        return {}
