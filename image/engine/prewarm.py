"""Starts the deployed engine once, as a request to the gateway would."""

from __future__ import annotations

import asyncio

from image.gateway import backends
from image.gateway.backends import EcsCapacity
from image.gateway.capacity.base import ScalingError
from image.gateway.capacity.ecs import EcsScaler


def start(capacity: str) -> None:
    """Start the engine. A failure is only logged, because the first request starts it then.

    Args:
        capacity: the value of GATEWAY_CAPACITY: ``ecs:CLUSTER/SERVICE/AUTO_SCALING_GROUP``.
    """
    setting = backends.capacity(capacity)
    if not isinstance(setting, EcsCapacity):
        raise ValueError(f"ENGINE_PREWARM_TARGET: {capacity!r} must be ecs:CLUSTER/SERVICE/AUTO_SCALING_GROUP")
    try:
        asyncio.run(EcsScaler(setting).wake())
    except ScalingError as error:
        print(f"engine: the prewarm start failed ({error}); the first request starts the engine", flush=True)
