"""A model's files in the Hub's cache layout: downloaded once and checked against the Hub's hashes.

``HF_HOME/hub/models--ORG--NAME`` contains ``blobs/HASH`` (each file under its hash), ``snapshots/COMMIT/NAME`` (links to
them) and ``refs/REVISION`` (the commit), as huggingface_hub and vLLM expect. ``whole/COMMIT.json`` is this repository's
addition: it is written last, and lists the files of the complete commit with their sizes and times.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from image.engine.arguments import EngineError
from image.engine.blobs import Progress, fetch_blob, is_right
from image.engine.hub import Hub, HubUnreachableError, Listing
from image.engine.locks import locked
from image.engine.memory import GIB
from image.engine.s3 import S3
from image.engine.weight_files import has_layout, select

PARALLEL_FILES = 8
SPARE_BYTES = GIB  # for compile caches and the Hub's small files
Tell = Callable[[str], None]
Admit = Callable[[int], None]


@dataclass(frozen=True)
class Repository:
    """A model on the Hub or in S3.

    ``revision`` is a branch, tag or commit on the Hub; ``mistral`` the layout to load, see `select`.
    """

    name: str
    revision: str = "main"
    mistral: bool | None = None

    def folder(self, home: Path) -> Path:
        """The folder of its files in the cache."""
        return home / "hub" / ("models--" + re.sub(r"://|/", "--", self.name))


@dataclass(frozen=True)
class Weights:
    """A model's files, complete and verified."""

    repository: Repository
    commit: str
    folder: Path
    size_bytes: int


def ensure(
    repository: Repository, home: Path, hub: Hub | S3, tell: Tell, *, ask: bool = False, admit: Admit | None = None
) -> Weights:
    """Ensure that a model's files are complete: download missing ones, or wait for another process that does.

    Args:
        repository: the model.
        home: HF_HOME.
        hub: the Hub or S3, to download from.
        tell: logs a line.
        ask: ask the Hub for the revision's newest commit even if an older one is complete.
        admit: called with the size in bytes before the download; may raise.

    Raises:
        EngineError: the files could not be downloaded; one line with the reason and what to set.
    """
    root = repository.folder(home)
    admit = admit or (lambda _: None)
    if not ask and (found := _whole(repository, root)):
        admit(found.size_bytes)
        return found
    waiting = f"weights: {repository.name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / ".lock", waiting, lambda: _size(root), tell):
            known = _whole(repository, root) or _mended(repository, root, tell)
            if known and not ask:
                admit(known.size_bytes)
                return known
            try:
                listing = hub.listing(repository.name, repository.revision, repository.mistral)
            except HubUnreachableError as error:
                if known is None:
                    raise
                tell(f"{error}; continuing with the downloaded commit {known.commit[:12]}")
                return known
            admit(model_bytes(listing, repository))
            return _fetch(repository, root, listing, hub, tell)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EngineError(f"weights: {home} is full; free space or mount a larger volume") from None
        raise EngineError(
            f"weights: {home} cannot be used ({error.strerror or error}); mount a volume that user {os.getuid()} can write"
        ) from None


def known(repository: Repository, home: Path) -> Weights | None:
    """A complete model in the cache, without a request to the Hub."""
    return _whole(repository, repository.folder(home))


def model_bytes(listing: Listing, repository: Repository) -> int:
    """The bytes that vLLM loads: some repositories contain the weights twice, once as Mistral's consolidated file."""
    return _loaded_bytes(repository, {file.name: file.size for file in listing.files})


def _loaded_bytes(repository: Repository, sizes: Mapping[str, int]) -> int:
    return select(sizes, mistral=repository.mistral).total_bytes or 0


def needed_bytes(root: Path, listing: Listing) -> int:
    """The bytes still to download: missing files, minus partial downloads."""
    total = 0
    for file in listing.files:
        blob = root / "blobs" / file.hash
        if not blob.exists():
            part = blob.with_name(blob.name + ".part")
            total += max(0, file.size - (part.stat().st_size if part.exists() else 0))
    return total


def _fetch(repository: Repository, root: Path, listing: Listing, hub: Hub | S3, tell: Tell) -> Weights:
    blobs = root / "blobs"
    blobs.mkdir(exist_ok=True)
    trusted = _trusted(root)
    for file in listing.files:
        blob = blobs / file.hash
        if blob.exists() and _state(blob) != trusted.get(file.hash) and not is_right(blob, file.hash, file.size):
            tell(f"weights: {file.name} is corrupt or changed; downloading it again")
            blob.unlink()
    needed = needed_bytes(root, listing)
    _check_disk(repository, root, needed)
    progress = Progress(repository.name, needed, tell)
    if needed:
        tell(f"weights: {repository.name}: {needed / GIB:.2f} GiB to download from {hub.endpoint}")
    small_first = sorted(listing.files, key=lambda file: file.size)  # so that a rejection comes early
    with progress, ThreadPoolExecutor(PARALLEL_FILES) as pool:
        for file in small_first[:1]:
            fetch_blob(hub, listing, file, blobs / file.hash, progress)
        unique = {file.hash: file for file in small_first[1:]}.values()
        futures = [pool.submit(fetch_blob, hub, listing, file, blobs / file.hash, progress) for file in unique]
        try:
            for future in futures:
                future.result()
        except BaseException:
            progress.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    snapshot = root / "snapshots" / listing.commit
    for file in listing.files:
        _link(snapshot / file.name, blobs / file.hash)
    marker = {file.name: {"hash": file.hash, "state": _state(blobs / file.hash)} for file in listing.files}
    _write(root / "whole" / f"{listing.commit}.json", json.dumps(marker, indent=1))
    if repository.revision != listing.commit:
        _write(root / "refs" / repository.revision, listing.commit)
    if needed:
        tell(f"weights: {repository.name}: complete and verified, {progress.summary()}")
    return Weights(repository, listing.commit, snapshot, model_bytes(listing, repository))


def _check_disk(repository: Repository, root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if needed and needed + SPARE_BYTES > free:
        raise EngineError(
            f"weights: {repository.name} needs {needed / GIB:.1f} GiB more, and {root.parent.parent} has {free / GIB:.1f} GiB free; "
            f"free at least {(needed + SPARE_BYTES) / GIB:.1f} GiB, or mount a larger volume"
        )


def _commit(repository: Repository, root: Path) -> str | None:
    if re.fullmatch(r"[0-9a-f]{40}", repository.revision):
        return repository.revision
    try:
        return (root / "refs" / repository.revision).read_text().strip()
    except OSError:
        return None


def _marker(root: Path, commit: str) -> dict[str, tuple[str, list[int]]]:
    """Map each file name to its hash and the state in which it was verified; empty if the commit was never complete."""
    try:
        told = json.loads((root / "whole" / f"{commit}.json").read_text())
        return {str(name): (str(file["hash"]), list(file["state"])) for name, file in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _whole(repository: Repository, root: Path) -> Weights | None:
    """The model, if every file is unchanged since it was verified."""
    commit = _commit(repository, root)
    files = _marker(root, commit) if commit else {}
    if not commit or not files:
        return None
    snapshot = root / "snapshots" / commit
    if any(_state(snapshot / name) != state for name, (_, state) in files.items()):
        return None
    if not has_layout(files, repository.mistral):
        return None
    sizes = {name: state[0] for name, (_, state) in files.items()}
    return Weights(repository, commit, snapshot, _loaded_bytes(repository, sizes))


def _mended(repository: Repository, root: Path, tell: Tell) -> Weights | None:
    """The model, if files were copied or touched but their hashes still match; avoids downloading them again."""
    commit = _commit(repository, root)
    files = _marker(root, commit) if commit else {}
    if not commit or not files:
        return None
    now = {name: _state(root / "snapshots" / commit / name) for name in files}
    changed = [name for name, (_, state) in files.items() if now[name] != state]
    tell(f"weights: {len(changed)} files of {repository.name} changed since they were verified; verifying again")
    if not all(is_right(root / "snapshots" / commit / name, files[name][0], files[name][1][0]) for name in changed):
        return None
    marker = {name: {"hash": digest, "state": now[name]} for name, (digest, _) in files.items()}
    _write(root / "whole" / f"{commit}.json", json.dumps(marker, indent=1))
    return _whole(repository, root)


def _trusted(root: Path) -> dict[str, list[int]]:
    """Map each hash to the state in which that blob was verified, for all commits that were ever complete."""
    commits = [path.stem for path in (root / "whole").glob("*.json")]
    return {digest: state for commit in commits for digest, state in _marker(root, commit).values()}


def _state(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _link(link: Path, blob: Path) -> None:
    """A relative link, as the Hub's own client creates it, so that the volume can be mounted anywhere."""
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(blob, link.parent)
    if not (link.is_symlink() and str(link.readlink()) == target):
        new = link.with_name(f".{uuid.uuid4().hex}.part")
        new.symlink_to(target)
        new.rename(link)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{uuid.uuid4().hex}.part")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def _size(root: Path) -> int:
    return sum(_allocated(path) for path in (root / "blobs").glob("*"))


def _allocated(path: Path) -> int:
    state = _state(path)
    return state[0] if state else 0
