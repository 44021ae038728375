"""Keeps the engine as it should be: up while it is asked for, up again after a death, down when nobody asks for long."""

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
    """Starts and stops one engine for the gateway in front of it; the protocol between them is in docs/gateway.md.

    The gateway asks over HTTP on loopback and learns the engine's address from a file, which is empty while the engine
    must not be sent anything: an engine leaves the file, then the gateway's rotation, and only then is it stopped. All
    starting and stopping is done by `step`, in the caller's thread; the HTTP server only notes what was asked.

    Args:
        engine: it runs already.
        replicas: the file that the gateway's discovery reads.
        progress: where starts are shown and stops are told.
        startup_seconds: how long a start may take.
        idle_seconds: stop the engine when nothing was asked for so long; None: never.
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
        """Where the gateway asks."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def publish(self, there: bool) -> None:
        """Tell the gateway where the engine is, or that there is none."""
        new = self._replicas.with_suffix(".new")
        new.write_text(f"{self._engine.url}\n" if there else "")
        new.replace(self._replicas)

    def step(self, gateway_url: str) -> None:
        """Do what is due now; a start is waited for.

        Args:
            gateway_url: where /info tells how long nothing was asked.
        """
        now = time.monotonic()
        if self._stopped:
            if self._asked.is_set() and now >= self._not_before:
                self._start()
        elif why := self._engine.death():
            self._progress.say(f"vLLM ended: {why}. The gateway holds requests; starting vLLM again")
            self._error = "the engine ended and is starting again"
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
            # Not the end: who waits is told why, and the next try may go better (memory that was full, a disk).
            self._error = "the engine does not start"
            self._not_before = time.monotonic() + self._pause_seconds
            self._progress.fail(f"{error}. Trying again in {self._pause_seconds:.0f} s")
            self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
            return
        self._asked.clear()
        self._stopped, self._error, self._pause_seconds = False, None, RESTART_AFTER_SECONDS
        self.publish(True)
        self._progress.end(f"vLLM answers again after {self._progress.elapsed() - started:.0f} s")

    def _scale_down(self, gateway_url: str) -> None:
        """Stop the engine, unless a request comes before the gateway has let go of it."""
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
        self._progress.phase("stop", "nothing was asked for long enough; vLLM stops")
        self._engine.stop(self._progress)
        self._stopped = True
        self._progress.end("scaled to zero; the next request starts vLLM again")

    def _answer(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        if (method, path) == ("POST", "/wake"):
            self._asked.set()
            return 202, {}
        if (method, path) == ("GET", "/state"):
            return 200, {"error": self._error, "phases": dict(self._engine.phase_ends)}
        return 404, {"error": "there is POST /wake and GET /state"}

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
                """Nothing: the gateway's log tells of its wakes."""

        return Handler


def _info(gateway_url: str) -> Mapping[str, Any]:
    """What the gateway tells of itself; empty where it does not answer."""
    try:
        with open_loopback(f"{gateway_url}/info", 5) as answer:
            told: dict[str, Any] = json.load(answer)
            return told
    except (OSError, ValueError):
        return {}
