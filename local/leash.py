"""Runs one command and ensures that none of its processes outlives the runner that started it.

Usage: leash.py PIPE_FD COMMAND [ARGUMENT ...]

The runner holds the other end of the pipe. `T` on the pipe sends SIGTERM to the command. `K`, or closing the pipe (because
the runner exited, even by SIGKILL), kills every process that descends from the command: the leash is the subreaper of all
its descendants (Linux), so orphans are reparented to it. When the command exits by itself, its leftover processes are
killed, too. The exit code is the command's, or 128 plus the signal that terminated it.

It uses only the standard library, because it runs before anything is installed.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Container
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SECONDS_TO_END_AFTER_RUNNER = 3.0
SECONDS_TO_END_BY_ITSELF = 8.0
SECONDS_TO_KILL = 16.0


def main(pipe: int, command: list[str]) -> int:
    """Run the command until it or the runner exits."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # a handler, not SIG_IGN, which the command would inherit
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    os.set_blocking(wake_reader, False)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    become_reaper()
    try:
        # preexec_fn is safe here: this process has one thread.
        child = subprocess.Popen(command, process_group=0, preexec_fn=_die_with_parent)
    except OSError as error:
        print(f"error: {command[0]} could not be started: {error.strerror}", file=sys.stderr)
        return 127
    deadline: float | None = None  # set once the runner is gone
    while child.poll() is None:
        timeout = None if deadline is None else deadline - time.monotonic()
        if timeout is not None and timeout <= 0:
            break
        ready, _, _ = select.select([wake_reader] if deadline else [pipe, wake_reader], [], [], timeout)
        signals = os.read(wake_reader, 4096) if wake_reader in ready else b""
        order = os.read(pipe, 1) if pipe in ready else None
        if order == b"K":
            break
        if order == b"T":
            child.terminate()
        elif order == b"" or signal.SIGTERM in signals:
            child.terminate()
            deadline = time.monotonic() + SECONDS_TO_END_AFTER_RUNNER
    child.kill()
    code = child.wait()
    end_descendants()
    return 128 - code if code < 0 else code


def become_reaper() -> None:
    """Become the subreaper: orphaned descendants become children of this process (Linux)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_descendants(but: Container[int] = ()) -> None:
    """Kill and reap every descendant of this process, except the children ``but`` and their descendants."""
    started = time.monotonic()
    while (seconds := time.monotonic() - started) < SECONDS_TO_KILL and (found := descendants(os.getpid(), but)):
        for pid in found:
            # Python's resource tracker exits after its users, and removes the shared memory that they left.
            if seconds > SECONDS_TO_END_BY_ITSELF or b"resource_tracker" not in _command_line(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)


def descendants(ancestor: int, but: Container[int] = ()) -> list[int]:
    """Ids of the descendants of ``ancestor``, from /proc, without ``but``, their descendants, and zombies."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
            if state != "Z" and int(entry.parent.name) not in but:
                parents[int(entry.parent.name)] = int(parent)
    found: set[int] = {ancestor}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return sorted(found - {ancestor})
        found |= more


def _command_line(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _die_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    if sys.argv[1:2] in ([], ["-h"], ["--help"]):
        print(
            "usage: leash.py PIPE_FD COMMAND [ARGUMENT ...]\n\nRun a command, and kill all its processes once the other end of the pipe closes."
        )
        sys.exit(0 if sys.argv[1:] else 2)
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
