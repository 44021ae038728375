"""Estimates the duration of a cold start (instance, image, weights, engine) before a deploy measures it."""

from __future__ import annotations

from infra.planning.catalog.models import ModelArchitecture
from infra.planning.engine_processes import forks
from infra.settings import LONGEST_STARTUP_TIMEOUT_MINUTES, FastBoot, Settings, WeightsThroughput

# Instance and image are estimates. EFS reads at 300 MiB/s with burst credits; 0.5 GiB/s is conservative for elastic.
INSTANCE_SECONDS, IMAGE_PULL_SECONDS = 90, 150
WEIGHTS_GIB_PER_SECOND = {WeightsThroughput.BURSTING: 300 / 1024, WeightsThroughput.ELASTIC: 0.5}
DISK_GIB_PER_SECOND = 500 / 1024  # the root volume's throughput, to unpack weights in the image and to read them
# From the entrypoint's first instruction to the first token, on an H200 with vLLM 0.26, forked. The start with a compile
# cache was measured as deployed: 26 to 28 s for 4B, including 3 s to restore bytecode and compiled files. The other two are
# combined from measured starts: without bytecode and with 50 s of compilation; with everything cached and nothing to compile
# (docs/benchmarks/engine).
ENGINE_START_SECONDS = {FastBoot.COMPILE_CACHE: 26, FastBoot.OFF: 75, FastBoot.EAGER: 18}
GPU_LOAD_SECONDS_PER_GIB = 0.14  # CUDA graphs and copies take longer for larger models: 7.5 s more for 32B than for 4B
SPAWN_SECONDS = 8  # per level of spawned processes, each of which imports vLLM again
TENSOR_PARALLEL_SECONDS = 4
# A first start may take twice as long as expected: another Availability Zone has capacity, or nothing is cached yet.
LEAST_STARTUP_TIMEOUT_MINUTES, STARTUP_TIMEOUT_COLD_STARTS, LEAST_SCALE_DOWN_MINUTES = 20, 2, 10


def engine_start_seconds(settings: Settings, architecture: ModelArchitecture, checkpoint_gib: float) -> float:
    """Seconds from the engine's start to its first token, without reading the weights from the cache."""
    tensor_parallel = settings.tensor_parallel_size > 1
    seconds = ENGINE_START_SECONDS[settings.fast_boot] + GPU_LOAD_SECONDS_PER_GIB * checkpoint_gib
    if tensor_parallel:
        seconds += TENSOR_PARALLEL_SECONDS
    if not forks(settings, architecture):
        seconds += SPAWN_SECONDS * (2 if tensor_parallel else 1)
    return seconds


def cold_start_seconds(settings: Settings, architecture: ModelArchitecture, checkpoint_gib: float) -> int:
    """Seconds from zero instances to the first token."""
    pull = 0 if settings.warm_pool else IMAGE_PULL_SECONDS
    if settings.model_in_image:
        load = checkpoint_gib / DISK_GIB_PER_SECOND * (1 if settings.warm_pool else 2)
    else:
        load = checkpoint_gib / WEIGHTS_GIB_PER_SECOND[settings.weights_throughput]
    return round(INSTANCE_SECONDS + pull + load + engine_start_seconds(settings, architecture, checkpoint_gib))


def startup_timeout_seconds(settings: Settings, cold_start: int) -> int:
    """The setting, or twice the expected cold start within the setting's bounds. It may be shorter than the cold start."""
    if settings.startup_timeout_minutes:
        return settings.startup_timeout_minutes * 60
    minutes = max(LEAST_STARTUP_TIMEOUT_MINUTES, -(-STARTUP_TIMEOUT_COLD_STARTS * cold_start // 60))
    return min(minutes, LONGEST_STARTUP_TIMEOUT_MINUTES) * 60


def scale_down_seconds(settings: Settings, cold_start: int) -> int:
    """The setting, or the expected cold start: a stack that stops sooner would start and stop repeatedly."""
    return (settings.scale_down_minutes or max(LEAST_SCALE_DOWN_MINUTES, -(-cold_start // 60))) * 60
