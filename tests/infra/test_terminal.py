"""Colors: on a terminal, and nowhere else."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from infra.terminal import paint

ROOT = Path(__file__).resolve().parents[2]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "colored"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_has_colors_unless_somebody_asks_for_none(
    variables: dict[str, str], colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert paint("fits", "green", Screen()) == ("\x1b[32mfits\x1b[0m" if colored else "fits")
    assert paint("fits", "green", io.StringIO()) == "fits"


def shown(command: list[str], **variables: str) -> str:
    """What a command writes to a terminal."""
    own, its = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm", **variables}
    subprocess.run(command, cwd=ROOT, env=environment, stdout=its, stderr=its, check=False)
    os.close(its)
    text = b""
    try:
        while part := os.read(own, 65536):
            text += part
    except OSError:
        pass
    os.close(own)
    return text.decode()


def test_a_plan_ends_in_a_colored_line_on_a_terminal_only() -> None:
    command = [sys.executable, "-m", "infra.planning", "dev"]
    assert shown(command).endswith("\x1b[32m\r\ndev fits; deploy it with make up STACK=dev\x1b[0m\r\n")
    assert "\x1b" not in shown(command, NO_COLOR="1")
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "make up" not in piped.stdout
    assert "\x1b[31merror:\x1b[0m" in shown([*command, "--set", "gpuMemoryUtilization=92"])


def test_make_help_and_history_have_colors_on_a_terminal(tmp_path: Path) -> None:
    assert "\x1b[1mOn this machine\x1b[0m" in shown(["make", "-s", "help"])
    assert "\x1b" not in shown(["make", "-s", "help"], NO_COLOR="1")
    history = [sys.executable, "-m", "smoke_tests.history", "--stack", "no-such", "--bucket", ""]
    assert "\x1b[31merror:\x1b[0m" in shown(history, PATH=str(tmp_path))
