"""Limits of this machine: open files and ephemeral ports. They are raised or checked before the run."""

import hashlib
import os
import platform
import resource
from collections.abc import Iterable
from pathlib import Path

from smoke_tests.benchmark.record import Load
from smoke_tests.errors import TargetError

# Files besides the connections: the standard streams, the event loop, the record, a DNS lookup.
OTHER_FILES = 32
PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def require_client_resources(loads: Iterable[Load]) -> None:
    """Raise the soft limit of open files to the hard limit, and check that the loads fit.

    Raises TargetError if a load needs more connections than this machine allows. An open loop has no fixed number of
    connections; if it reaches a limit, those requests are counted as client errors.
    """
    files = _raised_file_limit()
    ports = ephemeral_ports()
    most = max((load.concurrency or 1 for load in loads), default=1)
    if files is not None and most + OTHER_FILES > files:
        raise TargetError(
            f"--concurrency {most}: needs {most + OTHER_FILES} open files, but the hard limit of this process is {files}. "
            "Raise it (ulimit -Hn), or lower --concurrency"
        )
    if ports is not None and most > ports:
        raise TargetError(
            f"--concurrency {most}: this machine has only {ports} ephemeral ports. Widen net.ipv4.ip_local_port_range, "
            "or lower --concurrency"
        )


def ephemeral_ports() -> int | None:
    """Return the number of local ports for outgoing connections, None if the system does not report it."""
    try:
        low, high = PORT_RANGE.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return int(high) - int(low) + 1


def machine_digest() -> str:
    """Return a digest of this machine's name, kind and CPUs: it distinguishes machines without naming them."""
    names = (platform.node(), platform.machine(), str(len(_cpus())))
    return hashlib.sha256("/".join(names).encode()).hexdigest()[:12]


def _raised_file_limit() -> int | None:
    """Return the limit that now applies, None without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS caps the soft limit below an infinite hard limit
            return None if soft == resource.RLIM_INFINITY else soft
    return None if hard == resource.RLIM_INFINITY else hard


def _cpus() -> range | set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
