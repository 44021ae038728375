"""A file lock that allows one download at a time across machines. The kernel releases it when its process exits."""

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
    """Hold the lock while the block runs. While waiting for it, log its owner and the owner's progress.

    On NFS 4.1, which EFS uses, flock is a lease of the server, which expires after a machine dies. On a file system without
    locks, a line is logged and the download continues: every file is checked by its hash before it is renamed.

    Args:
        path: the lock file.
        what: the locked resource, for the log.
        size: returns the bytes downloaded so far.
        tell: logs a line.
    """
    with path.open("a+") as file:
        told = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    tell(f"{what}: {path.parent} does not support locks ({error.strerror}); continuing without one")
                    break
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                    raise
                if time.monotonic() - told > TELL_EVERY_SECONDS or not told:
                    told = time.monotonic()
                    file.seek(0)
                    owner = file.read().strip() or "another process"
                    tell(f"{what}: {owner} is downloading it; waiting, {size() / GIB:.2f} GiB downloaded")
                time.sleep(POLL_SECONDS)
                continue
            break
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(f"{socket.gethostname()} (process {os.getpid()})")
            file.flush()
        yield
