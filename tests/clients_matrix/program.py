"""A client's program: asked a line at a time, and kept alive, so that its end is never what closes a connection."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients_matrix.matrix import FOLDER, INSTALLED

ANSWER_SECONDS = 45.0
# No library calls its maker, and no proxy of this machine comes between.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "AI_SDK_LOG_WARNINGS": "false",
    "NO_PROXY": "127.0.0.1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class ClientError(Exception):
    """What the client raised."""

    def __init__(self, error: dict[str, Any]) -> None:
        self.names: list[str] = error["classes"]
        self.status: int | None = error["status"]
        self.message: str = error["message"]
        super().__init__(f"{self.names[0]}: {self.message}")


def environment(**more: str) -> dict[str, str]:
    """What a client's process inherits."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, **QUIET, **more}


def lay_out() -> None:
    """Node looks for packages beside a program: copy the JavaScript ones to where the packages are."""
    for path in (FOLDER / "programs").glob("*.mjs"):
        shutil.copy(path, INSTALLED / path.name)
    (INSTALLED / "snippets").mkdir(exist_ok=True)
    for path in (FOLDER / "snippets").glob("*.mjs"):
        shutil.copy(path, INSTALLED / "snippets" / path.name)


@dataclass
class _Ended:
    stderr: str


class Program:
    """One client's process."""

    def __init__(self, command: Sequence[str | Path], base: str) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [str(part) for part in command],
            env=environment(MATRIX_BASE=base),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )
        self._lines: queue.Queue[str | _Ended] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._process.wait()
        self._errors.seek(0)
        self._lines.put(_Ended(self._errors.read()[-2000:]))

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def send(self, name: str, **arguments: Any) -> None:
        """Ask for an operation, and do not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": name, **arguments}) + "\n")
        self._process.stdin.flush()

    def receive(self) -> Any:
        """What the operation returned; raises ClientError."""
        try:
            line = self._lines.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            self._process.kill()  # a late answer would be taken for the next one's
            raise ClientError(
                {"classes": ["Hung"], "status": None, "message": f"no answer in {ANSWER_SECONDS:g} s"}
            ) from None
        if isinstance(line, _Ended):
            self._lines.put(line)
            raise ClientError({"classes": ["Ended"], "status": None, "message": line.stderr})
        result = json.loads(line)
        if "error" in result:
            raise ClientError(result["error"])
        return result["value"]

    def ask(self, name: str, **arguments: Any) -> Any:
        """Do an operation and return its value; raises ClientError."""
        self.send(name, **arguments)
        return self.receive()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()
