"""Copies weights to the instance's NVMe disk if they are too large for the page cache."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from image.engine.memory import GIB
from image.engine.weights import Weights

# vLLM prefetches a checkpoint from a network file system only up to this fraction of memory. Above it, vLLM reads page by
# page, which is many times slower; below it, a copy would only add a read and a write.
SHARE_OF_MEMORY = 0.9
PARALLEL_COPIES = 16
ABANDONED_SECONDS = 3600


def stage(weights: Weights, disk: Path, memory_gib: float, tell: Callable[[str], None]) -> Path:
    """The folder to load from: a copy on the local disk if that is faster, otherwise the weights' own folder.

    Args:
        weights: a complete model.
        disk: a folder on a local disk; nothing is copied if it does not exist.
        memory_gib: the container's memory limit.
        tell: logs a line.
    """
    size_gib = weights.size_bytes / GIB
    if not disk.is_dir() or size_gib <= SHARE_OF_MEMORY * memory_gib:
        return weights.folder
    target = disk / f"{weights.repository.name.replace('/', '--')}--{weights.commit}"
    if target.is_dir():  # it is renamed only once it is complete
        tell(f"staging: {weights.repository.name} is already on the local disk")
        return target
    for left in disk.glob(f"{target.name}.*part"):  # of a copy that was killed
        with contextlib.suppress(OSError):  # another engine may be removing it
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")  # its own: another engine may be copying, too
    if shutil.disk_usage(disk).free < weights.size_bytes:
        tell(f"staging: the local disk has no room for {size_gib:.1f} GiB; reading the weights from the volume")
        return weights.folder
    began = time.monotonic()
    files = [path for path in weights.folder.rglob("*") if path.is_file()]
    tell(f"staging: copying {size_gib:.1f} GiB to the local disk, because the memory limit is {memory_gib:.1f} GiB")
    try:
        with ThreadPoolExecutor(PARALLEL_COPIES) as pool:
            list(pool.map(lambda path: _copy(path, part / path.relative_to(weights.folder)), files))
        part.rename(target)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        if target.is_dir():
            tell(f"staging: {weights.repository.name} was copied by another engine meanwhile")
            return target
        tell(f"staging: the copy failed ({error.strerror or error}); reading the weights from the volume")
        return weights.folder
    seconds = time.monotonic() - began
    tell(f"staging: {size_gib:.1f} GiB in {seconds:.0f} s, {size_gib * 1024 / seconds:.0f} MiB/s")
    return target


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    if target.stat().st_size != source.stat().st_size:
        raise OSError(f"{target.name} is incomplete")
