"""Files that are kept from one start to the next: each published whole under its own hash, and never written in place.

An archive is ``STORE/KIND/KEY/SHA256.tar``. KEY is the hash of everything the files depend on, which also stands in the
archive; SHA256 is the hash of the archive itself. No process reads or writes the files in the store: a start copies an
archive to a local folder, and a writer's unfinished file has another name until it is whole.
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
KEPT_ARCHIVES = 2  # of one key: the newest, and the one that another replica may be reading
UNUSED_DAYS = 30
UNFINISHED_HOURS = 6
PASSING = (".lock", ".tmp", ".part")  # of a process that works right now; no use to another


@dataclass(frozen=True)
class CompileCache:
    """One kind of kept files.

    Attributes:
        kind: names the folder in the store.
        store: shared by all replicas.
        local: where this container's processes find and write them.
        depends_on: everything that must be equal for another start to use them; no secret.
    """

    kind: str
    store: Path
    local: Path
    depends_on: Mapping[str, str]

    @property
    def key(self) -> str:
        """The hash of what they depend on."""
        return hashlib.sha256(json.dumps(dict(self.depends_on), sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """Where the archives of this key are."""
        return self.store / self.kind / self.key


@dataclass(frozen=True)
class Restored:
    """What a start found: ``files`` from the archive (none: it starts empty), and lines for the log."""

    files: Mapping[str, int]
    notes: tuple[str, ...]


class _UnusableError(Exception):
    """An archive that is torn, or of other files than its name says."""


def contents(local: Path) -> dict[str, int]:
    """Path below the folder -> size, of every file worth keeping."""
    found = {}
    for path in sorted(local.rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.endswith(PASSING):
            found[str(path.relative_to(local))] = path.stat().st_size
    return found


def restore(kept: CompileCache) -> Restored:
    """Fill the local folder from the newest whole archive; it is empty where there is none.

    Whatever a former process left in the local folder goes: it may have died while writing. An archive that is torn or
    foreign is deleted. Nothing here stops a start: without an archive it is slow, and right.
    """
    began, notes = time.monotonic(), list[str]()
    shutil.rmtree(kept.local, ignore_errors=True)
    kept.local.mkdir(parents=True, mode=0o700)
    for archive in _archives(kept):
        unpacking = kept.local.with_name(f"{kept.local.name}.{uuid.uuid4().hex}.part")
        try:
            _unpack(kept, archive, unpacking)
            kept.local.rmdir()
            unpacking.rename(kept.local)
        except _UnusableError as error:
            with contextlib.suppress(OSError):
                archive.unlink()
            notes.append(f"{kept.kind}: {archive.name[:12]} thrown away: {error}")
            continue
        except OSError as error:
            notes.append(f"{kept.kind}: {archive.name[:12]} cannot be read: {error.strerror or error}")
            continue
        finally:
            shutil.rmtree(unpacking, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.utime(archive)  # used: it stays
        files = contents(kept.local)
        mib = sum(files.values()) / 2**20
        seconds = time.monotonic() - began
        return Restored(files, (*notes, f"{kept.kind}: {len(files)} files, {mib:.0f} MiB, in {seconds:.1f} s"))
    return Restored({}, (*notes, f"{kept.kind}: none kept yet for this engine, model, GPU and arguments"))


def publish(kept: CompileCache, known: Mapping[str, int]) -> str | None:
    """Keep the local folder for later starts, unless it holds nothing beyond ``known``.

    Returns:
        A line for the log; None: there is nothing new.

    Raises:
        OSError: the store cannot be written, or a file changed meanwhile (BlockingIOError): try again.
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
        archive = kept.folder / f"{digest}.tar"
        unfinished.rename(archive)
    finally:
        unfinished.unlink(missing_ok=True)
    tidy(kept)
    return f"{kept.kind}: kept {len(before)} files, {archive.stat().st_size / 2**20:.0f} MiB, for the next start"


def tidy(kept: CompileCache) -> None:
    """Delete what no start will use: older archives of this key, keys unused for a month, files of writers that died."""
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
            path.parent.rmdir()  # where it was the last one


def _archives(kept: CompileCache) -> list[Path]:
    """Archives of the key, the newest first."""
    found = []
    with contextlib.suppress(OSError):
        for path in kept.folder.glob("*.tar"):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def _unpack(kept: CompileCache, archive: Path, target: Path) -> None:
    """Copy, check, unpack.

    The local copy is what is checked and unpacked, so that nothing can change between the two.
    """
    copy = target.with_suffix(".tar")
    digest = hashlib.sha256()
    try:
        with archive.open("rb") as source, copy.open("wb") as local:
            for block in _blocks(source):
                digest.update(block)
                local.write(block)
        if digest.hexdigest() != archive.stem:
            raise _UnusableError("it is torn: its hash is not its name")
        with tarfile.open(copy) as tar:
            member = tar.next()
            described = tar.extractfile(member) if member and member.name == DESCRIPTION else None
            if described is None or json.load(described) != dict(kept.depends_on):
                raise _UnusableError("it was made by another engine, model, GPU or arguments")
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
                if error.args == ("unexpected end of data",):  # tarfile's word for a file that became shorter
                    raise BlockingIOError(f"{path} changed while it was read") from error
                raise
    return hashing.digest.hexdigest()


class _Hashing(io.RawIOBase):
    """Writes through to a file and hashes what it writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        block = bytes(data)  # type: ignore[call-overload]
        self.digest.update(block)
        return self._file.write(block)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block
