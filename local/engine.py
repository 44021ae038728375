"""Runs vLLM as a process on this machine: starts it, follows its log, stops it."""

from __future__ import annotations

import json
import re
import time
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from local.failures import LocalError, reason
from local.loopback import open_loopback
from local.processes import Child
from local.progress import Progress

STOP_SECONDS = 45.0
START_POLL_SECONDS = 0.2
# Lines that vLLM logs at startup, with the phase and detail that they indicate.
MILESTONES: Sequence[tuple[re.Pattern[str], str, str]] = tuple(
    (re.compile(pattern), phase, detail)
    for pattern, phase, detail in (
        (r"non-default args", "load", "vLLM reads the configuration"),
        (r"Initializing a V\d LLM engine", "load", "vLLM starts its engine"),
        (r"Starting to load model", "load", "vLLM loads the weights"),
        (r"Loading weights took", "load", "the weights are loaded"),
        (r"Warming up model for the compilation|Compiling a graph", "compile", "vLLM compiles"),
        (r"[Cc]apturing CUDA graph", "compile", "vLLM captures CUDA graphs"),
        (r"KV cache size", "warm-up", "vLLM lays out its KV cache"),
        (r"init engine .* took", "warm-up", "vLLM opens its port"),
    )
)
# The log line that ends each phase of the cold start ledger.
PHASE_ENDS = {
    "weights": re.compile(r"Loading weights took"),
    "compile": re.compile(r"init engine .* took"),
}


def latest_milestone(output: str) -> tuple[str, str] | None:
    """Phase and detail of the last milestone in vLLM's log; None if there is no milestone yet."""
    passed = [
        (last.start(), phase, detail) for pattern, phase, detail in MILESTONES for last in pattern.finditer(output)
    ]
    return max(passed)[1:] if passed else None


class Engine:
    """One vLLM server on 127.0.0.1. It can be restarted after it was stopped or died.

    Args:
        command: the program and the arguments before vLLM's own.
        arguments: vLLM's arguments.
        port: the port to listen on.
        environment: its complete environment.
        log: the file for its output.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        arguments: Sequence[str],
        port: int,
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        self._command = [*command, *arguments]
        self._environment = environment
        self.port = port
        self.log = log
        self._child: Child | None = None
        self._serves = False
        self.phase_ends: dict[str, float] = {}
        """The end of each phase of the latest start found in the log so far, in seconds since the epoch."""

    @property
    def url(self) -> str:
        """Its URL, without /v1."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the process; `wait_ready` waits until it is ready."""
        self._serves = False
        # The machine and the program exist already, so these phases take no time.
        self.phase_ends = dict.fromkeys(("instance", "image"), time.time())
        self._child = Child("vLLM", self._command, self.log, self._environment, self.log.parent)

    def wait_ready(self, progress: Progress, timeout_seconds: float) -> None:
        """Show the phases until vLLM is ready.

        Raises:
            LocalError: it died, or took longer than ``timeout_seconds``.
        """
        child = self._running_child()
        waited_from = progress.elapsed()
        progress.phase("load", "vLLM starts")
        while True:
            code = child.wait(START_POLL_SECONDS, progress.tick)
            output = child.output()
            if code is not None:
                raise LocalError(f"vLLM exited: {reason(output, code)}", self.log)
            if reached := latest_milestone(output):
                progress.phase(*reached)
            for phase, end in PHASE_ENDS.items():
                if phase not in self.phase_ends and end.search(output):
                    self.phase_ends[phase] = time.time()
            if self.is_healthy():
                self._serves = True
                return
            if progress.elapsed() - waited_from > timeout_seconds:
                child.stop(2)
                raise LocalError(f"vLLM was not ready within {timeout_seconds / 60:.0f} minutes", self.log)

    def is_healthy(self) -> bool:
        """Whether its /health returns 200 now."""
        try:
            with open_loopback(f"{self.url}/health", 5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def version(self) -> str:
        """vLLM's version, as the server reports it."""
        with open_loopback(f"{self.url}/version", 10) as answer:
            told: dict[str, Any] = json.load(answer)
            return str(told["version"])

    def death(self) -> str | None:
        """Why it is not running; None if it is running."""
        child = self._running_child()
        code = child.poll()
        return None if code is None else reason(child.output(), code)

    def stop(self, progress: Progress) -> None:
        """Let it shut down by itself if it is serving, then kill what is left."""
        if self._child and self._child.poll() is None:
            self._child.stop(STOP_SECONDS if self._serves else 0.0, progress.tick)

    def _running_child(self) -> Child:
        if self._child is None:
            raise RuntimeError("the engine was never started")
        return self._child
