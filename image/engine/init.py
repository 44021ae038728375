"""A minimal init for containers without one: the kernel does not deliver SIGTERM to a PID 1 that has no handler for it.

Python and vLLM's imports have none, so a stop would wait for the whole grace period, with the GPU held. As PID 1, a program
calls `become_child` first: it continues in a child process, where SIGTERM ends every wait at once, and PID 1 only forwards
signals, reaps processes and reports the child's exit code.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

FORWARDED = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
)
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def become_child(pid: Callable[[], int] = os.getpid) -> None:
    """Continue in a child process if this is PID 1. PID 1 exits with the child's code, 128 + N after signal N.

    Also stop at once on Ctrl-C, as on SIGTERM: without a traceback, and without waiting for threads.

    Args:
        pid: returns this process's id.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if pid() != 1:
        return
    watched = FORWARDED | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)  # none is lost between the fork and the wait
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        # A terminal sends Ctrl-C to its foreground group; the child receives it once, from PID 1.
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os._exit(_supervise(child, watched))


def _supervise(child: int, watched: frozenset[signal.Signals]) -> int:
    stopped: signal.Signals | None = None
    while True:
        number = signal.Signals(signal.sigwait(watched))
        if number != signal.SIGCHLD:
            stopped = number if number in STOPPING else stopped
            os.kill(child, number)
            continue
        if (code := _reaped(child)) is None:
            continue
        if code < 0:
            signalled = signal.Signals(-code).name
            because = ", as it was asked to" if stopped else ""
            print(f"engine: stopped by {signalled}{because}; exit code {128 - code}", file=sys.stderr, flush=True)
        return code if code >= 0 else 128 - code


def _reaped(child: int) -> int | None:
    """Reap every process that ended; returns the child's exit code if it is among them, negative for a signal."""
    found = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if ended == 0:
            return found
        if ended == child:
            found = os.waitstatus_to_exitcode(status)
