"""A model's files in the hub's own cache layout: fetched once, checked against the hub's hashes, never fetched again.

``HF_HOME/hub/models--ORG--NAME`` holds ``blobs/HASH`` (a file under its hash), ``snapshots/COMMIT/NAME`` (links to them)
and ``refs/REVISION`` (the commit): what huggingface_hub and vLLM read. ``whole/COMMIT.json`` is ours: it is written last,
and says which files make the commit whole, with size and time of each.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from image.engine.arguments import EngineError
from image.engine.blobs import Progress, fetch_blob, is_right
from image.engine.hub import Hub, HubUnreachableError, Listing
from image.engine.locks import locked
from image.engine.memory import GIB

PARALLEL_FILES = 8
SPARE_BYTES = GIB  # for compile caches and the hub's small files
Tell = Callable[[str], None]
Admit = Callable[[int], None]


@dataclass(frozen=True)
class Repository:
    """A model of the hub; ``revision`` is a branch, tag or commit."""

    name: str
    revision: str = "main"

    def folder(self, home: Path) -> Path:
        """Where its files are in the cache."""
        return home / "hub" / ("models--" + self.name.replace("/", "--"))


@dataclass(frozen=True)
class Weights:
    """A model's files, all of them right."""

    repository: Repository
    commit: str
    folder: Path
    size_bytes: int


def ensure(
    repository: Repository, home: Path, hub: Hub, tell: Tell, *, ask: bool = False, admit: Admit | None = None
) -> Weights:
    """Have a model's files, whole: fetch what is missing, and wait for another process that is at it.

    Args:
        repository: the model.
        home: HF_HOME.
        hub: where to fetch from.
        tell: takes lines for the log.
        ask: ask the hub for the revision's newest commit even where an older one is whole.
        admit: called with the size in bytes before anything is fetched; may refuse.

    Raises:
        EngineError: they cannot be had; one line says why and what to set.
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
                listing = hub.listing(repository.name, repository.revision)
            except HubUnreachableError as error:
                if known is None:
                    raise
                tell(f"{error}; going on with the commit that is here, {known.commit[:12]}")
                return known
            admit(model_bytes(listing))
            return _fetch(repository, root, listing, hub, tell)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EngineError(f"weights: {home} is full; free space or mount a larger volume") from None
        raise EngineError(
            f"weights: {home} cannot be used ({error.strerror or error}); mount a volume there that user {os.getuid()} may write"
        ) from None


def known(repository: Repository, home: Path) -> Weights | None:
    """A model that is here and whole, without asking anybody."""
    return _whole(repository, repository.folder(home))


def model_bytes(listing: Listing) -> int:
    """Bytes that are loaded: some repositories hold the same weights twice, once as Mistral's consolidated file."""
    names = {file.name for file in listing.files}
    twice = "model.safetensors.index.json" in names
    return sum(file.size for file in listing.files if not (twice and file.name.startswith("consolidated")))


def needed_bytes(root: Path, listing: Listing) -> int:
    """Bytes that are still to come: what is not there, less what an interrupted fetch left."""
    total = 0
    for file in listing.files:
        blob = root / "blobs" / file.hash
        if not blob.exists():
            part = blob.with_name(blob.name + ".part")
            total += max(0, file.size - (part.stat().st_size if part.exists() else 0))
    return total


def _fetch(repository: Repository, root: Path, listing: Listing, hub: Hub, tell: Tell) -> Weights:
    blobs = root / "blobs"
    blobs.mkdir(exist_ok=True)
    trusted = _trusted(root)
    for file in listing.files:
        blob = blobs / file.hash
        if blob.exists() and _state(blob) != trusted.get(file.hash) and not is_right(blob, file.hash, file.size):
            tell(f"weights: {file.name} is torn or changed; it is fetched again")
            blob.unlink()
    needed = needed_bytes(root, listing)
    _check_disk(repository, root, needed)
    progress = Progress(repository.name, needed, tell)
    if needed:
        tell(f"weights: {repository.name}: {needed / GIB:.2f} GiB to fetch from {hub.endpoint}")
    small_first = sorted(listing.files, key=lambda file: file.size)  # a refusal comes with the first
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
        tell(f"weights: {repository.name}: whole and checked, {progress.summary()}")
    size = sum(file.size for file in listing.files)
    return Weights(repository, listing.commit, snapshot, size)


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
    """File name -> its hash and the state in which it was right; empty where the commit was never whole."""
    try:
        told = json.loads((root / "whole" / f"{commit}.json").read_text())
        return {str(name): (str(file["hash"]), list(file["state"])) for name, file in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _whole(repository: Repository, root: Path) -> Weights | None:
    """The model, where every file is as it was when its hash was right."""
    commit = _commit(repository, root)
    files = _marker(root, commit) if commit else {}
    if not commit or not files:
        return None
    snapshot = root / "snapshots" / commit
    if any(_state(snapshot / name) != state for name, (_, state) in files.items()):
        return None
    return Weights(repository, commit, snapshot, sum(state[0] for _, state in files.values()))


def _mended(repository: Repository, root: Path, tell: Tell) -> Weights | None:
    """The model, where files were copied or touched and are right all the same: nothing whole is fetched again."""
    commit = _commit(repository, root)
    files = _marker(root, commit) if commit else {}
    if not commit or not files:
        return None
    now = {name: _state(root / "snapshots" / commit / name) for name in files}
    changed = [name for name, (_, state) in files.items() if now[name] != state]
    tell(f"weights: {len(changed)} files of {repository.name} changed since they were checked; checking again")
    if not all(is_right(root / "snapshots" / commit / name, files[name][0], files[name][1][0]) for name in changed):
        return None
    marker = {name: {"hash": digest, "state": now[name]} for name, (digest, _) in files.items()}
    _write(root / "whole" / f"{commit}.json", json.dumps(marker, indent=1))
    return _whole(repository, root)


def _trusted(root: Path) -> dict[str, list[int]]:
    """Hash -> state in which that blob was right, of all commits that were ever whole."""
    commits = [path.stem for path in (root / "whole").glob("*.json")]
    return {digest: state for commit in commits for digest, state in _marker(root, commit).values()}


def _state(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _link(link: Path, blob: Path) -> None:
    """A relative link, as the hub's own client makes it, so that the volume may be mounted anywhere."""
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
