"""The first stage of `make local`, which uses only the system's Python and its standard library."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from infra.web_address import use_no_proxy_for_this_machine
from local import folders, machine, preflight
from local.environments import environments, install
from local.failures import LocalError, one_line
from local.loopback import base_url
from local.options import Options, parse
from local.progress import Progress
from local.stopping import Stopped, exit_code_of, stop_on_signals


def main(arguments: Sequence[str]) -> int:
    """Check the machine, create the environments, and continue in `.venv-local`.

    Returns an exit code on failure; otherwise this process becomes the second stage.
    """
    options = parse(arguments)
    use_no_proxy_for_this_machine()
    progress = Progress()
    try:
        with stop_on_signals():
            python = _prepare(options, progress)
    except LocalError as error:
        progress.fail(str(error))
        return 1
    except OSError as error:
        progress.fail(one_line(error))
        return 1
    except Stopped as stopped:
        progress.say("stopped; nothing is left running")
        return exit_code_of(stopped)
    return _go_on_in(python, progress, arguments)


def _go_on_in(python: Path, progress: Progress, arguments: Sequence[str]) -> NoReturn:
    sys.stdout.flush()
    timing = ["--started", f"{progress.started:.3f}", "--installing", f"{progress.seconds.get('install', 0.0):.3f}"]
    os.execv(python, [str(python), "-m", "local.serve", *timing, *arguments])  # noqa: S606 - no shell is the point


def _prepare(options: Options, progress: Progress) -> Path:
    folders.STATE.mkdir(exist_ok=True)
    _hold_lock(options.port)
    here = machine.look()
    wanted = environments(here.has_gpu)
    installed = all(environment.is_ready for environment in wanted)
    found = preflight.stack_problems(options.stack, options.settings, folders.ROOT)
    found += preflight.problems(here, options.port, machine.free_gib(folders.ROOT), installed)
    if found:
        raise LocalError("\nerror: ".join(found))
    temporary = folders.temporary_folder()
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed
    temporary.mkdir(mode=0o700)
    os.environ["TMPDIR"] = str(temporary)
    install(wanted, progress)
    progress.end()
    return wanted[0].python


_lock: TextIO | None = None


def _hold_lock(port: int) -> None:
    """Allow one `make local` per clone, because two would share folders. The lock survives exec and ends with the process."""
    global _lock
    lock = (folders.STATE / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with lock:
            lock.seek(0)
            process, _, address = lock.read().strip().partition(" ")
        raise LocalError(
            f"make local is already running in this folder, at {address or 'an address not known yet'} "
            f"(process {process or '?'}). Its API key is in {folders.API_KEY}; Ctrl-C in its terminal stops it"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()} {base_url(port)}")
    lock.flush()
    os.set_inheritable(lock.fileno(), True)
    _lock = lock
