"""Clients' connections within the files that the process may open: the one that has been idle for longest makes room.

Without it, clients that keep connections open and send nothing have every new one reset, the load balancer's health checks
included, until an idle timeout that must be longer than the load balancer's.
"""

from __future__ import annotations

import resource
from typing import Protocol

# For connections to replicas, to the cloud, and for name look-ups.
_KEPT_FOR_OTHERS = 4


class Closable(Protocol):
    """A client's connection."""

    def close_idle(self) -> None:
        """Close it: no request of it is being answered or read."""


def raise_limit() -> None:
    """Have the process open as many files as it is allowed to: a soft limit of 1,024 is a default for select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS says "unlimited" and refuses it
        return


class Room:
    """The connections of all ports of one process."""

    def __init__(self) -> None:
        self.open = 0
        self._idle: dict[Closable, None] = {}  # in the order in which they became idle

    @property
    def most(self) -> int:
        """Connections above which idle ones are closed."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return 1 << 30 if soft == resource.RLIM_INFINITY else soft - soft // _KEPT_FOR_OTHERS

    def enter(self) -> None:
        """A connection has been accepted."""
        self.open += 1
        if self._idle and self.open > self.most:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.close_idle()

    def leave(self, connection: Closable) -> None:
        """A connection is closed."""
        self.open -= 1
        self._idle.pop(connection, None)

    def idle(self, connection: Closable) -> None:
        """A connection waits for its client's next request."""
        self._idle[connection] = None

    def busy(self, connection: Closable) -> None:
        """The next request has come."""
        self._idle.pop(connection, None)


ROOM = Room()
