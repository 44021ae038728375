"""`make local-check` fails if any check fails."""

import io
import sys
from pathlib import Path

import pytest

from local import folders
from local.check import Steps
from local.progress import Progress


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    monkeypatch.setattr(folders, "LOGS", tmp_path)
    return Steps(Progress(io.StringIO()))


def test_a_step_passes_with_exit_code_0_and_a_good_answer(steps: Steps) -> None:
    steps.run("good", [sys.executable, "-c", "print('two words')"], lambda output: f"{len(output.split())} words")
    (step,) = steps.done
    assert (step.name, step.passed, step.detail) == ("good", True, "2 words")


def test_a_step_that_exits_otherwise_fails_with_the_reason(steps: Steps, tmp_path: Path) -> None:
    steps.run("smoke tests", [sys.executable, "-c", "print('FAILED test_a.py::test_b'); exit(1)"])
    (step,) = steps.done
    assert (step.passed, step.detail) == (False, f"test_a.py::test_b. The log: {tmp_path}/check-smoke-tests.log")


def test_a_step_whose_answer_is_not_good_fails(steps: Steps) -> None:
    def judge(output: str) -> str:
        raise ValueError(f"the answer is {output.strip()}")

    steps.run("bad", [sys.executable, "-c", "print('nothing')"], judge)
    (step,) = steps.done
    assert not step.passed
    assert step.detail.startswith("the answer is nothing. The log: ")
