"""A model's files in the Hub's cache layout: downloaded once and checked against the Hub's hashes.

``HF_HOME/hub/models--ORG--NAME`` contains ``blobs/HASH`` (each file under its hash), ``snapshots/COMMIT/NAME`` (links to
them) and ``refs/REVISION`` (the commit), as huggingface_hub and vLLM expect. ``whole/COMMIT.json`` is this repository's
addition: it is written last, and lists the files of the complete commit with their sizes and times.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from image.engine.arguments import EngineError
from image.engine.blobs import ABANDONED_SECONDS, State, fetch_blob, is_right, parts, state
from image.engine.hub import Hub, Listing, NoRevisionError
from image.engine.locks import locked
from image.engine.memory import GIB
from image.engine.patience import DEFAULT_LIMIT_SECONDS, HubUnreachableError, Patience
from image.engine.progress import Progress
from image.engine.s3 import S3
from image.engine.weight_files import missing, select
from image.engine.whole import (
    PARALLEL_FILES,
    Repository,
    Weights,
    commit_of,
    loaded_bytes,
    mark,
    marked,
    mended,
    pin,
    tensors_end,
    trusted,
    unmarked,
)

__all__ = ["Repository", "Weights", "cache_folder", "ensure", "known", "model_bytes", "needed_bytes"]

SPARE_BYTES = GIB  # for compile caches and the Hub's small files
Tell = Callable[[str], None]
Admit = Callable[[int], None]


def cache_folder(environment: Mapping[str, str]) -> Path:
    """The Hub's cache, as huggingface_hub finds it."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(name):
            return Path(environment[name]).expanduser()
    shared = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(environment.get("HF_HOME") or shared / "huggingface").expanduser() / "hub"


def ensure(
    repository: Repository,
    cache: Path,
    hub: Hub | S3,
    tell: Tell,
    *,
    ask: bool = False,
    admit: Admit | None = None,
    limit_seconds: float = DEFAULT_LIMIT_SECONDS,
) -> Weights:
    """Ensure that a model's files are complete: download missing ones, or wait for another process that does.

    The first download of a branch pins its commit: later starts use the same one, whatever the branch points to, so that all
    replicas serve one model. To update, set the revision to the newer commit.

    Args:
        repository: the model.
        cache: the Hub's cache, see ``cache_folder``.
        hub: the Hub to download from.
        tell: logs a line.
        ask: if a commit is complete, ask the Hub whether there is a newer one, and log it.
        admit: called with the size in bytes before the download; may raise.
        limit_seconds: how long to wait for a Hub from which nothing is received.

    Raises:
        EngineError: the files could not be downloaded; one line with the reason and what to set.
    """
    root = repository.folder(cache)
    admit = admit or (lambda _: None)
    if not ask and (found := marked(repository, root)):
        admit(found.size_bytes)
        return found
    try:
        with contextlib.suppress(OSError):  # what cannot be written may be complete
            root.mkdir(parents=True, exist_ok=True)
        with locked(root / ".lock", f"weights: {repository.name}", lambda: _size(root), tell):
            there = marked(repository, root) or mended(repository, root, tell)
            if there and not ask:
                admit(there.size_bytes)
                return there
            if there and hub.keeps_commits:
                _compare(there, hub, tell)
                admit(there.size_bytes)
                return there
            return _completed(repository, root, hub, Patience(tell, limit_seconds), tell, admit, there)
    except OSError as error:
        raise _of_the_disk(error, cache) from None


def known(repository: Repository, cache: Path) -> Weights | None:
    """A complete model in the cache, without a request to the Hub."""
    return marked(repository, repository.folder(cache))


def model_bytes(listing: Listing, repository: Repository) -> int:
    """The bytes that vLLM loads: some repositories contain the weights twice, once as Mistral's consolidated file."""
    return loaded_bytes(repository, {file.name: file.size for file in listing.files})


def needed_bytes(root: Path, listing: Listing, bad: Mapping[str, State] | None = None) -> int:
    """The bytes still to download: missing files, minus partial downloads."""
    total = 0
    for file in {file.hash: file for file in listing.files}.values():
        blob = root / "blobs" / file.hash
        if not blob.exists() or file.hash in (bad or {}):
            sizes = [found[0] for part in parts(blob) if (found := state(part))]
            total += max(0, file.size - max(sizes, default=0))
    return total


def _compare(there: Weights, hub: Hub | S3, tell: Tell) -> None:
    """Log whether the branch has a newer commit. The complete one is used in any case."""
    name, revision, commit = there.repository.name, there.repository.revision, there.commit
    try:
        newest = hub.listing(name, revision, there.repository.mistral, needs="").commit
    except EngineError as error:
        tell(f"{error}; continuing with the downloaded commit {commit[:12]}")
        return
    if newest != commit:
        tell(
            f"weights: {revision} of {name} is now {newest}; this deployment keeps {commit}: to update, set modelRevision"
        )


def _completed(
    repository: Repository,
    root: Path,
    hub: Hub | S3,
    patience: Patience,
    tell: Tell,
    admit: Admit,
    there: Weights | None,
) -> Weights:
    try:
        listing = _pinned(repository, root, hub, patience, tell)
        admit(model_bytes(listing, repository))
        return _fetch(repository, root, listing, hub, patience, tell)
    except (EngineError, OSError) as error:
        there = there or unmarked(repository, root, tell)
        if there is None:
            raise
        reason = _of_the_disk(error, root.parent) if isinstance(error, OSError) else error
        tell(f"{reason}; continuing with the downloaded commit {there.commit[:12]}")
        admit(there.size_bytes)
        return there


def _pinned(repository: Repository, root: Path, hub: Hub | S3, patience: Patience, tell: Tell) -> Listing:
    """The files of the pinned commit; if there is none, the branch's newest commit is pinned."""
    retry = not (root / "snapshots").is_dir()
    if pinned := commit_of(repository, root):
        try:
            listing = _listing(replace(repository, revision=pinned), hub, patience, retry=retry)
            if listing.commit == pinned:
                return listing
            tell(f"weights: {repository.name} no longer has what {pinned[:12]} was; using what it has now")  # S3
        except NoRevisionError as error:
            if pinned == repository.revision:
                raise
            tell(f"{error}; it was rewritten: using its newest commit")
    listing = _listing(repository, hub, patience, retry=retry)
    if repository.revision == listing.commit:
        return listing
    commit = pin(repository, root, listing.commit, replaces=pinned)
    if commit != listing.commit:  # another process was faster
        return _listing(replace(repository, revision=commit), hub, patience, retry=retry)
    return listing


def _listing(repository: Repository, hub: Hub | S3, patience: Patience, *, retry: bool) -> Listing:
    failed = 0
    while True:
        try:
            listing = hub.listing(repository.name, repository.revision, repository.mistral, needs=repository.needs)
        except HubUnreachableError as error:
            failed += 1
            if not retry:
                raise
            patience.wait(error, failed)
            continue
        patience.progressed()
        return listing


def _fetch(
    repository: Repository, root: Path, listing: Listing, hub: Hub | S3, patience: Patience, tell: Tell
) -> Weights:
    blobs = root / "blobs"
    if not blobs.is_dir():
        blobs.mkdir(parents=True)
    bad = _bad(blobs, listing, trusted(root), tell)
    needed = needed_bytes(root, listing, bad)
    if needed:
        _tidy(blobs, listing)
        links = _links(root)
        _check_disk(repository, root, needed, 0 if links else sum(file.size for file in listing.files))
        tell(f"weights: {repository.name}: {needed / GIB:.2f} GiB to download from {hub.endpoint}")
    progress = Progress(repository.name, needed, tell)
    unique = {file.hash: file for file in sorted(listing.files, key=lambda file: file.size)}
    small_first = list(unique.values())  # so that a rejection comes early
    with progress, ThreadPoolExecutor(PARALLEL_FILES) as pool:
        for file in small_first[:1]:
            fetch_blob(hub, listing, file, blobs / file.hash, progress, patience, bad.get(file.hash))
        futures = [
            pool.submit(fetch_blob, hub, listing, file, blobs / file.hash, progress, patience, bad.get(file.hash))
            for file in small_first[1:]
        ]
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
    _check_index(repository, snapshot, listing)
    files = {file.name: (file.hash, told) for file in listing.files if (told := state(snapshot / file.name))}
    mark(root, listing.commit, files, tell)
    if needed:
        tell(f"weights: {repository.name}: complete and verified, {progress.summary()}")
    hashes = {file.name: file.hash for file in listing.files}
    return Weights(repository, listing.commit, snapshot, model_bytes(listing, repository), hashes)


def _bad(blobs: Path, listing: Listing, verified: Mapping[str, State], tell: Tell) -> dict[str, State]:
    """The state of each file whose content does not match its hash."""
    found = {file.name: (file, told) for file in listing.files if (told := state(blobs / file.hash))}
    unsure = [(file, told) for file, told in found.values() if told != verified.get(file.hash)]
    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        right = list(pool.map(lambda one: is_right(blobs / one[0].hash, one[0].hash, one[0].size), unsure))
    wrong = [one for one, is_good in zip(unsure, right, strict=True) if not is_good]
    for file, _ in wrong:
        tell(f"weights: {file.name} is corrupt or changed; downloading it again")
    return {file.hash: told for file, told in wrong}


def _check_disk(repository: Repository, root: Path, needed: int, copies: int) -> None:
    free = shutil.disk_usage(root).free
    needed += copies
    if needed + SPARE_BYTES > free:
        raise EngineError(
            f"weights: {repository.name} needs {needed / GIB:.1f} GiB more, and {root.parent} has {free / GIB:.1f} GiB free; "
            f"free at least {(needed + SPARE_BYTES) / GIB:.1f} GiB, or mount a larger volume"
        )


def _check_index(repository: Repository, snapshot: Path, listing: Listing) -> None:
    """Check that every file is there, and that the repository contains every shard that its index lists."""
    sizes = {file.name: file.size for file in listing.files}
    there = {name: found[0] for name in sizes if (found := state(snapshot / name))}
    indexes = {name: (snapshot / name).read_text(errors="replace") for name in there if name.endswith(".index.json")}
    if absent := missing(select(sizes, mistral=repository.mistral), there, indexes):
        raise EngineError(
            f"weights: {repository.name} at {listing.commit[:12]} lacks {', '.join(absent[:3])}, which it lists itself; "
            "set modelRevision to a complete commit"
        )
    for name in there:
        if name.endswith(".safetensors") and (end := tensors_end(snapshot / name) or 0) > there[name]:
            raise EngineError(
                f"weights: {name} of {repository.name} at {listing.commit[:12]} was uploaded incompletely: it has {there[name]} of "
                f"{end} bytes; set modelRevision to another commit"
            )


def _of_the_disk(error: OSError, cache: Path) -> EngineError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EngineError(f"weights: {cache} is full; free space or mount a larger volume")
    return EngineError(
        f"weights: {cache} cannot be used ({error.strerror or error}); mount a volume that user {os.getuid()} can write"
    )


def _tidy(blobs: Path, listing: Listing) -> None:
    """Delete partial downloads that nobody continues: of other commits, by writers that died."""
    wanted = {file.hash for file in listing.files}
    for part in blobs.glob("*.part"):
        with contextlib.suppress(OSError):
            if part.name.partition(".")[0] not in wanted and time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                part.unlink()


def _links(root: Path) -> bool:
    """Whether the file system has symbolic or hard links; otherwise each file is stored twice."""
    probe, link = root / f".{uuid.uuid4().hex}.part", root / f".{uuid.uuid4().hex}.part"
    try:
        probe.touch()
        _linked(link, probe)
        return link.is_symlink() or link.stat().st_nlink > 1
    finally:
        for path in (link, probe):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _link(link: Path, blob: Path) -> None:
    """A relative link, as the Hub's own client creates it, so that the volume can be mounted anywhere."""
    if link.is_symlink() and str(link.readlink()) == os.path.relpath(blob, link.parent):
        return
    if not link.is_symlink() and state(link) is not None and link.samefile(blob):
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f".{uuid.uuid4().hex}.part")
    try:
        _linked(new, blob)
        new.replace(link)
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


def _linked(new: Path, blob: Path) -> None:
    """A symbolic link; a hard link or a copy on a file system without them."""
    try:
        new.symlink_to(os.path.relpath(blob, new.parent))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        try:
            os.link(blob, new)
        except OSError:
            shutil.copyfile(blob, new)
            if state(new) is not None and new.stat().st_size != blob.stat().st_size:
                raise


def _size(root: Path) -> int:
    return sum(found[0] for path in (root / "blobs").glob("*") if (found := state(path)))
