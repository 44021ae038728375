"""A copy of the repository outside it, as `pulumi package add` makes one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.pulumi_engine.scene import ROOT


def repository_copy(folder: Path) -> Path:
    """Copy what a clone would contain, changes that are not committed included, and nothing else.

    Args:
        folder: where to; it must not exist.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder
