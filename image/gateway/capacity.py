"""What starts the first replica when none runs. From one replica up, and back down, is the platform's autoscaling."""

from __future__ import annotations

from typing import Protocol

from image.gateway.seams import CapacitySetting, EcsCapacity, FixedCapacity, KubernetesCapacity, LocalCapacity

NOT_THERE = "what runs the engine is not there"
NO_ANSWER = "the platform did not answer as it should"
NOT_ALLOWED = "the gateway is not allowed to start it"
KEEPS_FAILING = "it fails while it starts"


class CapacityError(Exception):
    """A wake failed. The message is for clients: true, and without names of anything inside; `detail` is for the log."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.detail = detail


class Capacity(Protocol):
    """Starts a first replica, and says what it knows of its coming."""

    kind: str

    async def wake(self) -> None:
        """See to it that at least one replica is wanted. Harmless when one is already; raises CapacityError."""

    async def check(self, since: float) -> None:
        """Raise CapacityError when what was wanted since then (a time.time()) cannot come, or not for now."""

    async def phase_ends(self, since: float) -> dict[str, float]:
        """When the phases of a cold start that began then ended, as time.time(), of those the platform tells; names of
        `ledger.PHASES`. Raises CapacityError.
        """


class Fixed:
    """Capacity somebody else looks after: there is nothing to start, only to wait for."""

    kind = "fixed"

    async def wake(self) -> None:
        """Do nothing."""

    async def check(self, since: float) -> None:
        """Know nothing."""

    async def phase_ends(self, since: float) -> dict[str, float]:
        """Know nothing."""
        return {}


def capacity_of(setting: CapacitySetting) -> Capacity:
    """The capacity a setting names. Imported here, so that a gateway pays only for its own: boto3 is 25 MiB."""
    match setting:
        case FixedCapacity():
            return Fixed()
        case EcsCapacity():
            from image.gateway.capacity_ecs import Ecs

            return Ecs(setting)
        case KubernetesCapacity():
            from image.gateway.capacity_kubernetes import Kubernetes

            return Kubernetes(setting)
        case LocalCapacity():
            from image.gateway.capacity_local import Local

            return Local(setting)
