"""The virtual environments: `.venv-local` (plan, gateway, smoke tests), `.venv-engine` (vLLM), and those of the Makefile.

Each has a key of everything that it was made from, so that a second start reuses it at once. An interrupted installation
leaves no key and starts over.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from local import folders, pip_output
from local.failures import LocalError, reason
from local.machine import free_gib
from local.processes import Child
from local.progress import Progress

KEY_FILE = "made-from"
PIP_TIMEOUT_SECONDS = 3600.0
CUDA_LIBRARIES_GIB = 7.0  # measured: 3.8 GB unpacked, the downloads beside them
# Would install into another folder, which an environment never wants.
ELSEWHERE = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER")
# Byte-compiling 2 GB in advance takes longer than compiling only the imported modules at their first import.
PIP_INSTALL = (
    "-m",
    "pip",
    "install",
    "--disable-pip-version-check",
    "--no-input",
    "--no-compile",
    "--progress-bar=off",
)


@dataclass(frozen=True)
class Environment:
    """A virtual environment and how to create it."""

    name: str
    folder: Path
    requirements: Path
    pip_options: tuple[str, ...] = ()
    runs_on_cpu: bool = False
    """Whether it needs torch without a GPU. Any build that pip finds is used."""
    key_file: str = KEY_FILE
    """The file in its folder that stores the key."""
    is_updated: bool = False
    """Whether an outdated environment is updated in place, keeping packages that a user installed; else it is recreated."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def key(self) -> str:
        """The key: Python, pip's options, and the requirements with all files that they include."""
        parts = [sys.version, sys.platform, *self.pip_options, *_with_includes(self.requirements)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def packages(self) -> int | None:
        """The number of packages, if the requirements declare it."""
        return pip_output.packages(self.requirements, "--no-deps" not in self.pip_options)

    @property
    def site_packages(self) -> Path | None:
        """The folder of its packages; None if it does not exist yet."""
        return next(self.folder.glob("lib/python3*/site-packages"), None)

    @property
    def has_pip(self) -> bool:
        """Whether an environment with this Python and pip exists."""
        configuration = self.folder / "pyvenv.cfg"
        if not (self.python.exists() and configuration.is_file() and self.site_packages):
            return False
        version = f"version = {platform.python_version()}"
        return version in configuration.read_text().splitlines() and (self.site_packages / "pip").is_dir()

    @property
    def is_ready(self) -> bool:
        """Whether it is complete and made from the current requirements."""
        made_from = self.folder / self.key_file
        return self.python.exists() and made_from.is_file() and made_from.read_text() == self.key


def environments(has_gpu: bool) -> tuple[Environment, Environment]:
    """The environments for this machine: local, engine."""
    local = Environment("plan and gateway", folders.LOCAL_ENVIRONMENT, folders.REQUIREMENTS / "local.txt")
    if has_gpu:
        return local, Environment("vLLM", folders.ENGINE_ENVIRONMENT, folders.REQUIREMENTS / "engine-gpu.txt")
    return local, Environment(
        "vLLM", folders.ENGINE_ENVIRONMENT, folders.REQUIREMENTS / "engine-cpu.txt", ("--no-deps",), runs_on_cpu=True
    )


def install(wanted: Iterable[Environment], progress: Progress, log_folder: Path = folders.LOGS) -> None:
    """Create the environments that are not ready, in parallel.

    Raises:
        LocalError: pip failed; the message contains pip's reason.
    """
    missing = [environment for environment in wanted if not environment.is_ready]
    if not missing:
        return
    names = " and ".join(environment.name for environment in missing)
    progress.phase("install", f"{names}: usually about a minute, once")
    installations = [_Installation(environment, log_folder, progress) for environment in missing]
    try:
        while not all(list(map(_Installation.advance, installations))):
            progress.detail(" | ".join(filter(None, (installation.detail for installation in installations))))
            time.sleep(0.1)
    finally:
        for installation in installations:
            installation.stop()
    shutil.rmtree(_pip_cache(), ignore_errors=True)  # it only served to resume after an interruption


def installed_elsewhere(environment: Environment) -> bool:
    """Whether pip reported success but installed nothing here, as with `target` or `prefix` in a pip.conf."""
    here = environment.site_packages
    names = {path.name.partition("-")[0] for path in here.glob("*.dist-info")} if here else set()
    expected = any(
        re.match(r"\w", line) for text in _with_includes(environment.requirements) for line in text.splitlines()
    )
    return expected and not names - {"pip", "setuptools"}


class _Installation:
    def __init__(self, environment: Environment, log_folder: Path, progress: Progress) -> None:
        self._environment = environment
        self._progress = progress
        self._log = log_folder / f"install-{environment.folder.name.removeprefix('.venv-')}.log"
        self._log.unlink(missing_ok=True)
        self._total = environment.packages
        self._steps = self._commands()
        self._child: Child | None = None
        self._deadline = time.monotonic() + PIP_TIMEOUT_SECONDS
        self._done = False
        self.detail = ""

    def advance(self) -> bool:
        """Continue the installation; returns True once the environment is ready."""
        if self._done:
            return True
        if self._child:
            code = self._child.poll()
            if code is None and time.monotonic() < self._deadline:
                step = pip_output.step(self._child.output(), self._environment.site_packages, self._total)
                self.detail = f"{self._environment.name}: {step}"
                return False
            if code != 0:
                why = reason(self._child.output(), code)
                raise LocalError(f"{self._environment.name} could not be installed: {why}", self._log)
        command = next(self._steps, None)
        if command is None:
            if installed_elsewhere(self._environment):
                raise LocalError(
                    f"pip installed {self._environment.name} outside of {self._environment.folder.name}. "
                    "Remove target, prefix and root from pip's configuration (pip config list)", self._log,
                )  # fmt: skip
            (self._environment.folder / self._environment.key_file).write_text(self._environment.key)
            self.detail, self._done = "", True
            return True
        variables = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
        variables |= {"PIP_USER": "0", "PIP_CACHE_DIR": str(_pip_cache()), "PYTHONUNBUFFERED": "1"}
        self._child = Child(self._environment.name, command, self._log, variables)
        return False

    def stop(self) -> None:
        if self._child and self._child.poll() is None:
            self._child.stop(1)

    def _commands(self) -> Iterator[list[str | Path]]:
        environment = self._environment
        if not environment.is_updated:
            shutil.rmtree(environment.folder, ignore_errors=True)
        if not environment.has_pip:
            yield [sys.executable, "-m", "venv", environment.folder]
        yield [environment.python, *PIP_INSTALL, *environment.pip_options, "-r", environment.requirements]
        if environment.runs_on_cpu and (version := cuda_torch(environment.folder)):
            free = free_gib(environment.folder)
            if free < CUDA_LIBRARIES_GIB:
                raise LocalError(f"pip found torch {version} in its CUDA build only, whose libraries need "
                                 f"{CUDA_LIBRARIES_GIB:g} GiB of disk, and {free:.1f} are free. "
                                 "Configure pip with PyTorch's CPU index")  # fmt: skip
            self._progress.say(
                f"note: pip found torch {version} in its CUDA build only, which needs several GB of CUDA libraries even "
                "here. Configuring pip with PyTorch's CPU index, and removing .venv-engine, avoids them"
            )
            yield [environment.python, *PIP_INSTALL, f"torch=={version}"]


def cuda_torch(folder: Path) -> str | None:
    """The version of the environment's torch if it is a CUDA build; None for a CPU build."""
    for file in folder.glob("lib/python3*/site-packages/torch/version.py"):
        text = file.read_text()
        if re.search(r"^cuda\b[^=]*= *['\"]", text, re.MULTILINE):
            match = re.search(r"^__version__ *= *['\"]([^'\"+]+)", text, re.MULTILINE)
            return match[1] if match else ""
    return None


def _with_includes(requirements: Path) -> Iterator[str]:
    text = requirements.read_text()
    yield text
    for name in re.findall(r"^\s*-[rc]\s+(\S+)", text, re.MULTILINE):
        yield from _with_includes(requirements.parent / name)


def _pip_cache() -> Path:
    return folders.CACHE / "pip"
