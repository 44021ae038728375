"""SIGTERM while the entrypoint waits, to the process that is PID 1 in a container."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.fake_hub import FakeHub
from tests.image.engine.conftest import MODEL

ROOT = Path(__file__).parents[3]
AS_PID_1 = """
import os
from image.engine.init import become_child
become_child(pid=lambda: 1)
print("child", os.getpid(), flush=True)
from image.engine.start import main
main()
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("waits_for", ["the hub's answer", "a busy hub", "a file", "the lock", "the driver"])
def test_every_wait_ends_within_a_second_of_sigterm(
    tmp_path: Path, hub: FakeHub, waits_for: str, processes: list[subprocess.Popen[str]]
) -> None:
    driver, folder = tmp_path / "bin/nvidia-smi", tmp_path / "home/hub/models--acme--tiny"
    for made in (driver.parent, folder):
        made.mkdir(parents=True)
    driver.write_text("#!/bin/sh\n: > asked\nexec /bin/sleep 30\n")
    driver.chmod(0o755)
    environment = {
        "PATH": f"{driver.parent}:/bin", "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "home"),
        "HF_ENDPOINT": hub.address, "MODEL_NAME": MODEL, "PORT": "18999", "TMPDIR": str(tmp_path),
    }  # fmt: skip
    if waits_for != "the driver":
        environment["ENGINE_DEVICE"] = "cpu"
    marker = {"the driver": None, "a busy hub": "waiting 600 s, as it asks", "the lock": "is downloading it; waiting"}
    with (folder / ".lock").open("a+") as lock:
        match waits_for:
            case "the hub's answer":
                hub.stalled = hub.stall
            case "a busy hub":
                hub.busy = 600
            case "a file":
                hub.models[MODEL].stalled["config.json"] = hub.stall
            case "the lock":
                fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-c", AS_PID_1], cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        processes.append(process)
        assert process.stdout
        child = int(process.stdout.readline().split()[1])
        if waits_for == "the driver":
            while not (tmp_path / "asked").exists():
                assert process.poll() is None
                time.sleep(0.01)
        elif line := marker.get(waits_for):
            while line not in process.stdout.readline():
                assert process.poll() is None
        else:
            assert (hub.asked if waits_for == "the hub's answer" else hub.sending).wait(20)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
        assert time.monotonic() - began < 1
        hub.stall.set()
    assert process.stderr
    assert "engine: stopped by SIGTERM, as it was asked to; exit code 143" in process.stderr.read()
    assert not Path(f"/proc/{child}").exists()
    assert not list(tmp_path.rglob("whole/*.json"))


@pytest.mark.parametrize(("program", "code"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_exit_code_is_the_programs_own(program: str, code: int) -> None:
    script = f"from image.engine.init import become_child; become_child(pid=lambda: 1); {program}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, timeout=20)
    assert done.returncode == code


def test_another_process_than_pid_1_stays_what_it_is() -> None:
    script = "import os; from image.engine.init import become_child; become_child(); print(os.getpid())"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.communicate(timeout=20)[0] == f"{process.pid}\n"
    assert os.getpid() != 1
