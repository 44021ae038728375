"""One fetcher at a time, on any number of machines: a lock of the kernel's, which goes with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from image.engine.memory import GIB

POLL_SECONDS = 0.5
TELL_EVERY_SECONDS = 15.0


@contextlib.contextmanager
def locked(path: Path, what: str, size: Callable[[], int], tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock while the block runs; wait for it, saying who has it and how far that one is.

    flock on NFS 4.1, which EFS speaks, is a lease of the server's: that of a machine that died runs out. A file system
    without locks is told of and used all the same: every file is checked by its hash before it gets its name.

    Args:
        path: of the lock's file.
        what: is locked, for the log.
        size: bytes that are there by now.
        tell: takes lines for the log.
    """
    with path.open("a+") as file:
        told = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    tell(f"{what}: {path.parent} knows no locks ({error.strerror}); going on without")
                    break
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                    raise
                if time.monotonic() - told > TELL_EVERY_SECONDS or not told:
                    told = time.monotonic()
                    file.seek(0)
                    owner = file.read().strip() or "another process"
                    tell(f"{what}: {owner} is fetching it; waiting, {size() / GIB:.2f} GiB are here")
                time.sleep(POLL_SECONDS)
                continue
            break
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(f"{socket.gethostname()} (process {os.getpid()})")
            file.flush()
        yield
