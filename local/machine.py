"""This machine's GPUs, cores, memory and disk."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GIB = 1024**3


@dataclass(frozen=True)
class Machine:
    """The properties of a machine that matter for serving; sizes in GiB. Without a GPU, vLLM runs on the CPU."""

    system: str
    architecture: str
    cpu_cores: int
    cpu_flags: frozenset[str]
    memory_gib: float
    shared_memory_gib: float
    gpu_names: tuple[str, ...] = ()
    gpu_memory_gib: float = 0.0

    @property
    def has_gpu(self) -> bool:
        """Whether vLLM's GPU build is used."""
        return bool(self.gpu_names)

    def __str__(self) -> str:
        if self.has_gpu:
            count = f"{len(self.gpu_names)} x " if len(self.gpu_names) > 1 else ""
            return f"{count}{self.gpu_names[0]} ({self.gpu_memory_gib:.0f} GiB)"
        return f"the CPU ({self.cpu_cores} cores, {self.memory_gib:.0f} GiB of memory free)"


def look() -> Machine:
    """Inspect this machine; takes as long as nvidia-smi, if installed."""
    names, memory = _gpus()
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        cpu_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu_flags=_cpu_flags(),
        memory_gib=_memory_gib(),
        shared_memory_gib=free_gib(Path("/dev/shm")),  # noqa: S108
        gpu_names=names,
        gpu_memory_gib=memory,
    )


def free_gib(path: Path) -> float:
    """Free space on the file system of ``path``, which need not exist."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free / GIB


def _gpus() -> tuple[tuple[str, ...], float]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        rows = [line.rsplit(",", 1) for line in answer.splitlines() if "," in line]
        return tuple(name.strip() for name, _ in rows), min(float(mib) for _, mib in rows) / 1024
    except (OSError, subprocess.SubprocessError, ValueError):
        return (), 0.0  # no driver, no GPU, or one that does not respond, which vLLM could not use either


def _memory_gib() -> float:
    """Available memory: the kernel's MemAvailable, or the rest of the container's limit."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    group = Path("/sys/fs/cgroup")
    for limit, used, statistics, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):  # "max" means no limit
            fields = dict(line.split() for line in (group / statistics).read_text().splitlines())
            in_use = int((group / used).read_text()) - int(fields.get(cache, 0))  # file cache is reclaimable
            found.append(max(0, int((group / limit).read_text()) - in_use))
    return min(found, default=0) / GIB


def _cpu_flags() -> frozenset[str]:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()
