"""How vLLM starts its processes: forked or spawned."""

from __future__ import annotations

from infra.planning.catalog.models import ModelArchitecture
from infra.settings import Settings


def forks(settings: Settings, architecture: ModelArchitecture) -> bool:
    """Whether the engine's processes are forked, which saves each of them 5 to 10 s of importing vLLM again.

    vLLM forks before a CUDA context exists, and spawns if one does; NCCL and CUDA are initialized in the workers.
    A forked process has the parent's memory but not its threads, so forking is used only for measured configurations: text
    models on one GPU or tensor-parallel. A vision model's server has already used its image processor, whose threads a
    child would wait for. Data-parallel engines are started by a server that is already connected to a coordinator.
    """
    return not architecture.sees and settings.data_parallel_size == 1
