"""Finds problems at once that would stop `make local` later. Each problem is one line with what to do about it."""

from __future__ import annotations

import difflib
import importlib.util
import re
import shutil
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

from local.machine import Machine

METRICS_PORT = 9090  # the gateway's default
NEWEST_PYTHON = (3, 14)  # the newest that vLLM's pinned list has wheels for
# Measured: .venv-engine 2.2 GB (CPU), .venv-local 0.2 GB, plus downloads during installation. The GPU build includes
# CUDA's libraries.
INSTALL_GIB = {"cpu": 4.0, "gpu": 18.0}
INSTALLED_GIB = 0.5
# Measured: vLLM's three processes use 2.7 GiB with the stand-in model; gateway and runner use 0.2.
MEMORY_GIB = 3.5
SHARED_MEMORY_GIB = 0.5  # vLLM's processes exchange data through 0.4 GiB there


def problems(machine: Machine, port: int, free_gib: float, installed: bool) -> list[str]:
    """All problems of this machine; empty if there are none.

    Args:
        machine: this machine.
        port: the endpoint's port on 127.0.0.1.
        free_gib: free disk space in the repository's folder.
        installed: whether both environments exist already.
    """
    if machine.system != "Linux":
        return [f"vLLM has no wheel for {machine.system}. Run this on Linux (x86_64 or aarch64; WSL or a VM will do)"]
    if machine.architecture not in ("x86_64", "aarch64"):
        return [f"vLLM has no wheel for {machine.architecture}. Run this on x86_64 or aarch64"]
    found = []
    if sys.version_info[:2] > NEWEST_PYTHON and not installed:
        newest = ".".join(map(str, NEWEST_PYTHON))
        found.append(f"vLLM has no wheels for Python {sys.version_info[0]}.{sys.version_info[1]}. "
                     f"Set PYTHON=python{newest} or older, down to 3.11")  # fmt: skip
    if not installed and not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        found.append(f"this Python cannot create environments (no venv or ensurepip). Install python{version}-venv")
    if machine.architecture == "x86_64" and not machine.has_gpu and "avx2" not in machine.cpu_flags:
        found.append(
            "this CPU has no AVX2, which vLLM's CPU build needs. Use another machine, or deploy with `make up`"
        )
    if machine.memory_gib < MEMORY_GIB:
        found.append(f"{machine.memory_gib:.1f} GiB of memory are free and {MEMORY_GIB} are needed. "
                     "Close other programs, or raise the container's limit")  # fmt: skip
    if machine.shared_memory_gib < SHARED_MEMORY_GIB:
        found.append(f"shared memory (/dev/shm) has {machine.shared_memory_gib * 1024:.0f} MiB free, and vLLM's processes exchange data through "
                     "it. Start the container with --shm-size=1g")  # fmt: skip
    needed = INSTALLED_GIB if installed else INSTALL_GIB["gpu" if machine.has_gpu else "cpu"]
    if free_gib < needed:
        found.append(
            f"{free_gib:.1f} GiB of disk are free here and {needed:g} are needed. Free some, or clone elsewhere"
        )
    if problem := port_problem(port):
        found.append(problem)
    return found


# Settings that Pulumi.yaml does not declare, because Pulumi would require a value.
SECRET_SETTINGS = ("apiKeys", "apiKeysDocument", "hfToken")


def stack_problems(stack: str, pairs: Iterable[str], root: Path) -> list[str]:
    """Mistyped stacks and settings, before a minute of installation. The plan checks the values later.

    Args:
        stack: name of the stack.
        pairs: settings as `key=value`.
        root: the folder of Pulumi.yaml.
    """
    found = []
    name = f"Pulumi.{stack.rpartition('/')[2]}.yaml"
    if not (root / name).is_file():
        stacks = sorted(file.name[len("Pulumi.") : -len(".yaml")] for file in root.glob("Pulumi.*.yaml"))
        found.append(f"there is no {name}. Set STACK to one of: {', '.join(stacks)}; or copy one to {name}")
    known = setting_keys(root)
    for pair in pairs:
        key, separator, _ = pair.partition("=")
        if not separator or not key:
            found.append(f"SET: found {pair!r}, which is not key=value. Set for example SET='gpu=h100'")
        elif key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "Pulumi.yaml lists the settings"
            found.append(f"SET: {key} is an unknown setting; {hint}")
    return found


def setting_keys(root: Path) -> list[str]:
    """The keys of all settings, without a YAML parser, which is not installed yet."""
    config = (root / "Pulumi.yaml").read_text(encoding="utf-8").partition("\nconfig:\n")[2]
    return [*re.findall(r"^  (\w+):$", config, re.MULTILINE), *SECRET_SETTINGS]


def port_problem(port: int) -> str | None:
    """Why the endpoint cannot listen on this port of 127.0.0.1; None if it can."""
    if not 0 < port < 65536:
        return f"port {port} is out of range. Set PORT between 1 and 65535"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if port < 1024 and isinstance(error, PermissionError):
                return f"port {port} needs root. Set another, for example make local PORT=8000"
            return f"port {port} is busy ({error.strerror}). Set another, for example make local PORT={port + 1}"
    return None


_given: set[int] = set()


def free_port() -> int:
    """A free port on 127.0.0.1. No two calls of a process return the same one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        if port in _given:
            return free_port()  # while this socket is bound, the system chooses another port
    _given.add(port)
    return port


def metrics_port(endpoint_port: int) -> int:
    """The port of the gateway's metrics: a fixed one, so that Prometheus can be configured, unless it is taken."""
    taken = endpoint_port == METRICS_PORT or port_problem(METRICS_PORT) is not None
    return free_port() if taken else METRICS_PORT


def compiler() -> Path | None:
    """The C++ compiler that torch.compile needs on the CPU; None if there is none."""
    found = shutil.which("g++") or shutil.which("clang++")
    return Path(found) if found else None
