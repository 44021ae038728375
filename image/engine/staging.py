"""Copies weights to the instance's NVMe disk if they are too large for the page cache."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from image.engine.blobs import is_right
from image.engine.memory import GIB
from image.engine.s3 import ETAG
from image.engine.weights import Weights

# vLLM prefetches a checkpoint from a network file system only up to this fraction of memory. Above it, vLLM reads page by
# page, which is many times slower; below it, a copy would only add a read and a write.
SHARE_OF_MEMORY = 0.9
PARALLEL_COPIES = 16
ABANDONED_SECONDS = 3600
_COPY = re.compile(r".+--[0-9a-f]{40}")
_PARTIAL = re.compile(rf"{_COPY.pattern}(\.[0-9a-f]{{32}})?\.part")


def stage(weights: Weights, disk: Path, memory_gib: float, tell: Callable[[str], None]) -> Path:
    """The folder to load from: a verified copy on the local disk if that is faster, otherwise the weights' own folder.

    Each engine copies to a folder of its own, which is renamed once every file in it has its size and hash.

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
    try:
        wanted = {path.relative_to(weights.folder): path.stat().st_size for path in _files(weights.folder)}
        if _in_use(target) and _holds(target, wanted):
            tell(f"staging: {weights.repository.name} is already on the local disk")
            return target
        _tidy(disk)
        needed = sum(wanted.values())
        if shutil.disk_usage(disk).free < needed:
            _delete_others(disk, target, tell)
        if shutil.disk_usage(disk).free < needed:
            tell(f"staging: the local disk has no room for {size_gib:.1f} GiB; reading the weights from the volume")
            return weights.folder
        tell(f"staging: copying {size_gib:.1f} GiB to the local disk, because the memory limit is {memory_gib:.1f} GiB")
        staged = _staged(weights, target, wanted, tell)
        _in_use(staged)
        return staged
    except OSError as error:
        tell(f"staging: the copy failed ({error.strerror or error}); reading the weights from the volume")
        return weights.folder


def _staged(weights: Weights, target: Path, wanted: dict[Path, int], tell: Callable[[str], None]) -> Path:
    began = time.monotonic()
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    part.mkdir()
    with _owner(part).open("w") as owner:
        with contextlib.suppress(OSError):
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            with ThreadPoolExecutor(PARALLEL_COPIES) as pool:
                hashes = {name: weights.hashes.get(str(name)) for name in wanted}
                copies = [pool.submit(_copy, weights.folder / name, part / name, hashes[name]) for name in wanted]
                try:
                    for copy in copies:
                        copy.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            if target.exists() and not _holds(target, wanted):  # torn, or of an older version of this program
                target.rename(target.with_name(f"{target.name}.{uuid.uuid4().hex}.part"))
            part.rename(target)
        except OSError:
            if not _holds(target, wanted):
                raise
            tell(f"staging: {weights.repository.name} was copied by another engine meanwhile")
            return target
        finally:
            shutil.rmtree(part, ignore_errors=True)
            with contextlib.suppress(OSError):
                _owner(part).unlink()
    size_gib, seconds = weights.size_bytes / GIB, max(time.monotonic() - began, 0.001)
    tell(f"staging: {size_gib:.1f} GiB in {seconds:.0f} s, {size_gib * 1024 / seconds:.0f} MiB/s")
    return target


def _copy(source: Path, target: Path, expected: str | None) -> None:
    """Copy a file, and verify the copy: its size, and its hash if that is known."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    if not is_right(target, expected or ETAG, source.stat().st_size):
        raise OSError(f"{target.name} does not have its hash or size")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".part")]


def _holds(target: Path, wanted: dict[Path, int]) -> bool:
    """Whether every file is there with its size; a folder is renamed only once it is complete, but files can be lost later."""
    try:
        return target.is_dir() and all((target / name).stat().st_size == size for name, size in wanted.items())
    except OSError:
        return False


def _in_use(target: Path) -> bool:
    """Keep other engines from deleting a copy: a lock on its folder, which vLLM inherits and holds until it exits."""
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.set_inheritable(descriptor, True)
    return True


def _delete_others(disk: Path, target: Path, tell: Callable[[str], None]) -> None:
    """Delete complete copies that no engine uses, such as those of an earlier model or commit."""
    for left in list(disk.iterdir()):
        if left == target or not _COPY.fullmatch(left.name) or not left.is_dir():
            continue
        with contextlib.suppress(OSError):  # in use
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
                tell(f"staging: deleted {left.name}, which no engine uses, from the local disk")
            finally:
                os.close(descriptor)


def _tidy(disk: Path) -> None:
    """Delete the partial copies of engines that died, of any model: the kernel released the lock of their owner."""
    for left in filter(lambda path: _PARTIAL.fullmatch(path.name), list(disk.iterdir())):
        with contextlib.suppress(OSError):  # another engine may be deleting it
            age_seconds = time.time() - left.stat().st_mtime
            if _owner(left).exists():
                with _owner(left).open("r+") as owner:
                    fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
                    _owner(left).unlink()
            elif age_seconds > ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _owner(part: Path) -> Path:
    return part.with_name(f"{part.name}-owner")
