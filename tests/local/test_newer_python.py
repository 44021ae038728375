"""The programs that make starts with the system's Python: an older one is replaced by a newer one, or refused in one line."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local import newer_python

ROOT = Path(__file__).parents[2]
STARTED_BY_MAKE = ("__main__", "tools", "install")


@pytest.mark.parametrize("name", [*STARTED_BY_MAKE, "newer_python", "__init__"])
def test_python_3_6_can_parse_what_make_starts(name: str) -> None:
    ast.parse((ROOT / "local" / f"{name}.py").read_text(), feature_version=(3, 6))
    assert "from __future__ import annotations" not in (ROOT / "local" / f"{name}.py").read_text()


def with_an_old_python(module: str, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    name = f"local.{module}".replace(".__main__", "")
    program = (
        f"import runpy, sys; sys.version_info = (3, 9, 1); sys.argv = ['x', *{list(arguments)}]; "
        f"runpy.run_module({name!r}, run_name='__main__', alter_sys=False)"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20,
        env={"PATH": str(path)},
    )  # fmt: skip


@pytest.mark.parametrize("module", STARTED_BY_MAKE)
def test_an_old_python_is_one_line(module: str, tmp_path: Path) -> None:
    done = with_an_old_python(module, tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: Python 3.11 or newer is needed and python3 is 3.9. Set PYTHON=python3.11\n"


@pytest.mark.parametrize("module", STARTED_BY_MAKE)
def test_a_newer_python_on_the_path_continues(module: str, tmp_path: Path) -> None:
    newer = tmp_path / "python3.11"
    newer.write_text(f'#!{shutil.which("sh")}\nif [ "$1" != -c ]; then echo "$@"; fi\n')
    newer.chmod(0o755)
    done = with_an_old_python(module, tmp_path, "a b")
    name = f"local.{module}".replace(".__main__", "")
    assert (done.stdout, done.returncode) == (f"-m {name} a b\n", 0), done.stderr


def test_a_shim_that_does_not_start_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in (("python3.13", 127), ("python3.12", 0)):
        (tmp_path / name).write_text(f"#!{shutil.which('sh')}\nexit {code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert newer_python.newer_python() == str(tmp_path / "python3.12")
