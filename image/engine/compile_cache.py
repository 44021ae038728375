"""The compile cache: files that survive a replica, published as complete archives under their hash, never modified in place.

An archive is ``STORE/KIND/KEY/SHA256.tar``. KEY is the hash of everything that the files depend on, which is also in the
archive; SHA256 is the hash of the archive itself. No process reads or writes files of the store in place: a start copies
an archive to a local folder, and an archive has a temporary name until it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

DESCRIPTION = ".kept.json"
BLOCK = 1 << 20
KEPT_ARCHIVES = 2  # per key: the newest, and one that another replica may be reading
UNUSED_DAYS = 30
UNFINISHED_HOURS = 6
PASSING = (".lock", ".tmp", ".part")  # temporary files of a running process, useless to others


@dataclass(frozen=True)
class CompileCache:
    """One kind of cached files.

    Attributes:
        kind: the name of the folder in the store.
        store: the folder shared by all replicas.
        local: the folder in which this container's processes read and write the files.
        depends_on: everything that must be equal for another start to use the files; contains no secret.
    """

    kind: str
    store: Path
    local: Path
    depends_on: Mapping[str, str]

    @property
    def key(self) -> str:
        """The hash of `depends_on`."""
        return hashlib.sha256(json.dumps(dict(self.depends_on), sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """The folder with the archives of this key."""
        return self.store / self.kind / self.key


@dataclass(frozen=True)
class Restored:
    """The result of a restore: ``files`` from the archive (empty if there was none), and lines for the log."""

    files: Mapping[str, int]
    notes: tuple[str, ...]


class _UnusableError(Exception):
    """An archive that is corrupt, or that does not match its name."""


def contents(local: Path) -> dict[str, int]:
    """Map the relative path of each file worth caching to its size."""
    found = {}
    for path in sorted(local.rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.endswith(PASSING):
            found[str(path.relative_to(local))] = path.stat().st_size
    return found


def restore(kept: CompileCache) -> Restored:
    """Fill the local folder from the newest valid archive; without one, the folder is empty.

    Files that an earlier process left in the local folder are deleted, because it may have died while writing. Corrupt or
    mismatched archives are deleted. A failed restore never prevents a start, which is only slower without an archive.
    """
    began, notes = time.monotonic(), list[str]()
    shutil.rmtree(kept.local, ignore_errors=True)
    try:
        kept.local.mkdir(parents=True, mode=0o700)
    except OSError as error:  # what an earlier process left cannot be deleted, or there is no room
        return Restored({}, (f"{kept.kind}: {kept.local} cannot be used ({error.strerror}); nothing is cached",))
    for archive in _archives(kept):
        unpacking = kept.local.with_name(f"{kept.local.name}.{uuid.uuid4().hex}.part")
        try:
            _unpack(kept, archive, unpacking)
            kept.local.rmdir()
            unpacking.rename(kept.local)
        except _UnusableError as error:
            with contextlib.suppress(OSError):
                archive.unlink()
            notes.append(f"{kept.kind}: {archive.name[:12]} deleted: {error}")
            continue
        except OSError as error:
            notes.append(f"{kept.kind}: {archive.name[:12]} cannot be read: {error.strerror or error}")
            continue
        finally:
            shutil.rmtree(unpacking, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.utime(archive)  # mark it as used, so that it is not deleted
        files = contents(kept.local)
        mib = sum(files.values()) / 2**20
        seconds = time.monotonic() - began
        return Restored(files, (*notes, f"{kept.kind}: {len(files)} files, {mib:.0f} MiB, in {seconds:.1f} s"))
    return Restored({}, (*notes, f"{kept.kind}: nothing cached yet for this engine, model, GPU and arguments"))


def publish(kept: CompileCache, known: Mapping[str, int]) -> str | None:
    """Cache the local folder for later starts, unless it contains nothing beyond ``known``.

    Returns:
        A line for the log; None if there is nothing new.

    Raises:
        OSError: the store cannot be written, or a file changed meanwhile (BlockingIOError: retry).
    """
    before = contents(kept.local)
    if not before or set(before.items()) <= set(known.items()):
        return None
    kept.folder.mkdir(parents=True, exist_ok=True)
    unfinished = kept.folder / f"{uuid.uuid4().hex}.part"
    try:
        with unfinished.open("xb") as file:
            digest = _pack(kept, before, file)
            file.flush()
            os.fsync(file.fileno())
        if contents(kept.local) != before:
            raise BlockingIOError(f"{kept.local} changed while it was read")
        if _hash(unfinished) != digest:
            raise BlockingIOError(f"{unfinished.name} is not what was written")
        archive = kept.folder / f"{digest}.tar"
        unfinished.rename(archive)
    finally:
        unfinished.unlink(missing_ok=True)
    tidy(kept)
    return f"{kept.kind}: cached {len(before)} files, {archive.stat().st_size / 2**20:.0f} MiB, for the next start"


def tidy(kept: CompileCache) -> None:
    """Delete older archives of this key, keys unused for a month, and temporary files of writers that died."""
    old = [*_archives(kept)[KEPT_ARCHIVES:]]
    now = time.time()
    for path in (kept.store / kept.kind).glob("*/*"):
        with contextlib.suppress(OSError):
            age_hours = (now - path.stat().st_mtime) / 3600
            if age_hours > (UNFINISHED_HOURS if path.suffix == ".part" else 24 * UNUSED_DAYS):
                old.append(path)
    for path in old:
        with contextlib.suppress(OSError):
            path.unlink()
            path.parent.rmdir()  # if it is empty


def _archives(kept: CompileCache) -> list[Path]:
    """The archives of the key, newest first."""
    found = []
    with contextlib.suppress(OSError):
        for path in kept.folder.glob("*.tar"):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def _unpack(kept: CompileCache, archive: Path, target: Path) -> None:
    """Copy, verify and unpack an archive.

    The local copy is verified and unpacked, so that the archive cannot change in between.
    """
    copy = target.with_suffix(".tar")
    digest = hashlib.sha256()
    try:
        with archive.open("rb") as source, copy.open("wb") as local:
            for block in _blocks(source):
                digest.update(block)
                local.write(block)
        if digest.hexdigest() != archive.stem:
            raise _UnusableError("it is corrupt: its hash does not match its name")
        with tarfile.open(copy) as tar:
            member = tar.next()
            described = tar.extractfile(member) if member and member.name == DESCRIPTION else None
            if described is None or json.load(described) != dict(kept.depends_on):
                raise _UnusableError("it belongs to another engine, model, GPU or arguments")
            target.mkdir(mode=0o700)
            tar.extractall(target, filter="data")
        (target / DESCRIPTION).unlink()
    except (tarfile.TarError, ValueError) as error:
        raise _UnusableError(f"it cannot be read ({error})") from None
    finally:
        copy.unlink(missing_ok=True)


def _pack(kept: CompileCache, names: Mapping[str, int], file: BinaryIO) -> str:
    """Write the archive; returns its hash."""
    hashing = _Hashing(file)
    description = json.dumps(dict(kept.depends_on), sort_keys=True).encode()
    with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(DESCRIPTION)
        info.size = len(description)
        tar.addfile(info, io.BytesIO(description))
        for name, size in names.items():
            path = kept.local / name
            try:
                with path.open("rb") as content:
                    info = tarfile.TarInfo(name)
                    status = os.fstat(content.fileno())
                    info.size, info.mtime, info.mode = size, status.st_mtime, status.st_mode & 0o700
                    tar.addfile(info, content)
            except (FileNotFoundError, tarfile.TarError, EOFError) as error:
                raise BlockingIOError(f"{path} changed while it was read") from error
            except OSError as error:
                if error.args == ("unexpected end of data",):  # tarfile's message for a truncated file
                    raise BlockingIOError(f"{path} changed while it was read") from error
                raise
    return hashing.digest.hexdigest()


class _Hashing(io.RawIOBase):
    """A file wrapper that hashes everything written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        block = bytes(data)  # type: ignore[call-overload]
        self.digest.update(block)
        return self._file.write(block)


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in _blocks(file):
            digest.update(block)
    return digest.hexdigest()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block
