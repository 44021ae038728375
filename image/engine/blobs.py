"""Downloads one file from the Hub by its hash: interrupted downloads resume, and files are hashed on the fly."""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from image.engine.arguments import EngineError
from image.engine.hub import Hub, HubFile, HubUnreachableError, Listing
from image.engine.memory import GIB
from image.engine.s3 import ETAG, S3

BLOCK = 1 << 20
TRIES_WITHOUT_PROGRESS = 5
LONGEST_PAUSE_SECONDS = 30.0
TELL_EVERY_SECONDS = 10.0


class Progress:
    """Counts the bytes downloaded by all threads and logs the progress while the block runs.

    Args:
        name: of the model.
        needed: bytes to download.
        tell: logs a line.
    """

    def __init__(self, name: str, needed: int, tell: Callable[[str], None]) -> None:
        self.fetched = 0
        self._name, self._needed, self._tell = name, needed, tell
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self._thread.join()

    def add(self, count: int) -> None:
        """Add downloaded bytes."""
        with self._lock:
            self.fetched += count

    def stop(self) -> None:
        """Make all threads stop."""
        self._over.set()

    @property
    def stopped(self) -> bool:
        """Whether the threads should stop."""
        return self._over.is_set()

    def pause(self, seconds: float) -> None:
        """Wait, unless the download was stopped."""
        self._over.wait(seconds)

    def summary(self) -> str:
        """The bytes downloaded, the time and the rate."""
        seconds = max(time.monotonic() - self._began, 0.001)
        return f"{self.fetched / GIB:.2f} GiB in {seconds:.0f} s, {self.fetched / 2**20 / seconds:.0f} MiB/s"

    def _run(self) -> None:
        while not self._over.wait(TELL_EVERY_SECONDS):
            rate = self.fetched / (time.monotonic() - self._began)
            left = f", about {(self._needed - self.fetched) / rate:.0f} s left" if rate else ""
            self._tell(f"weights: {self._name}: {self.fetched / GIB:.2f} of {self._needed / GIB:.2f} GiB{left}")


def fetch_blob(hub: Hub | S3, listing: Listing, file: HubFile, blob: Path, progress: Progress) -> None:
    """Download one file under its hash; an interrupted download resumes.

    Raises:
        EngineError: the Hub rejects the request, keeps failing, or sends bytes that do not match the hash.
        OSError: the file cannot be written.
    """
    if blob.exists():
        return
    part = blob.with_name(blob.name + ".part")
    wrong, failed = 0, 0
    while not progress.stopped:
        before = part.stat().st_size if part.exists() else 0
        digest = _digest(file)
        try:
            _receive(hub, listing, file, part, digest, progress)
        except (HubUnreachableError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            failed = 0 if part.exists() and part.stat().st_size > before else failed + 1
            if failed >= TRIES_WITHOUT_PROGRESS:
                if isinstance(error, HubUnreachableError):
                    raise
                raise HubUnreachableError(
                    f"weights: {file.name} of {listing.repository}: the connection keeps failing ({error}); the partial download is retained, start again to resume"
                ) from None
            progress.pause(min(2.0**failed / 4, LONGEST_PAUSE_SECONDS))
            continue
        # Without working locks another process may append to the same file: what arrived here is right, the file is not.
        if _matches(digest, file.hash) and part.exists() and part.stat().st_size == file.size:
            part.rename(blob)
            return
        if blob.exists() and is_right(blob, file.hash, file.size):
            return  # another process was faster
        part.unlink(missing_ok=True)
        wrong += 1
        if wrong > 1:
            raise EngineError(
                f"weights: {file.name} of {listing.repository} arrived twice with a hash that differs from the Hub's; a proxy or the disk corrupts files"
            )


def is_right(path: Path, expected: str, size: int) -> bool:
    """Whether a file has the expected size and hash. A file from S3, whose hash is not known, has its size checked alone."""
    try:
        if path.stat().st_size != size:
            return False
        if expected.startswith(ETAG):
            return True
        digest = _digest(HubFile(path.name, size, expected))
        _feed(digest, path)
    except OSError:
        return False
    return digest.hexdigest() == expected


def _receive(
    hub: Hub | S3, listing: Listing, file: HubFile, part: Path, digest: hashlib._Hash, progress: Progress
) -> None:
    start = part.stat().st_size if part.exists() else 0
    if start > file.size:
        part.unlink()
        start = 0
    if start and start == file.size:
        _feed(digest, part)
        return
    with hub.open(listing, file, start) as answer:
        if start and answer.status == 206:
            _feed(digest, part)
        else:
            start = 0
        with part.open("ab" if start else "wb") as out:
            while not progress.stopped and (block := answer.read1(BLOCK)):
                out.write(block)
                digest.update(block)
                progress.add(len(block))
            out.flush()
            os.fsync(out.fileno())
    if part.exists() and part.stat().st_size < file.size:
        raise ConnectionError("the connection closed early")


def _matches(digest: hashlib._Hash, expected: str) -> bool:
    return expected.startswith(ETAG) or digest.hexdigest() == expected


def _digest(file: HubFile) -> hashlib._Hash:
    """The Hub identifies large files by SHA-256, and small ones as git does: SHA-1 of a header and the content."""
    if len(file.hash) == 64:
        return hashlib.sha256()
    return hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)


def _feed(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
