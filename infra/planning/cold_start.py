"""How long a cold start takes: instance, image, weights, engine. The deploy measures it; this is the estimate before."""

from __future__ import annotations

from infra.planning.catalog.models import ModelArchitecture
from infra.planning.engine_processes import forks
from infra.settings import FastBoot, Settings, WeightsThroughput

# Instance and image are estimates. EFS reads at 300 MiB/s from its burst credits; elastic, 0.5 GiB/s is careful.
INSTANCE_SECONDS, IMAGE_PULL_SECONDS = 90, 150
WEIGHTS_GIB_PER_SECOND = {WeightsThroughput.BURSTING: 300 / 1024, WeightsThroughput.ELASTIC: 0.5}
# From the entrypoint's first instruction to the first token on an H200 with vLLM 0.26, forked. A kept cache was measured as
# it is deployed: 26 to 28 s for 4B, 3 of them to restore bytecode and compiled files. The other two are put together from
# measured starts: no bytecode and 50 s of compiling; everything kept and nothing to compile (docs/benchmarks/engine).
ENGINE_START_SECONDS = {FastBoot.COMPILE_CACHE: 26, FastBoot.OFF: 75, FastBoot.EAGER: 18}
GPU_LOAD_SECONDS_PER_GIB = 0.14  # graphs and copies grow with the model: 32B takes 7.5 s longer than 4B
SPAWN_SECONDS = 8  # each level of processes that imports vLLM anew
TENSOR_PARALLEL_SECONDS = 4


def engine_start_seconds(settings: Settings, architecture: ModelArchitecture, checkpoint_gib: float) -> float:
    """Seconds from the engine's start to its first token, reading the weights from the cache aside."""
    tensor_parallel = settings.tensor_parallel_size > 1
    seconds = ENGINE_START_SECONDS[settings.fast_boot] + GPU_LOAD_SECONDS_PER_GIB * checkpoint_gib
    if tensor_parallel:
        seconds += TENSOR_PARALLEL_SECONDS
    if not forks(settings, architecture):
        seconds += SPAWN_SECONDS * (2 if tensor_parallel else 1)
    return seconds


def cold_start_seconds(settings: Settings, architecture: ModelArchitecture, checkpoint_gib: float) -> int:
    """Seconds from no instance at all to the first token."""
    pull = 0 if settings.warm_pool else IMAGE_PULL_SECONDS
    load = checkpoint_gib / WEIGHTS_GIB_PER_SECOND[settings.weights_throughput]
    return round(INSTANCE_SECONDS + pull + load + engine_start_seconds(settings, architecture, checkpoint_gib))
