"""Starts the engine on this machine through its runner. docs/gateway.md describes the protocol."""

from __future__ import annotations

from typing import Any

from image.gateway.backends import LocalCapacity
from image.gateway.capacity import http
from image.gateway.capacity.base import NO_ANSWER, ScalingError


class LocalScaler:
    """A runner on loopback that answers POST /wake and GET /state."""

    kind = "local"

    def __init__(self, setting: LocalCapacity) -> None:
        self._runner = setting.runner

    async def wake(self) -> None:
        """Request the engine's start."""
        await self._ask("POST", "/wake")

    async def check(self, since: float) -> None:
        """Raise the error that the runner reports."""
        if error := (await self._ask("GET", "/state")).get("error"):
            raise ScalingError(str(error), f"runner: {error}")

    async def phase_ends(self, since: float) -> dict[str, float]:
        """The phases that the runner found in the engine's log."""
        told = (await self._ask("GET", "/state")).get("phases", {})
        return {phase: end for phase, end in told.items() if isinstance(end, int | float) and end >= since}

    async def _ask(self, method: str, path: str) -> dict[str, Any]:
        status, answer = await http.ask(self._runner, method, path)
        said = answer if isinstance(answer, dict) else {}
        if status not in (200, 202):
            raise ScalingError(str(said.get("error", NO_ANSWER)), f"runner: {method} {path}: {status} {said}")
        return said
