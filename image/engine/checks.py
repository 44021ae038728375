"""What of the machine must hold before a model is loaded: minutes of loading should not end in a plain mistake."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from image.engine.arguments import EngineError, Launch

GIB = 1 << 30
SHARED_MEMORY_GIB_PER_GPU = 1
LEAST_FREE_GIB = 2
SHM = Path("/dev/shm")  # noqa: S108 - the mount itself is what is looked at


def check_machine(launch: Launch, *, shared_memory: Path = SHM) -> list[str]:
    """Check GPU, driver, shared memory, caches and port.

    Returns:
        Lines that describe what was found, for the log.

    Raises:
        EngineError: the first thing that is wrong.
    """
    found = []
    if launch.environment.get("ENGINE_DEVICE", "gpu").lower() == "cpu":
        found.append("device: cpu, because ENGINE_DEVICE says so")
    else:
        found.append(f"device: {_check_gpus(launch)}")
    if launch.gpus > 1:
        found.append(f"shared memory: {_check_shared_memory(launch.gpus, shared_memory):.1f} GiB")
    for name in ("HF_HOME", "VLLM_CACHE_ROOT"):
        if path := launch.environment.get(name):
            found.append(f"{name}: {_check_folder(name, Path(path)):.0f} GiB free at {path}")
    _check_port(launch.port)
    return found


def _check_gpus(launch: Launch) -> str:
    names = visible_gpus(launch.environment)
    if not names:
        raise EngineError(
            "GPU: nvidia-smi shows none in this container; start it with --gpus all (docker), a GPU reservation (ECS) or nvidia.com/gpu (Kubernetes), or set ENGINE_DEVICE=cpu on vLLM's CPU build"
        )
    if len(names) < launch.gpus:
        raise EngineError(
            f"TENSOR_PARALLEL_SIZE: found {launch.gpus}, but this container sees {len(names)} GPU{'s' if len(names) > 1 else ''}; set at most {len(names)}, or give it more"
        )
    return f"{len(names)} x {names[0]}"


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """One line a GPU that the driver shows, with its memory; none where there is no working driver.

    Raises:
        EngineError: the driver is there but does not answer.
    """
    command = shutil.which("nvidia-smi", path=environment.get("PATH", os.defpath))
    if command is None:
        return []
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        raise EngineError(
            "GPU: nvidia-smi did not answer within 30 s; the driver hangs: replace the instance"
        ) from None
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise EngineError(
            f"GPU: nvidia-smi failed: {lines[-1] if lines else f'exit code {done.returncode}'}; check the host's driver"
        )
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _check_shared_memory(gpus: int, path: Path) -> float:
    size = shutil.disk_usage(path).total / GIB
    least = SHARED_MEMORY_GIB_PER_GPU * gpus
    if size < least:
        raise EngineError(
            f"shared memory: found {size:.2f} GiB at {path}, and {gpus} GPUs pass tensors through it; set --shm-size {least}g (docker), or sharedMemoryGib: {least}"
        )
    return size


def _check_folder(name: str, path: Path) -> float:
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise EngineError(
            f"{name}: {path} cannot be written ({error.strerror}); mount a volume there that user {os.getuid()} may write"
        ) from None
    free = shutil.disk_usage(path).free / GIB
    if free < LEAST_FREE_GIB:
        raise EngineError(
            f"{name}: {path} has {free:.1f} GiB free; free at least {LEAST_FREE_GIB} GiB, or mount a larger volume"
        )
    return free


def _check_port(port: int) -> None:
    if not 0 < port < 65536:
        raise EngineError(f"PORT: found {port}; set 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - where vLLM will listen
        except OSError as error:
            raise EngineError(
                f"PORT: {port} cannot be listened on ({error.strerror}); set PORT to a free one"
            ) from None
