"""What starts the first replica when none runs. From one replica up, and back down, is the platform's autoscaling."""

from __future__ import annotations

from typing import Protocol

NOT_THERE = "what runs the engine is not there"
NO_ANSWER = "the platform did not answer as it should"
NOT_ALLOWED = "the gateway is not allowed to start it"
KEEPS_FAILING = "it fails while it starts"


class ScalingError(Exception):
    """A wake failed. The message is for clients: true, and without names of anything inside; `detail` is for the log."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.detail = detail


class EngineScaler(Protocol):
    """Starts a first replica, and says what it knows of its coming."""

    kind: str

    async def wake(self) -> None:
        """See to it that at least one replica is wanted. Harmless when one is already; raises ScalingError."""

    async def check(self, since: float) -> None:
        """Raise ScalingError when what was wanted since then (a time.time()) cannot come, or not for now."""

    async def phase_ends(self, since: float) -> dict[str, float]:
        """When the phases of a cold start that began then ended, as time.time(), of those the platform tells; names of
        `ledger.PHASES`. Raises ScalingError.
        """
