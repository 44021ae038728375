"""Downloads one file from the Hub under its hash, by writers that share nothing: no lock is needed for right bytes.

Each writer has a file of its own, ``HASH.WRITER.part``, and verifies that file before it is renamed to ``HASH``. What a
writer leaves behind is continued: a writer that ends renames its file to ``HASH.part``, which the next one takes over; the
file of a writer that was killed is copied, because that writer may only seem dead.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from image.engine.arguments import EngineError
from image.engine.hub import Hub, HubFile, Listing
from image.engine.patience import HubUnreachableError, Patience
from image.engine.progress import Progress
from image.engine.s3 import ETAG, S3, S3Body

BLOCK = 1 << 20
# A writer writes at least every minute (the socket's timeout); one that did not for this long is dead.
ABANDONED_SECONDS = 600.0
LOOK_EVERY_BYTES = 32 << 20
SLOW_SECONDS, SLOW_BYTES = 60.0, 64 << 10  # below this rate, a new connection is faster
MOST_LOST_FILES = 20
# Some content hosts answer so to a range that they do not serve; the next try asks for the whole file.
_REFUSED_RANGE = (400, 403, 416)
_GONE = (errno.ENOENT, errno.ESTALE)
State = list[int]


def fetch_blob(
    hub: Hub | S3,
    listing: Listing,
    file: HubFile,
    blob: Path,
    progress: Progress,
    patience: Patience | None = None,
    bad: State | None = None,
) -> None:
    """Download one file under its hash; interrupted downloads resume.

    Args:
        hub: the Hub to download from.
        listing: the file's repository and commit.
        file: the file.
        blob: its final path.
        progress: counts the bytes, and stops the download.
        patience: how long to wait for the Hub.
        bad: the state of an existing file with wrong content, which is replaced.

    Raises:
        EngineError: the Hub rejects the request, keeps failing, or sends bytes that do not match the hash.
        OSError: the file cannot be written.
    """
    patience = patience or Patience(lambda _: None)
    wrong = failed = gone = 0
    part = _own(blob)
    adopt(part, blob, file.size)
    try:
        while not progress.stopped and not _is_there(blob, file, bad):
            before = _size(part)
            try:
                _receive(hub, listing, file, part, progress, patience, lambda: _is_there(blob, file, bad))
                if progress.stopped or _is_there(blob, file, bad):
                    break
                if is_right(part, file.hash, file.size):
                    part.replace(blob)
                    break
                part.unlink()
            except (HubUnreachableError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                failed = 1 if _size(part) > before else failed + 1
                if failed > 1 and getattr(error, "status", 0) in _REFUSED_RANGE:
                    part.unlink(missing_ok=True)
                patience.wait(_described(error, file, listing), failed, progress.pause)
                continue
            except OSError as error:
                if error.errno not in _GONE or (gone := gone + 1) > MOST_LOST_FILES:
                    raise
                part = _own(blob)  # another process completed the file, and deleted this one
                continue
            wrong += 1
            if wrong > 1:
                raise EngineError(
                    f"weights: {file.name} of {listing.repository} arrived twice with a hash that differs from the Hub's; a proxy or the disk corrupts files"
                )
    finally:
        _release(part, blob, done=_is_there(blob, file, bad))


def is_right(path: Path, expected: str, size: int) -> bool:
    """Whether a file has the expected size and hash. A file from S3, whose hash is not known, has its size checked alone."""
    try:
        if path.stat().st_size != size:
            return False
        if expected.startswith(ETAG):
            return True
        digest = digest_of(HubFile(path.name, size, expected))
        with path.open("rb") as content:
            while block := content.read(BLOCK):
                digest.update(block)
    except OSError:
        return False
    return digest.hexdigest() == expected


def digest_of(file: HubFile) -> hashlib._Hash:
    """The Hub identifies large files by SHA-256, and small ones as git does: SHA-1 of a header and the content."""
    if len(file.hash) == 64:
        return hashlib.sha256()
    return hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)


def state(path: Path) -> State | None:
    """Size and time of a file, by which a change is noticed; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def parts(blob: Path) -> list[Path]:
    """The partial downloads of a file, by all writers."""
    return [*blob.parent.glob(f"{blob.name}.part"), *blob.parent.glob(f"{blob.name}.*.part")]


def adopt(part: Path, blob: Path, size: int) -> None:
    """Continue the largest partial download that another writer left, if there is one."""
    found = [(told[0], told[1], other) for other in parts(blob) if (told := state(other)) and 0 < told[0] <= size]
    now = time.time_ns()
    for _, written, other in sorted(found, reverse=True):
        try:
            if other.name == f"{blob.name}.part" or now - written > ABANDONED_SECONDS * 1e9:
                other.rename(part)
            else:
                shutil.copyfile(other, part)
        except OSError:  # another writer took it, or the disk has no room for a copy
            part.unlink(missing_ok=True)
            continue
        return


def _own(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.{uuid.uuid4().hex}.part")


def _release(part: Path, blob: Path, *, done: bool) -> None:
    """Leave this writer's file to the next one; once the file is complete, delete all that is left of it."""
    with contextlib.suppress(OSError):
        if done:
            for other in parts(blob):
                other.unlink(missing_ok=True)
        elif _size(part) > _size(blob.with_name(f"{blob.name}.part")):
            part.replace(blob.with_name(f"{blob.name}.part"))
        else:
            part.unlink(missing_ok=True)


def _is_there(blob: Path, file: HubFile, bad: State | None) -> bool:
    """Whether another writer completed the file: only verified files get this name."""
    found = state(blob)
    return found is not None and found != bad and found[0] == file.size


def _receive(
    hub: Hub | S3,
    listing: Listing,
    file: HubFile,
    part: Path,
    progress: Progress,
    patience: Patience,
    is_there: Callable[[], bool],
) -> None:
    """Append to this writer's file what is missing."""
    start = _size(part)
    if start and start == file.size:
        return
    with hub.open(listing, file, start) as answer:
        start = _offset(answer, start, file, listing)
        patience.progressed()
        with part.open("ab" if start else "wb") as out:
            looked, mark, since = start, start, time.monotonic()
            while not progress.stopped and (block := answer.read1(BLOCK)):
                out.write(block)
                start += len(block)
                progress.add(len(block))
                if start > file.size:
                    break
                if start - looked >= LOOK_EVERY_BYTES:
                    looked = start
                    if is_there():
                        return
                if time.monotonic() - since > SLOW_SECONDS:
                    if start - mark < SLOW_BYTES:
                        raise TimeoutError(f"less than {SLOW_BYTES >> 10} KiB in {SLOW_SECONDS:.0f} s")
                    mark, since = start, time.monotonic()
                    patience.progressed()
            out.flush()
            os.fsync(out.fileno())
    if not progress.stopped and part.stat().st_size < file.size:
        raise ConnectionError("the connection closed early")


def _offset(answer: http.client.HTTPResponse | S3Body, start: int, file: HubFile, listing: Listing) -> int:
    """The offset of the response's first byte."""
    length = answer.headers.get("Content-Length", "")
    if (coding := answer.headers.get("Content-Encoding", "identity")) != "identity":
        raise HubUnreachableError(
            f"weights: {file.name} of {listing.repository} arrives compressed ({coding}), although that was not requested; "
            "a proxy does this: exclude the Hub's hosts in NO_PROXY, or configure the proxy",
            tries=3,
        )
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", f"bytes {start}-0/*"))
        if found is None or int(found[1]) != start or found[2] not in ("*", str(file.size)):
            raise _other_file(file, listing, answer.headers.get("Content-Range", ""))
        return start
    if length.isdecimal() and int(length) != file.size:
        raise _other_file(file, listing, f"{length} bytes")
    return 0


def _other_file(file: HubFile, listing: Listing, found: str) -> HubUnreachableError:
    return HubUnreachableError(
        f"weights: {file.name} of {listing.repository} has {file.size} bytes, and the server sends another file ({found}); "
        "a mirror serves pointers or another revision: check HF_ENDPOINT",
        tries=3,
    )


def _described(error: Exception, file: HubFile, listing: Listing) -> HubUnreachableError:
    if isinstance(error, HubUnreachableError):
        return error
    return HubUnreachableError(
        f"weights: {file.name} of {listing.repository}: the connection keeps failing ({error}); the partial download is retained, start again to resume"
    )


def _size(path: Path) -> int:
    found = state(path)
    return found[0] if found else 0
