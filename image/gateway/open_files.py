"""Keeps client connections within the process's limit of open files by closing the longest-idle one.

Otherwise, clients that open connections and send nothing would cause every new connection to be reset, including the load
balancer's health checks, until the idle timeout, which must be longer than the load balancer's.
"""

from __future__ import annotations

import resource
from typing import Protocol

# One in this many files is reserved for connections to replicas and the cloud, and for DNS lookups.
_KEPT_FOR_OTHERS = 4


class Closable(Protocol):
    """A client's connection."""

    def close_idle(self) -> None:
        """Close the connection, which has no request in progress."""


def raise_limit() -> None:
    """Raise the soft limit of open files to the hard limit: the default of 1,024 exists only for select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS reports "unlimited" and rejects it
        return


class Room:
    """The connections of all ports of one process."""

    def __init__(self) -> None:
        self.open = 0
        self._idle: dict[Closable, None] = {}  # in the order in which they became idle

    @property
    def most(self) -> int:
        """The number of connections above which idle ones are closed."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return 1 << 30 if soft == resource.RLIM_INFINITY else soft - soft // _KEPT_FOR_OTHERS

    def enter(self) -> None:
        """A connection was accepted."""
        self.open += 1
        if self._idle and self.open > self.most:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.close_idle()

    def leave(self, connection: Closable) -> None:
        """A connection was closed."""
        self.open -= 1
        self._idle.pop(connection, None)

    def idle(self, connection: Closable) -> None:
        """A connection is idle between two requests."""
        self._idle[connection] = None

    def busy(self, connection: Closable) -> None:
        """A connection's next request has arrived."""
        self._idle.pop(connection, None)


ROOM = Room()
