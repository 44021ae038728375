"""Installs torchvision into vLLM's CPU environment, which only vision models need.

If pip has PyTorch's CPU index, it installs the matching build. Otherwise only the CUDA build is available, whose import
fails with a CPU torch, because it registers properties of operators that it could not load. Its transforms are written in
Python and work, so a .pth line replaces the registering module with an empty one at Python's start.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from local import folders, processes
from local.environments import PIP_INSTALL, Environment, cuda_torch
from local.failures import LocalError, reason
from local.progress import Progress

REQUIREMENTS = folders.REQUIREMENTS / "engine-cpu-vision.txt"
KEY_FILE = "made-from-vision"
INSTALL_SECONDS = 900.0
REGISTERS = "torchvision._meta_registrations"
STAND_ASIDE = f"import sys, types; sys.modules[{REGISTERS!r}] = types.ModuleType({REGISTERS!r})\n"


def add_torchvision(environment: Environment, progress: Progress, requirements: Path = REQUIREMENTS) -> None:
    """Install torchvision into vLLM's environment, unless it is installed.

    Raises:
        LocalError: pip failed; the message contains pip's reason.
    """
    key = hashlib.sha256((environment.key + requirements.read_text()).encode()).hexdigest()
    made_from = environment.folder / KEY_FILE
    if made_from.is_file() and made_from.read_text() == key:
        return
    progress.phase("install", "torchvision, for a vision model")
    log = folders.LOGS / "install-torchvision.log"
    log.unlink(missing_ok=True)
    command: list[str | Path] = [environment.python, *PIP_INSTALL, *environment.pip_options, "-r", requirements]
    code, output = processes.run(
        "pip", command, log, progress.tick, INSTALL_SECONDS, {**os.environ, "PIP_NO_CACHE_DIR": "1"}
    )
    if code != 0:
        raise LocalError(f"torchvision could not be installed: {reason(output, code)}", log)
    for version in environment.folder.glob("lib/python3*/site-packages/torchvision/version.py"):
        if is_for_cuda(version.read_text()) and not cuda_torch(environment.folder):
            (version.parent.parent / "torchvision_without_operators.pth").write_text(STAND_ASIDE)
    made_from.write_text(key)


def is_for_cuda(version: str) -> bool:
    """Whether a torchvision/version.py belongs to a CUDA build."""
    return re.search(r"^__version__ *= *['\"][^'\"]*\+cu", version, re.MULTILINE) is not None
