"""torchvision is installed once, for vision models, and importable with a CPU torch."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from local.environments import Environment
from local.failures import LocalError
from local.progress import Progress
from local.torchvision import add_torchvision, is_for_cuda

CPU_TORCH = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n"
CUDA_TORCH = "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment whose Python is this one, so that none has to be made."""
    monkeypatch.setattr(
        "local.folders.LOGS", tmp_path / "logs"
    )  # tests that run beside this one have logs of their own
    requirements = tmp_path / "engine.txt"
    requirements.write_text("")
    made = Environment("vLLM", tmp_path / ".venv-engine", requirements, ("--no-index",))
    made.python.parent.mkdir(parents=True)
    made.python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    made.python.chmod(0o755)
    site_packages(made).mkdir(parents=True)
    return made


def site_packages(environment: Environment) -> Path:
    return environment.folder / "lib" / "python3.11" / "site-packages"


def put(environment: Environment, package: str, version: str) -> None:
    folder = site_packages(environment) / package
    folder.mkdir()
    (folder / "version.py").write_text(version)


@pytest.mark.parametrize(
    ("torchvision", "torch", "stood_aside"),
    [
        ("__version__ = '0.28.0+cu130'\n", CPU_TORCH, True),
        ("__version__ = '0.28.0+cpu'\n", CPU_TORCH, False),
        ("__version__ = '0.28.0+cu130'\n", CUDA_TORCH, False),
    ],
    ids=["cuda_beside_cpu", "cpu", "cuda_beside_cuda"],
)
def test_what_registers_operators_is_stood_aside_only_where_they_cannot_be(
    environment: Environment, tmp_path: Path, torchvision: str, torch: str, stood_aside: bool
) -> None:
    put(environment, "torchvision", torchvision)
    put(environment, "torch", torch)
    nothing_more = tmp_path / "vision.txt"
    nothing_more.write_text("")
    add_torchvision(environment, Progress(io.StringIO()), nothing_more)
    lines = "".join(file.read_text() for file in site_packages(environment).glob("*.pth"))
    asked = "import sys; print('torchvision._meta_registrations' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", f"{lines}{asked}"], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == str(stood_aside)
    second = io.StringIO()
    add_torchvision(environment, Progress(second), nothing_more)
    assert second.getvalue() == "", "it was installed again"


def test_a_failed_install_is_one_line_and_tried_again(environment: Environment, tmp_path: Path) -> None:
    requirements = tmp_path / "vision.txt"
    requirements.write_text("no-such-package-here==1\n")
    for _ in range(2):
        with pytest.raises(LocalError, match="pip finds no no-such-package-here==1") as failed:
            add_torchvision(environment, Progress(io.StringIO()), requirements)
        assert "\n" not in str(failed.value)


def test_a_cuda_build_is_known_by_its_version() -> None:
    assert is_for_cuda("__version__ = '0.28.0+cu130'\n")
    assert not is_for_cuda("__version__ = '0.28.0+cpu'\n")
    assert not is_for_cuda("__version__ = '0.28.0'\n")
