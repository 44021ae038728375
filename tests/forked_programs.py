"""Runs this repository's programs as forks of one process that has imported their libraries.

Starting Python and importing pytest, pydantic and the OpenAI SDK costs 0.6 s of CPU for each program. A fork is still a
process, with arguments, environment, standard streams, signals and an exit code. It imports our modules itself. Tests of
the interpreter (closed or broken standard streams, encodings) start Python instead.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "asyncio", "argparse", "http.server", "pytest", "_pytest.junitxml", "pydantic", "yaml", "httpx2", "httptools", "openai",
    "openai.resources.chat.completions", "openai.resources.responses", "openai.resources.models", "openai.resources.embeddings",
    "boto3", "botocore.session",
)  # fmt: skip


class Started:
    """A program that runs. Its output is kept in files, so that it is never blocked by a reader."""

    def __init__(self, arguments: list[str], status: socket.socket, output: IO[str], errors: IO[str]) -> None:
        self._arguments, self._status, self._output, self._errors = arguments, status, output, errors
        self.pid = json.loads(status.recv(64))

    def send_signal(self, number: int) -> None:
        """Send a signal to the program."""
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Wait for the exit. After `timeout` seconds, kill the program and raise TimeoutError."""
        self._status.settimeout(timeout)
        with self._status, self._output, self._errors:
            try:
                code = json.loads(self._status.recv(64))
            except TimeoutError:
                self.send_signal(signal.SIGKILL)
                raise
            self._output.seek(0)
            self._errors.seek(0)
            return subprocess.CompletedProcess(self._arguments, code, self._output.read(), self._errors.read())


class Programs:
    """Starts programs. `arguments` are those of `python`: `-m MODULE ...` or `FILE ...`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def start(self, arguments: list[str], environment: Mapping[str, str], given: str | bytes = "") -> Started:
        """Start a program with a text as its standard input."""
        with tempfile.TemporaryFile() as stdin:
            stdin.write(given.encode() if isinstance(given, str) else given)
            stdin.seek(0)
            return self._start(arguments, environment, stdin.fileno())

    def start_in_terminal(self, arguments: list[str], environment: Mapping[str, str], terminal: int) -> Started:
        """Start a program whose controlling terminal and standard streams are the pseudo-terminal with this descriptor."""
        return self._start(arguments, environment, terminal, is_terminal=True)

    def _start(
        self, arguments: list[str], environment: Mapping[str, str], stdin: int, is_terminal: bool = False
    ) -> Started:
        output, errors = (tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2))  # noqa: SIM115
        streams = [stdin] * 3 if is_terminal else [stdin, output.fileno(), errors.fileno()]
        here, there = socket.socketpair()
        with there:
            files = array.array("i", [*streams, there.fileno()])
            asked = {"arguments": arguments, "environment": dict(environment), "is_terminal": is_terminal}
            self._connection.sendmsg([json.dumps(asked).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        return Started(arguments, here, output, errors)

    def run(
        self, arguments: list[str], environment: Mapping[str, str], given: str | bytes = "", timeout: float = 50
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return self.start(arguments, environment, given).wait(timeout)


@contextlib.contextmanager
def forking() -> Iterator[Programs]:
    """Run the process that forks."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    with here:
        with there:
            command = [sys.executable, __file__, str(there.fileno())]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[there.fileno()])
        yield Programs(here)
    process.wait(20)


def _serve(connection: socket.socket) -> list[str] | None:
    """Fork for each request until the other side closes. Returns the arguments in the fork, None in the parent."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    while True:
        files = array.array("i")
        text, ancillary, _, _ = connection.recvmsg(1 << 20, socket.CMSG_LEN(4 * files.itemsize))
        _reap(0 if not text else os.WNOHANG)
        if not text:
            return None
        files.frombytes(ancillary[0][2])
        if os.fork() == 0:
            connection.close()
            wanted = json.loads(text)
            _watch_over_a_fork(files, wanted["is_terminal"])
            os.environ.clear()
            os.environ.update(wanted["environment"])
            return list(wanted["arguments"])
        for file in files:
            os.close(file)


def _reap(options: int) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def _watch_over_a_fork(files: array.array[int], is_terminal: bool) -> None:
    """Fork once more and report the fork's id and exit code. Returns in the fork alone."""
    child = os.fork()
    if child:
        os.write(files[3], json.dumps(child).encode())
        _, status = os.waitpid(child, 0)
        os.write(files[3], json.dumps(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    # Tests that run in the background ignore Ctrl-C, and their children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if is_terminal:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1)  # noqa: SIM115


def _become(arguments: list[str]) -> None:
    """Run what the arguments name, as Python does with them."""
    more = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if arguments[0] == "-m":
        sys.path[:1] = [str(ROOT), *filter(None, more)]
        sys.argv = ["-m", *arguments[2:]]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        path = ROOT / arguments[0]
        sys.path[:1] = [str(path.parent), *filter(None, more)]
        sys.argv = [str(path), *arguments[1:]]
        runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    # The fork leaves as a program does, with its exit handlers and the flush of its streams.
    if (asked := _serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        _become(asked)
