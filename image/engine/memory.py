"""The container's memory limit, from the kernel."""

from __future__ import annotations

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
GIB = 1 << 30


def available_gib(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> float:
    """The container's limit in GiB, or the machine's memory if there is no limit."""
    machine = 0.0
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemTotal:"):
            machine = int(line.split()[1]) / 2**20
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return min(machine, int((cgroup / name).read_text()) / GIB)
        except (OSError, ValueError):  # "max": no limit
            continue
    return machine
