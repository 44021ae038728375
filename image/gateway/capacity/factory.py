"""The capacity that a setting names, and the one that somebody else looks after."""

from __future__ import annotations

from image.gateway.backends import CapacitySetting, EcsCapacity, FixedCapacity, KubernetesCapacity, LocalCapacity
from image.gateway.capacity.base import EngineScaler


class NoScaler:
    """Another process decides how many replicas run: nothing is started here, only awaited."""

    kind = "fixed"

    async def wake(self) -> None:
        """Do nothing."""

    async def check(self, since: float) -> None:
        """Know nothing."""

    async def phase_ends(self, since: float) -> dict[str, float]:
        """Know nothing."""
        return {}


def engine_scaler(setting: CapacitySetting) -> EngineScaler:
    """The capacity a setting names. Imported here, so that a gateway pays only for its own: boto3 is 25 MiB."""
    match setting:
        case FixedCapacity():
            return NoScaler()
        case EcsCapacity():
            from image.gateway.capacity.ecs import EcsScaler

            return EcsScaler(setting)
        case KubernetesCapacity():
            from image.gateway.capacity.kubernetes import KubernetesScaler

            return KubernetesScaler(setting)
        case LocalCapacity():
            from image.gateway.capacity.local import LocalScaler

            return LocalScaler(setting)
