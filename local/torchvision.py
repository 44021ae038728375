"""torchvision beside vLLM's CPU build: only for models that see, and only then installed.

Where pip sees PyTorch's CPU index it takes the build that fits. Elsewhere there is the CUDA build alone, which fails at
its import beside a CPU torch, as it registers properties of operators that it could not load. Its transforms are Python
and work: the module that registers is stood aside by a line that Python runs when it starts.
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
    """Install what models that see need into vLLM's environment, unless it is there.

    Raises:
        LocalError: pip could not; the reason is pip's.
    """
    key = hashlib.sha256((environment.key + requirements.read_text()).encode()).hexdigest()
    made_from = environment.folder / KEY_FILE
    if made_from.is_file() and made_from.read_text() == key:
        return
    progress.phase("install", "torchvision, for a model that sees")
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
    """Whether a torchvision/version.py is of a CUDA build."""
    return re.search(r"^__version__ *= *['\"][^'\"]*\+cu", version, re.MULTILINE) is not None
