"""vLLM's argument list against the installed vLLM, where make local has installed one."""

import subprocess
from pathlib import Path

import pytest

from image.engine.argument_list import versions

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-engine/bin/python"


@pytest.mark.whole_matrix
@pytest.mark.skipif(not PYTHON.exists(), reason="vLLM is not installed; make local installs it")
def test_an_upgrade_of_vllm_says_what_changed() -> None:
    """The installed version has its own file, which is what the program would write now."""
    find = "import vllm; print(vllm.__version__.partition('+')[0])"
    version = subprocess.run([PYTHON, "-c", find], capture_output=True, text=True, check=True).stdout.split()[-1]
    newest = version if version in versions() else versions()[-1]
    command = [
        str(PYTHON),
        "-m",
        "benchmarks.engine.engine_arguments",
        "changes",
        f"image/engine/vllm_arguments/{newest}.json",
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, f"vLLM {version}: run benchmarks.engine.engine_arguments write.\n{ran.stdout}"
