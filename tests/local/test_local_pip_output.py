"""The progress shown while pip works: its current step, and the number of packages done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local import install, pip_output
from local.environments import Environment

AT_ONCE = """\
Collecting pydantic (from -r planning.txt (line 3))
  Downloading pydantic-2.14.3-py3-none-any.whl (494 kB)
Processing /wheels/pyyaml-6.0.3-cp311-cp311-manylinux2014_x86_64.whl (from -r planning.txt (line 4))
Collecting botocore<1.45.0,>=1.44.5 (from boto3)
  Downloading botocore-1.44.5-py3-none-any.whl (15.1 MB)
"""
METADATA_FIRST = """\
Collecting pydantic (from -r planning.txt (line 3))
  Downloading pydantic-2.14.3-py3-none-any.whl.metadata (90 kB)
Collecting boto3
  Downloading boto3-1.44.5-py3-none-any.whl.metadata (6.6 kB)
"""


@pytest.mark.parametrize(
    ("output", "total", "expected"),
    [
        ("", 5, "creating the environment"),
        (AT_ONCE, 49, "fetching botocore (15.1 MB), 3 of 49 packages"),
        (AT_ONCE, None, "fetching botocore (15.1 MB), 3 packages"),
        (AT_ONCE, 2, "fetching botocore (15.1 MB), 3 of 3 packages"),
        (METADATA_FIRST, 49, "resolving boto3, 2 of 49 packages"),
        (
            f"{METADATA_FIRST}Downloading pydantic-2.14.3-py3-none-any.whl (494 kB)\n",
            49,
            "fetching pydantic, 1 of 49 packages",
        ),
        (f"{AT_ONCE}Installing collected packages: a, b, c\n", 49, "unpacking, 1 of 3 packages"),
    ],
)
def test_each_step_says_how_far_it_is(tmp_path: Path, output: str, total: int | None, expected: str) -> None:
    (tmp_path / "a-1.dist-info").mkdir()
    assert pip_output.step(output, tmp_path, total) == expected


def test_a_list_without_dependencies_is_counted(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("# all of it\na==1\n\nb==2  # why\n-c pins.txt\n")
    assert pip_output.packages(tmp_path / "r.txt", with_dependencies=False) == 2
    assert pip_output.packages(tmp_path / "r.txt", with_dependencies=True) is None


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["local", "dev", "clients-sdks", "clients-frameworks"])
def test_every_list_that_is_installed_with_dependencies_says_its_number(name: str) -> None:
    assert pip_output.packages(ROOT / "requirements" / f"{name}.txt", with_dependencies=True)


def test_a_stale_environment_of_the_makefile_is_updated_and_a_failure_gives_pips_reason(tmp_path: Path) -> None:
    requirements = tmp_path / "r.txt"
    requirements.write_text("no-such-package-here==1\n")
    environment = install.developer_environment(tmp_path / "env", requirements, "tests", ["--no-deps"])
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "of-a-person").touch()
    command = [
        sys.executable,
        "-m",
        "local.install",
        str(environment.folder),
        str(requirements),
        "tests",
        "--no-deps",
    ]
    # A person's own configuration of pip applies.
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PIP_NO_INDEX": "1"}, check=False
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert "install  tests: usually about a minute, once" in lines[0]
    assert lines[-1].startswith(
        "error: install: tests could not be installed: pip finds no no-such-package-here==1 for this Python and machine. The log: "
    )
    assert (tmp_path / "env" / "of-a-person").exists()
    assert not (environment.folder / install.READY).exists()
    requirements.write_text("")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert environment.is_ready
    assert Environment("x", environment.folder, requirements, ("--no-deps",), key_file=install.READY).is_ready
