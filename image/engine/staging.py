"""Weights on the instance's own NVMe disk, where they are too large to stay in memory while they are read."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from image.engine.memory import GIB
from image.engine.weights import Weights

# vLLM reads a checkpoint on a network file system ahead into memory only up to this share of it. Beyond, it reads page by
# page, which takes many times as long; below, the copy would only be one more read and write.
SHARE_OF_MEMORY = 0.9
PARALLEL_COPIES = 16


def stage(weights: Weights, disk: Path, memory_gib: float, tell: Callable[[str], None]) -> Path:
    """The folder to load from: a copy on the disk where that pays, else where the weights are.

    Args:
        weights: a whole model.
        disk: a folder on a local disk, made by whoever mounted one there; where it is missing nothing is copied.
        memory_gib: what the container may use.
        tell: takes lines for the log.
    """
    size_gib = weights.size_bytes / GIB
    if not disk.is_dir() or size_gib <= SHARE_OF_MEMORY * memory_gib:
        return weights.folder
    target = disk / f"{weights.repository.name.replace('/', '--')}--{weights.commit}"
    if target.is_dir():  # renamed when it was whole
        tell(f"staging: {weights.repository.name} is on the local disk already")
        return target
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if shutil.disk_usage(disk).free < weights.size_bytes:
        tell(f"staging: the local disk has no room for {size_gib:.1f} GiB; weights are read from where they are")
        return weights.folder
    began = time.monotonic()
    files = [path for path in weights.folder.rglob("*") if path.is_file()]
    tell(f"staging: copying {size_gib:.1f} GiB to the local disk, because memory is {memory_gib:.1f} GiB")
    try:
        with ThreadPoolExecutor(PARALLEL_COPIES) as pool:
            list(pool.map(lambda path: _copy(path, part / path.relative_to(weights.folder)), files))
        part.rename(target)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        tell(f"staging: the copy failed ({error.strerror or error}); weights are read from where they are")
        return weights.folder
    seconds = time.monotonic() - began
    tell(f"staging: {size_gib:.1f} GiB in {seconds:.0f} s, {size_gib * 1024 / seconds:.0f} MiB/s")
    return target


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    if target.stat().st_size != source.stat().st_size:
        raise OSError(f"{target.name} came short")
