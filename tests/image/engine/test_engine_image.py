"""The engine's image: its Dockerfile, and whether what it copies is all that the entrypoint imports."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_entrypoint_needs_the_standard_library_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "image/engine", tmp_path / "image/engine", ignore=shutil.ignore_patterns("__pycache__"))
    for module in ("image.engine", "image.engine.fetch"):
        done = subprocess.run(
            [sys.executable, "-S", "-m", module],
            cwd=tmp_path,
            env={"PATH": "/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.stderr.startswith("engine: error: MODEL_NAME: not set"), done.stderr
