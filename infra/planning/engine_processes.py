"""How vLLM starts its own processes: forked or spawned."""

from __future__ import annotations

from infra.planning.catalog.models import ModelArchitecture
from infra.settings import Settings


def forks(settings: Settings, architecture: ModelArchitecture) -> bool:
    """Whether processes of the engine are forked, which saves each of them 5 to 10 s of importing vLLM again.

    vLLM forks before any CUDA context exists, and spawns by itself where one does; NCCL and CUDA begin in the workers.
    A fork keeps the parent's memory and none of its threads, so it is for what was measured: text, on one GPU or
    tensor-parallel. A vision model's server has used its image processor by then, whose threads a child would wait
    for; data-parallel engines are started by a server that speaks to a coordinator already.
    """
    return not architecture.sees and settings.data_parallel_size == 1
