"""What compiled files depend on, asked of the container itself and not of whoever started it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

# Read by compilers and by the code they make. What the entrypoint sets itself is the same wherever the rest is.
_ENVIRONMENT = re.compile(r"(VLLM|TORCH|TORCHINDUCTOR|PYTORCH|TRITON|FLASHINFER|CUDA|OMP|CC|CXX|CFLAGS)(_\w+)?")
# Differ from container to container, or are secret, and change nothing that is compiled.
_NOT_COMPILED = re.compile(r"VLLM_(API_KEY|HOST_IP|PORT|LOGGING\w*|NO_USAGE_STATS|CPU_KVCACHE_SPACE)")
_LISTENING = ("--host", "--port")
_CPU_LINES = ("model name", "flags", "Features", "CPU implementer", "CPU part")


def software(environment: Mapping[str, str], folders: Iterable[str] | None = None) -> dict[str, str]:
    """Python, and every installed package to the byte: pip's RECORD of a package holds the hash of each of its files.

    Args:
        environment: ENGINE_IMAGE in it is the image as the deploy names it.
        folders: where packages are; this Python's own by default.
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
    """GPUs with memory, driver and architecture as the driver tells them; and the CPU, for which code is compiled, too."""
    lines: dict[str, str] = {}
    try:
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in _CPU_LINES:
                lines.setdefault(name.strip(), value.strip())
    except OSError:
        lines = {}
    # Thread counts are compiled in where there is no GPU.
    cores = "" if gpus else str(len(os.sched_getaffinity(0)))
    return {"gpus": json.dumps(list(gpus)), "cpu": _hash(lines), "cores": cores, "architecture": platform.machine()}


def compiled_for(
    software_: Mapping[str, str],
    machine_: Mapping[str, str],
    model: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
) -> dict[str, str]:
    """All that compiled graphs and kernels depend on. Arguments and environment as hashes: they may hold secrets.

    Args:
        software_: from `software`.
        machine_: from `machine`.
        model: which files exactly: names and commits, or the state of a folder.
        arguments: vLLM's, without secrets' values mattering: they are hashed.
        environment: the engine's.
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
    """All but where the server listens."""
    told, before = [], ""
    for word in arguments:
        if before not in _LISTENING and word.partition("=")[0] not in _LISTENING:
            told.append(word)
        before = word
    return told


def folder_state(folder: Path) -> str:
    """Which files a model's folder holds: the hash of config.json's bytes, and of all names, sizes and times."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    config = folder / "config.json"
    content = hashlib.sha256(config.read_bytes()).hexdigest() if config.is_file() else ""
    return content + _hash([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files])


def has_bytecode(folders: Iterable[str] | None = None) -> bool:
    """Whether the image was built with the packages' bytecode in it, as pip does and uv does not."""
    tag = sys.implementation.cache_tag
    places = _package_folders() if folders is None else [Path(folder) for folder in folders]
    packages = [place / package for place in places for package in ("vllm", "torch", "transformers")]
    found = [package for package in packages if (package / "__init__.py").is_file()]
    return bool(found) and all((package / f"__pycache__/__init__.{tag}.pyc").is_file() for package in found)


def _package_folders() -> list[Path]:
    return [Path(folder) for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
