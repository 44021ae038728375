"""Everything that compiled files depend on, read from the container itself rather than passed in."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

# Read by compilers and by compiled code. Variables that the entrypoint sets are equal if these are.
_ENVIRONMENT = re.compile(r"(VLLM|TORCH|TORCHINDUCTOR|PYTORCH|TRITON|FLASHINFER|CUDA|OMP|CC|CXX|CFLAGS)(_\w+)?")
# Differ between containers, or are secret, and do not affect compiled files.
_NOT_COMPILED = re.compile(r"VLLM_(API_KEY|HOST_IP|PORT|LOGGING\w*|NO_USAGE_STATS|CPU_KVCACHE_SPACE)")
_LISTENING = ("--host", "--port")
_CPU_LINES = ("model name", "flags", "Features", "CPU implementer", "CPU part")


def software(environment: Mapping[str, str], folders: Iterable[str] | None = None) -> dict[str, str]:
    """Python, and the exact contents of every installed package: pip's RECORD contains the hash of each file.

    Args:
        environment: its ENGINE_IMAGE is the image's name in the deployment.
        folders: the folders of packages; this Python's own by default.
    """
    digest = hashlib.sha256()
    for folder in _package_folders() if folders is None else map(Path, folders):
        for record in sorted(folder.glob("*-info/RECORD")):
            digest.update(record.parent.name.encode() + b"\0" + record.read_bytes())
    return {
        "python": f"{platform.python_implementation()} {sys.version}",
        "packages": digest.hexdigest(),
        "image": environment.get("ENGINE_IMAGE", ""),
    }


def machine(gpus: Sequence[str], cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """The GPUs' memory, driver and architecture as the driver reports them, and the CPU, which code is also compiled for."""
    lines: dict[str, str] = {}
    try:
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in _CPU_LINES:
                lines.setdefault(name.strip(), value.strip())
    except OSError:
        lines = {}
    # Without a GPU, compiled code depends on the number of threads.
    cores = "" if gpus else str(len(os.sched_getaffinity(0)))
    return {"gpus": json.dumps(list(gpus)), "cpu": _hash(lines), "cores": cores, "architecture": platform.machine()}


def compiled_for(
    software_: Mapping[str, str],
    machine_: Mapping[str, str],
    model: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
) -> dict[str, str]:
    """Everything that compiled graphs and kernels depend on. Arguments and environment are hashed, because they may
    contain secrets.

    Args:
        software_: the result of `software`.
        machine_: the result of `machine`.
        model: the exact files: names and commits, or the state of a folder.
        arguments: vLLM's arguments.
        environment: the engine's environment.
    """
    names = [name for name in environment if _ENVIRONMENT.fullmatch(name) and not _NOT_COMPILED.fullmatch(name)]
    return {
        **software_,
        **machine_,
        "model": model,
        "arguments": _hash(_compiled_arguments(arguments)),
        "environment": _hash({name: environment[name] for name in sorted(names)}),
    }


def _compiled_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments without the server's address."""
    told, before = [], ""
    for word in arguments:
        if before not in _LISTENING and word.partition("=")[0] not in _LISTENING:
            told.append(word)
        before = word
    return told


def folder_state(folder: Path) -> str:
    """The state of a model's folder: the hash of config.json, and of all names, sizes and times."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    config = folder / "config.json"
    content = hashlib.sha256(config.read_bytes()).hexdigest() if config.is_file() else ""
    return content + _hash([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files])


def has_bytecode(folders: Iterable[str] | None = None) -> bool:
    """Whether the image contains the packages' bytecode, which pip writes and uv does not."""
    tag = sys.implementation.cache_tag
    places = _package_folders() if folders is None else [Path(folder) for folder in folders]
    packages = [place / package for place in places for package in ("vllm", "torch", "transformers")]
    found = [package for package in packages if (package / "__init__.py").is_file()]
    return bool(found) and all((package / f"__pycache__/__init__.{tag}.pyc").is_file() for package in found)


def _package_folders() -> list[Path]:
    return [Path(folder) for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
