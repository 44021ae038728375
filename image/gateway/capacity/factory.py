"""Creates the scaler for a setting, and the scaler that does nothing."""

from __future__ import annotations

from image.gateway.backends import CapacitySetting, EcsCapacity, FixedCapacity, KubernetesCapacity, LocalCapacity
from image.gateway.capacity.base import EngineScaler


class NoScaler:
    """Another process or an operator starts replicas: the gateway only waits for them."""

    kind = "fixed"

    async def wake(self) -> None:
        """Do nothing."""

    async def check(self, since: float) -> None:
        """Do nothing: there is nothing to check."""

    async def phase_ends(self, since: float) -> dict[str, float]:
        """No phases are known."""
        return {}


def engine_scaler(setting: CapacitySetting) -> EngineScaler:
    """The scaler for a setting. Imports only the one in use: boto3 takes 25 MiB."""
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
