"""Environments are created once, recreated when their requirements change, and never used if incomplete."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from local.environments import Environment, cuda_torch, install
from local.failures import LocalError
from local.progress import Progress


def test_the_key_follows_every_file_that_is_included(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("-c pins.txt\n-r b.txt\nx\n")
    (tmp_path / "b.txt").write_text("y\n")
    (tmp_path / "pins.txt").write_text("x==1\n")
    environment = Environment("a", tmp_path / ".venv-a", tmp_path / "a.txt")
    keys = {environment.key, replace(environment, pip_options=("--no-deps",)).key}
    (tmp_path / "b.txt").write_text("y2\n")
    keys.add(environment.key)
    (tmp_path / "pins.txt").write_text("x==2\n")
    keys.add(environment.key)
    assert len(keys) == 4


def test_a_failed_install_is_one_line_and_made_anew_a_ready_one_is_left_alone(tmp_path: Path) -> None:
    requirements = tmp_path / "r.txt"
    requirements.write_text("no-such-package-here==1\n")
    environment = Environment("test", tmp_path / ".venv-test", requirements, ("--no-index",))
    with pytest.raises(LocalError) as caught:
        install([environment], Progress(io.StringIO()), tmp_path)
    assert str(caught.value) == (
        "test could not be installed: pip finds no no-such-package-here==1 for this Python and machine. "
        f"The log: {tmp_path}/install-test.log"
    )
    assert (environment.python.exists(), environment.is_ready) == (True, False)

    requirements.write_text("")
    install([environment], Progress(io.StringIO()), tmp_path)
    assert (environment.python.exists(), environment.is_ready) == (True, True)
    stream = io.StringIO()
    install([environment], Progress(stream), tmp_path)
    assert stream.getvalue() == ""


@pytest.fixture
def tiny(tmp_path: Path) -> Environment:
    """An environment of one package, which pip finds in a folder."""
    with zipfile.ZipFile(tmp_path / "tiny-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "")
    requirements = tmp_path / "r.txt"
    requirements.write_text("tiny==1\n")
    return Environment("test", tmp_path / ".venv-test", requirements, ("--no-index", f"--find-links={tmp_path}"))


def test_packages_go_into_the_environment_whatever_pips_variables_say(
    tiny: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PIP_USER", "1"), ("PIP_TARGET", str(tmp_path / "t")), ("PIP_REQUIRE_VIRTUALENV", "1")):
        monkeypatch.setenv(name, value)
    install([tiny], Progress(io.StringIO()), tmp_path)
    assert tiny.site_packages
    assert (tiny.site_packages / "tiny.py").exists()


def test_a_pip_configuration_that_installs_elsewhere_is_named(
    tiny: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.conf").write_text(f"[install]\ntarget = {tmp_path}/elsewhere\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    with pytest.raises(LocalError, match=r"outside of \.venv-test\. Remove target, prefix and root from pip's config"):
        install([tiny], Progress(io.StringIO()), tmp_path)
    assert not tiny.is_ready


def test_a_colon_in_the_path_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    requirements = tmp_path / "r.txt"
    requirements.write_text("")
    with pytest.raises(LocalError, match=r"whose path contains a colon\. Rename the folder, or clone elsewhere"):
        install([Environment("test", tmp_path / "a:b" / ".venv", requirements)], Progress(io.StringIO()), tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", None),
        ("__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n", "2.13.0"),
        ("__version__ = '2.13.0'\ncuda = '13.0'\n", "2.13.0"),
    ],
)
def test_a_cuda_build_of_torch_is_recognized(tmp_path: Path, text: str, expected: str | None) -> None:
    file = tmp_path / "lib/python3.11/site-packages/torch/version.py"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert cuda_torch(tmp_path) == expected
