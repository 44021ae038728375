"""The interface of scalers, which start the first replica. The platform's autoscaling does everything else."""

from __future__ import annotations

from typing import Protocol

NOT_THERE = "the engine's service was not found"
NO_ANSWER = "the platform returned an unexpected response"
NOT_ALLOWED = "the gateway is not permitted to start the engine"
KEEPS_FAILING = "the engine keeps crashing at startup"


class ScalingError(Exception):
    """A wake failed. The message is for clients and contains no internal names; `detail` is for the log."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.detail = detail


class EngineScaler(Protocol):
    """Starts the first replica, and reports its progress."""

    kind: str

    async def wake(self) -> None:
        """Ensure that at least one replica is desired. Idempotent; raises ScalingError."""

    async def check(self, since: float) -> None:
        """Raise ScalingError if the replica requested at `since` (a time.time()) cannot start now."""

    async def phase_ends(self, since: float) -> dict[str, float]:
        """The end (a time.time()) of each phase that the platform reports of the cold start that began at `since`, by the
        names in `ledger.PHASES`. Raises ScalingError.
        """
