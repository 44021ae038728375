"""Checks the machine before a model is loaded, so that simple mistakes fail at once and not after minutes of loading."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from image.engine.arguments import EngineError, Launch
from image.engine.gpus import Gpu, check_gpus, visible_gpus
from image.engine.memory import GIB, available_gib

SHARED_MEMORY_GIB_PER_GPU = 1
LITTLE_GIB = 10  # below it, the log has a decimal place
# For vLLM's processes: an API server, an engine and a worker per GPU, each with torch.
LEAST_MEMORY_GIB, MEMORY_GIB_PER_GPU = 4, 2
SHM = Path("/dev/shm")  # noqa: S108 - the mount itself is what is looked at


@dataclass(frozen=True)
class Machine:
    """The results of the checks; ``lines`` are for the log."""

    gpus: tuple[Gpu, ...]
    memory_gib: float
    lines: tuple[str, ...]


def check_machine(launch: Launch, *, shared_memory: Path = SHM, memory_gib: float | None = None) -> Machine:
    """Check GPUs, driver, memory, shared memory and port, and describe the folders.

    Raises:
        EngineError: the first problem found.
    """
    found = []
    gpus: list[Gpu] = []
    if launch.environment.get("ENGINE_DEVICE", "gpu").lower() == "cpu":
        found.append("device: cpu, set by ENGINE_DEVICE")
    else:
        gpus = visible_gpus(launch.environment)
        check_gpus(gpus, launch.gpus, launch.gpu_memory_utilization, launch.environment)
        found.append(f"device: {len(gpus)} x {gpus[0]}")
    memory = available_gib() if memory_gib is None else memory_gib
    _check_memory(memory, launch.gpus if gpus else 0)
    found.append(f"memory: {memory:.1f} GiB")
    if launch.gpus > 1 and gpus:
        found.append(f"shared memory: {_check_shared_memory(launch.gpus, shared_memory):.1f} GiB")
    for name in ("HF_HOME", "ENGINE_CACHE"):
        if path := launch.environment.get(name):
            found.append(_folder_line(name, Path(path)))
    _check_port(launch.port)
    return Machine(tuple(gpus), memory, tuple(found))


def _check_memory(memory_gib: float, gpus: int) -> None:
    least = LEAST_MEMORY_GIB + MEMORY_GIB_PER_GPU * max(0, gpus - 1)
    if memory_gib < least:
        raise EngineError(
            f"memory: this container may use {memory_gib:.1f} GiB, and vLLM's processes need {least}; raise its limit (--memory in docker, the instance type on AWS)"
        )


def _check_shared_memory(gpus: int, path: Path) -> float:
    size = shutil.disk_usage(path).total / GIB
    least = SHARED_MEMORY_GIB_PER_GPU * gpus
    if size < least:
        raise EngineError(
            f"shared memory: found {size:.2f} GiB at {path}, which {gpus} GPUs exchange tensors through; set --shm-size {least}g (docker), or sharedMemoryGib: {least}"
        )
    return size


def _folder_line(name: str, path: Path) -> str:
    """A line on the folder. It refuses nothing: complete weights can be read only, and a start without a cache is only slower."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{uuid.uuid4().hex}"
        probe.write_bytes(b"")
        probe.unlink()
        free = shutil.disk_usage(path).free / GIB
    except OSError as error:
        effect = "weights that are missing cannot be downloaded" if name == "HF_HOME" else "nothing is cached"
        return f"{name}: {path} cannot be written ({error.strerror}): {effect}; mount a volume that user {os.getuid()} can write"
    return f"{name}: {free:.{0 if free >= LITTLE_GIB else 1}f} GiB free at {path}"


def _check_port(port: int) -> None:
    if not 0 < port < 65536:
        raise EngineError(f"PORT: found {port}; set 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - where vLLM will listen
        except OSError as error:
            raise EngineError(f"PORT: {port} cannot be bound ({error.strerror}); set PORT to a free one") from None
