"""Starts processes that never outlive this one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from local.leash import become_reaper, end_descendants

LEASH = Path(__file__).with_name("leash.py")
POLL_SECONDS = 0.1
_RUNNING: list[Child] = []
_MARKS: set[str] = set()
MARK = "STARTED_BY_MAKE_LOCAL"


class Child:
    """A command on a leash (see ``leash``), in a separate process group, so that Ctrl-C reaches only the runner.

    It is not a separate session: Linux shares the CPU evenly between sessions (sched_autogroup), so vLLM's busy loops would
    starve the gateway and the client on a small machine; a stream of 2.5 s arrived in one burst at its end.

    Args:
        name: its name in messages.
        command: program and arguments; they must not contain secrets, because every user of the machine can read them.
        log: the file that its output is appended to.
        environment: its complete environment; None for this process's.
        directory: its working directory.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        become_reaper()
        reader, self._writer = os.pipe()
        self.mark = f"{os.getpid()}-{len(_MARKS)}"
        leash = [sys.executable, "-I", "-S", str(LEASH), str(reader), *(str(part) for part in command)]
        try:
            with log.open("ab") as output:
                self.log_start = output.tell()
                self._process = subprocess.Popen(
                    leash, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(reader,),
                    env={**(os.environ if environment is None else environment), MARK: self.mark}, cwd=directory,
                    process_group=0,
                )  # fmt: skip
        except BaseException:
            os.close(self._writer)
            raise
        finally:
            os.close(reader)
        _RUNNING.append(self)
        _MARKS.add(self.mark)

    @property
    def pid(self) -> int:
        """Process id of the leash."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, 128 plus the signal that terminated it, or None while it is running."""
        code = self._process.poll()
        if code is not None and self in _RUNNING:
            _RUNNING.remove(self)
            os.close(self._writer)
            if code < 0:  # the leash itself was killed, and its children were reparented to this process
                end_descendants(but=[child.pid for child in _RUNNING])
        return 128 - code if code is not None and code < 0 else code

    def terminate(self) -> None:
        """Send SIGTERM to the command."""
        self._order(b"T")

    def kill(self) -> None:
        """Kill the command and all its descendants."""
        self._order(b"K")

    def stop(self, grace_seconds: float, tick: Callable[[], None] = lambda: None) -> int:
        """Send SIGTERM, wait, and kill what is left; returns the exit code. No process is left afterwards."""
        self.terminate()
        if (code := self.wait(grace_seconds, tick)) is None:
            self.kill()
            self._process.wait()
            code = self.poll()
        assert code is not None
        return code

    def wait(self, seconds: float, tick: Callable[[], None] = lambda: None) -> int | None:
        """The exit code, or None if it is still running after `seconds`; ``tick`` is called meanwhile."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None and time.monotonic() < deadline:
            tick()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(POLL_SECONDS)
        return code

    def output(self) -> str:
        """Its output since it started."""
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def _order(self, order: bytes) -> None:
        if self.poll() is None:
            with suppress(BrokenPipeError):  # it has just exited
                os.write(self._writer, order)


def kill_all() -> None:
    """Kill everything that was started here, and wait for it."""
    children = list(_RUNNING)
    for child in children:
        child.kill()
    for child in children:
        child.wait(20)


def left_running() -> list[str]:
    """The names of leftover processes of commands that have exited. There should be none."""
    found = []
    ended = {f"{MARK}={mark}".encode() for mark in _MARKS - {child.mark for child in _RUNNING}}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if ended & set((folder / "environ").read_bytes().split(b"\0")):
                found.append(f"{(folder / 'comm').read_text().strip()} ({folder.name})")
    return found


def run(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    tick: Callable[[], None],
    timeout_seconds: float,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> tuple[int | None, str]:
    """Run a command; returns its exit code (None after a timeout) and its output."""
    child = Child(name, command, log, environment, directory)
    try:
        code = child.wait(timeout_seconds, tick)
    finally:
        if child.poll() is None:
            child.stop(2)
    return code, child.output()
