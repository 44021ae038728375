"""A running local endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.planning.plan import ServingPlan
from local.machine import Machine
from local.processes import Child
from local.supervision import Supervisor


@dataclass
class Running:
    """The endpoint's parts, and figures of its start."""

    plan: ServingPlan
    machine: Machine
    base_url: str
    metrics_url: str
    version: str
    deployed_image: str
    stand_in_because: str
    model_note: str
    model_folder: Path
    supervisor: Supervisor
    engine_python: Path
    engine_environment: Mapping[str, str]
    gateway: Child
    first_token_seconds: float

    @property
    def model(self) -> str:
        """The name under which the model is served."""
        return self.plan.served_model_name
