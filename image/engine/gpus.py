"""The GPUs of this container, as the driver reports them, and the checks on them."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from image.engine.arguments import EngineError
from image.engine.memory import GIB

# NVIDIA's minimum driver for each major version of CUDA, and the oldest architecture that CUDA 13 supports.
LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
LEAST_COMPUTE_CAPABILITY = {11: 3.5, 12: 5.0, 13: 7.5}
COMPATIBILITY_LIBRARY = Path("/usr/local/cuda/compat/libcuda.so.1")
DRIVER_TIMEOUT_SECONDS = 30.0
_QUERY = "name,memory.total,driver_version,compute_cap,memory.used,index,uuid"
_DRIVER_FIELD = re.compile(r"\d+(\.\d+)+")


@dataclass(frozen=True)
class Gpu:
    """One GPU; None for values that the driver does not report."""

    name: str
    memory_gib: float | None
    driver: str
    compute_capability: float | None
    used_gib: float | None
    index: int | None = None
    uuid: str = ""

    @property
    def identity(self) -> str:
        """The properties that are equal for all starts on the same type of machine."""
        return f"{self.name}, {self.memory_gib}, {self.driver}, {self.compute_capability}"

    def __str__(self) -> str:
        memory = f", {self.memory_gib:.1f} GiB" if self.memory_gib else ""
        return f"{self.name}{memory}, driver {self.driver or 'unknown'}"


def visible_gpus(environment: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that the driver reports and CUDA_VISIBLE_DEVICES selects, in CUDA's order; none without a driver.

    Raises:
        EngineError: the driver is installed but does not work, or CUDA_VISIBLE_DEVICES selects none.
    """
    command = shutil.which("nvidia-smi", path=environment.get("PATH", os.defpath))
    if command is None:
        return []
    query = [command, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=DRIVER_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EngineError(
            f"GPU: nvidia-smi did not answer within {DRIVER_TIMEOUT_SECONDS:.0f} s; the driver hangs: replace the instance"
        ) from None
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise EngineError(
            f"GPU: nvidia-smi failed: {lines[-1] if lines else f'exit code {done.returncode}'}; check the host's driver"
        )
    parsed = [_parsed(line) for line in done.stdout.splitlines()]
    return _selected([gpu for gpu in parsed if gpu], environment.get("CUDA_VISIBLE_DEVICES"))


def _selected(gpus: Sequence[Gpu], value: str | None) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES selects: as in CUDA, the first word that names none ends the list."""
    if value is None or not gpus:
        return list(gpus)
    chosen: list[Gpu] = []
    for word in (part.strip() for part in value.split(",")):
        found = [gpu for i, gpu in enumerate(gpus) if word == str(i if gpu.index is None else gpu.index)]
        if word.startswith("GPU-"):
            found = [gpu for gpu in gpus if gpu.uuid.startswith(word)]
        elif word.startswith("MIG-"):  # a part of a GPU, whose memory this query does not report
            found = [dataclasses.replace(gpus[0], name=word, memory_gib=None, used_gib=None)]
        if len(found) != 1:
            break
        chosen += found
    if not chosen:
        there = ", ".join(gpu.uuid or str(i if gpu.index is None else gpu.index) for i, gpu in enumerate(gpus))
        raise EngineError(
            f"CUDA_VISIBLE_DEVICES: found {value!r}, which selects none of this container's GPUs ({there}); unset it, or set indices from 0 or UUIDs"
        )
    return chosen


def by_index(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that select the same GPUs by index: vLLM fails on the UUIDs that CUDA accepts.

    Args:
        gpus: those that CUDA_VISIBLE_DEVICES selects, in its order.
        environment: the container's environment.

    Returns:
        Nothing to change if it names no whole GPU by UUID.
    """
    indices = [gpu.index for gpu in gpus]
    if "GPU-" not in environment.get("CUDA_VISIBLE_DEVICES", "") or None in indices:
        return {}
    if any(gpu.name.startswith("MIG-") for gpu in gpus):
        return {}
    # The driver's indices are in the order of the bus, and CUDA's by default are not.
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, indices)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def check_gpus(gpus: Sequence[Gpu], wanted: int, utilization: float, environment: Mapping[str, str]) -> None:
    """Check count, driver, architecture and free memory.

    Args:
        gpus: the GPUs found.
        wanted: how many vLLM should use.
        utilization: the fraction of each GPU's memory that vLLM should use.
        environment: the container's environment.

    Raises:
        EngineError: the first problem found.
    """
    if not gpus:
        raise EngineError(
            "GPU: nvidia-smi shows none in this container; start it with --gpus all (docker), a GPU reservation (ECS) or nvidia.com/gpu (Kubernetes), or set ENGINE_DEVICE=cpu on vLLM's CPU build"
        )
    if len(gpus) < wanted:
        raise EngineError(
            f"TENSOR_PARALLEL_SIZE: found {wanted}, but this container has {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}; set at most {len(gpus)}, or assign more GPUs"
        )
    cuda = torch_cuda()
    _check_driver(gpus[0], cuda, environment)
    for gpu in gpus[:wanted]:
        least = LEAST_COMPUTE_CAPABILITY.get(cuda or 0, 0)
        if gpu.compute_capability and gpu.compute_capability < least:
            raise EngineError(
                f"GPU: {gpu.name} has compute capability {gpu.compute_capability}, and this image's CUDA {cuda} needs {least}; use a newer GPU or an older image"
            )
        if gpu.memory_gib and gpu.used_gib and gpu.memory_gib - gpu.used_gib < utilization * gpu.memory_gib - 0.5:
            raise EngineError(
                f"GPU memory: {gpu.used_gib:.1f} of {gpu.memory_gib:.1f} GiB of {gpu.name} are already in use; stop the processes that use it, or set GPU_MEMORY_UTIL to at most {max(0.0, 1 - gpu.used_gib / gpu.memory_gib - 0.02):.2f}"
            )


def check_weights_fit(gpus: Sequence[Gpu], wanted: int, utilization: float, size_bytes: int) -> None:
    """Check that the weights alone fit on the GPUs, before they are downloaded.

    Raises:
        EngineError: they do not.
    """
    memory = [gpu.memory_gib for gpu in gpus[:wanted] if gpu.memory_gib]
    if not memory:
        return
    usable, share = min(memory) * utilization, size_bytes / GIB / wanted
    if share > usable:
        raise EngineError(
            f"GPU memory: {size_bytes / GIB:.1f} GiB of weights on {wanted} GPU{'s' if wanted > 1 else ''} are {share:.1f} GiB each, of {usable:.1f} usable; set TENSOR_PARALLEL_SIZE to more GPUs, or MODEL_NAME to a smaller or quantized model"
        )


def _check_driver(gpu: Gpu, cuda: int | None, environment: Mapping[str, str]) -> None:
    found, least = gpu.driver.partition(".")[0], LEAST_DRIVER.get(cuda or 0, 0)
    compatible = environment.get("VLLM_ENABLE_CUDA_COMPATIBILITY", "0") != "0" and COMPATIBILITY_LIBRARY.exists()
    if found.isdecimal() and int(found) < least and not compatible:
        raise EngineError(
            f"driver: found NVIDIA {gpu.driver}, and this image's CUDA {cuda} needs {least} or newer; update the host's driver, or use an image of an older vLLM"
        )


def torch_cuda(folder: Path | None = None) -> int | None:
    """The major CUDA version of the installed torch, without importing it; None without CUDA or without torch."""
    if folder is None:
        spec = importlib.util.find_spec("torch")
        if spec is None or not spec.origin:
            return None
        folder = Path(spec.origin).parent
    try:
        found = re.search(r"^cuda\b[^=]*=\s*['\"](\d+)", (folder / "version.py").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _parsed(line: str) -> Gpu | None:
    """A GPU; None for a warning, which nvidia-smi prints between the lines."""
    parts = [part.strip() for part in line.split(",")] + [""] * 2
    if len(parts) < 7 or not _DRIVER_FIELD.fullmatch(parts[2]):
        return None
    memory, used = _number(parts[1]), _number(parts[4])
    return Gpu(
        name=parts[0],
        memory_gib=memory and memory / 1024,
        driver=parts[2],
        compute_capability=_number(parts[3]),
        used_gib=used and used / 1024,
        index=int(parts[5]) if parts[5].isdecimal() else None,
        uuid=parts[6],
    )


def _number(text: str) -> float | None:
    found = re.match(r"[\d.]+", text)
    return float(found[0]) if found else None
