"""A file lock that allows one download at a time across machines. The kernel releases it when its process exits.

It only saves work: without it, or on a file system where it does not exclude others, several processes download the same
files, each to files of its own.
"""

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
STUCK_SECONDS = 900.0  # longer than an owner waits for a Hub that does not respond
_HELD = (errno.EWOULDBLOCK, errno.EINTR)


@contextlib.contextmanager
def locked(path: Path, what: str, size: Callable[[], int], tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock while the block runs. While waiting for it, log its owner and the owner's progress.

    On NFS 4.1, which EFS uses, flock is a lease of the server, which expires after a machine dies. If the file system does
    not support locks, or the owner makes no progress for 15 minutes, a line is logged and the block runs without the lock.

    Args:
        path: the lock file.
        what: the locked resource, for the log.
        size: returns the bytes downloaded so far.
        tell: logs a line.
    """
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            stack.callback(os.close, descriptor)
            _acquire(descriptor, path, what, size, tell)
            with contextlib.suppress(OSError):
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, f"{socket.gethostname()} (process {os.getpid()})".encode(), 0)
        except OSError as error:
            tell(f"{what}: {path.parent} cannot be locked ({error.strerror or error}); continuing without a lock")
        yield


def _acquire(descriptor: int, path: Path, what: str, size: Callable[[], int], tell: Callable[[str], None]) -> None:
    told = progressed = 0.0
    last = -1  # the bytes downloaded, when a line was last logged
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD:
                raise
        else:
            return
        if progressed and time.monotonic() - progressed > STUCK_SECONDS:
            raise OSError(errno.ETIMEDOUT, f"its owner made no progress for {STUCK_SECONDS / 60:.0f} minutes")
        if time.monotonic() - told > TELL_EVERY_SECONDS or not told:
            told = time.monotonic()
            if (now := size()) != last:
                last, progressed = now, told
            owner = "another process"
            with contextlib.suppress(OSError):
                owner = path.read_text().strip() or owner
            tell(f"{what}: {owner} is downloading it; waiting, {last / GIB:.2f} GiB downloaded")
        time.sleep(POLL_SECONDS)
