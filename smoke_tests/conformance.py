"""Runs the conformance tests of this folder, with pytest, against one target."""

from pathlib import Path

import pytest

from smoke_tests.target import Target

FOLDER = Path(__file__).resolve().parent
TARGET = pytest.StashKey[Target]()


class TargetPlugin:
    """Hands the target to the tests, so that the key stands in no command line and no variable of a child."""

    def __init__(self, target: Target) -> None:
        self._target = target

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Keep the target where the fixtures find it."""
        config.stash[TARGET] = self._target


def run_conformance(target: Target, junit: Path | None = None, pytest_arguments: list[str] | None = None) -> int:
    """Run the tests and return pytest's exit code: 0 where all passed, 1 where some failed."""
    arguments = ["-c", str(FOLDER / "pytest.ini"), "--rootdir", str(FOLDER)]
    if junit is not None:
        arguments += ["--junitxml", str(junit.resolve())]
    return int(pytest.main([*arguments, *(pytest_arguments or []), str(FOLDER)], plugins=[TargetPlugin(target)]))
