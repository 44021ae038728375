"""Detection of this machine's hardware."""

import os
from pathlib import Path

import pytest

from local import machine


def test_this_machine() -> None:
    found = machine.look()
    assert found.system == "Linux"
    assert found.cpu_cores == len(os.sched_getaffinity(0))
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / machine.GIB
    assert 0 < found.memory_gib <= total
    assert found.shared_memory_gib > 0


@pytest.mark.parametrize(
    ("script", "names", "memory_gib"),
    [
        ("echo 'NVIDIA H200, 143771'; echo 'NVIDIA H200, 143771'", ("NVIDIA H200", "NVIDIA H200"), 143771 / 1024),
        ("echo 'NVIDIA-SMI has failed because it could not communicate with the driver.'; exit 9", (), 0.0),
        ("echo 'No devices were found'", (), 0.0),
    ],
)
def test_gpus_are_those_that_nvidia_smi_lists(
    script: str, names: tuple[str, ...], memory_gib: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = machine.look()
    assert (found.gpu_names, found.gpu_memory_gib, found.has_gpu) == (names, memory_gib, bool(names))


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert machine.free_gib(tmp_path / "a" / "b") == pytest.approx(machine.free_gib(tmp_path), abs=0.5)
