"""Continues in a newer Python if this one is too old. Any installed Python must be able to parse it: nothing newer than 3.6."""

import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
NAMES = ("python3.13", "python3.12", "python3.11", "python3.14")


def newer_python():
    # type: () -> str | None
    """A Python on PATH that is new enough and starts. A version manager's shim may not start."""
    for name in NAMES:
        path = shutil.which(name)
        try:
            if path and subprocess.call([path, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
                return path
        except OSError:
            continue
    return None


def require_newer_python(module):
    # type: (str) -> None
    """Return if this Python is new enough; otherwise run the module in a newer one, or exit with one line."""
    if sys.version_info >= OLDEST:
        return
    newer = newer_python()
    if newer is None:
        found = ".".join(str(part) for part in sys.version_info[:2])
        sys.exit(f"error: Python 3.11 or newer is needed and python3 is {found}. Set PYTHON=python3.11")
    os.execv(newer, [newer, "-m", module, *sys.argv[1:]])  # noqa: S606 - no shell is the point
