"""No process of a command outlives the process that started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from local.processes import Child, left_running, run

# Starts a child in another session and prints its process id; both ignore SIGTERM.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print(os.getpid(), child.pid, flush=True)
time.sleep(300)
"""


def until(condition: Callable[[], object], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids_of(log: Path) -> list[int]:
    assert until(lambda: log.exists() and len(log.read_text().split()) == 2)
    return [int(word) for word in log.read_text().split()]


def test_a_stopped_command_takes_its_stubborn_children_along(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = Child("stubborn", [sys.executable, "-c", STUBBORN], log)
    pids = pids_of(log)
    assert all(map(alive, pids))
    assert child.stop(0.1) == 128 + signal.SIGKILL
    assert not any(map(alive, pids))
    assert left_running() == []


def test_a_command_that_ends_by_itself_takes_its_children_along(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = STUBBORN.removesuffix("time.sleep(300)\n") + "sys.exit(7)\n"
    child = Child("short", [sys.executable, "-c", program], log)
    assert child.wait(10) == 7
    assert not any(map(alive, pids_of(log)))


def test_the_command_gets_sigterm_first_and_its_exit_code_is_told(tmp_path: Path) -> None:
    program = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); print('up', flush=True); signal.pause()"
    child = Child("polite", [sys.executable, "-c", program], tmp_path / "log")
    assert until(lambda: "up" in child.output())
    assert child.stop(10) == 5


def test_a_killed_runner_takes_everything_along(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = (
        "import sys, time, pathlib; from local.processes import Child;"
        f"Child('stubborn', [sys.executable, '-c', {STUBBORN!r}], pathlib.Path({str(log)!r})); time.sleep(300)"
    )
    runner = subprocess.Popen([sys.executable, "-c", program])
    pids = pids_of(log)
    runner.kill()
    runner.wait(10)
    assert until(lambda: not any(map(alive, pids)))


def test_a_leash_that_is_killed_takes_its_command_along(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = Child("stubborn", [sys.executable, "-c", STUBBORN], log)
    pids = pids_of(log)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(10) == 128 + signal.SIGKILL
    assert not any(map(alive, pids))


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    code, output = run(
        "slow", [sys.executable, "-c", "import time; time.sleep(300)"], tmp_path / "log", lambda: None, 0.3
    )
    assert code is None
    assert output == ""


def test_a_command_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    code, output = run("none", [tmp_path / "none"], tmp_path / "log", lambda: None, 10)
    assert code == 127
    assert output == f"error: {tmp_path}/none could not be started: No such file or directory\n"
