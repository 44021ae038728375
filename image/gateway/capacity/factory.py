"""The capacity that a setting names, and the one that somebody else looks after."""

from __future__ import annotations

from image.gateway.backends import CapacitySetting, EcsCapacity, FixedCapacity, KubernetesCapacity, LocalCapacity
from image.gateway.capacity.base import Capacity


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
            from image.gateway.capacity.ecs import Ecs

            return Ecs(setting)
        case KubernetesCapacity():
            from image.gateway.capacity.kubernetes import Kubernetes

            return Kubernetes(setting)
        case LocalCapacity():
            from image.gateway.capacity.local import Local

            return Local(setting)
