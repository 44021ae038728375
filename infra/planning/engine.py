"""The engine's part of the plan: vLLM's arguments, environment, memory, and the key of its compile cache."""

from __future__ import annotations

import hashlib
import json

from infra.planning.catalog.gpus import GpuSpec, InstanceType
from infra.planning.catalog.models import GIB, ModelArchitecture
from infra.planning.engine_processes import forks
from infra.planning.instances import container_memory_gib
from infra.planning.memory import default_batch
from infra.planning.parsers import parser_arguments, parsers_of
from infra.planning.plan import EnginePlan, MemoryFit
from infra.planning.proxies import with_direct_addresses
from infra.planning.quantization import quantization_of
from infra.planning.speculation import speculation
from infra.planning.weights import weight_bytes
from infra.settings import FastBoot, Settings

VLLM_VERSION = "0.33.0"
UPSTREAM_IMAGE = f"docker.io/vllm/vllm-openai:v{VLLM_VERSION}"
ENGINE_PORT = 8000
WEIGHTS_PATH = "/weights"
CACHE_PATH = "/cache"
# A stopping replica rejects new requests and finishes running ones, the longest of which take minutes. vLLM exits about
# 7 s after the last. Fargate's stop timeout limit of 120 s does not apply, because the engine runs on EC2.
SHUTDOWN_TIMEOUT_SECONDS = 600
STOP_TIMEOUT_SECONDS = 630
# 15 CUDA graphs instead of vLLM's 51 shorten a start by 2 to 3 s, and were not slower at any concurrency. Measurements of
# each choice here, and of rejected ones, are in docs/benchmarks/engine.
GRAPH_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# Compiling for exactly this batch size makes a single stream with 16-bit weights 10 to 17% faster on an H200. torch.compile
# tunes matrix multiplications only on GPUs with at least this many multiprocessors; on others it would only cost time.
COMPILED_BATCH, LEAST_MULTIPROCESSORS = 1, 68
COMPILATION_FLAGS = ("--compilation-config", "-cc", "-O", "--cudagraph-capture-sizes", "--max-cudagraph-capture-size")


def compilation_config(settings: Settings, architecture: ModelArchitecture, gpu: GpuSpec) -> dict[str, object]:
    """The value of ``--compilation-config``; empty to use vLLM's default or the user's value."""
    theirs = any(arg.startswith(COMPILATION_FLAGS) for arg in settings.engine_args)
    # A speculative decoding step has several tokens per sequence, for which vLLM chooses graph sizes itself.
    if theirs or settings.speculative or settings.fast_boot is FastBoot.EAGER:
        return {}
    sequences = settings.max_num_seqs or default_batch(gpu, settings.performance_mode)[1]
    config: dict[str, object] = {}
    if settings.performance_mode != "interactivity":
        config["cudagraph_capture_sizes"] = [size for size in GRAPH_SIZES if size <= 2 * sequences]
    kept = settings.fast_boot is FastBoot.COMPILE_CACHE
    sixteen_bit = not (architecture.quantization or quantization_of(settings, architecture, gpu))
    if kept and sixteen_bit and gpu.multiprocessors >= LEAST_MULTIPROCESSORS:
        config["compile_sizes"] = [COMPILED_BATCH]
    return config


def engine_args(
    settings: Settings, architecture: ModelArchitecture, memory: MemoryFit, gpu: GpuSpec
) -> tuple[str, ...]:
    """The arguments of ``vllm serve MODEL``, except host and port. Unset settings use vLLM's defaults."""
    args = ["--served-model-name", *settings.names]
    if architecture.kind == "generate" or settings.max_model_len:
        args += ["--max-model-len", str(memory.max_model_len)]
    args += ["--gpu-memory-utilization", f"{settings.gpu_memory_utilization:g}"]
    if settings.model_revision:
        args += ["--revision", settings.model_revision]
    if settings.tensor_parallel_size > 1:
        args += ["--tensor-parallel-size", str(settings.tensor_parallel_size)]
    if settings.data_parallel_size > 1:
        args += ["--data-parallel-size", str(settings.data_parallel_size)]
    if settings.max_num_seqs:
        args += ["--max-num-seqs", str(settings.max_num_seqs)]
    if settings.max_num_batched_tokens:
        args += ["--max-num-batched-tokens", str(settings.max_num_batched_tokens)]
    if settings.performance_mode != "balanced":
        args += ["--performance-mode", settings.performance_mode]
    if quantization := quantization_of(settings, architecture, gpu):
        args += ["--quantization", quantization]
    if settings.kv_cache_dtype != "auto":
        args += ["--kv-cache-dtype", settings.kv_cache_dtype]
    if chosen := speculation(settings.speculative):
        args += ["--speculative-config", chosen.config]
    if not settings.enable_prefix_caching:
        args += ["--no-enable-prefix-caching"]
    # Without it, vLLM does not report cached_tokens, and a benchmark cannot tell a warm prefix cache from a fast engine.
    args += ["--enable-prompt-tokens-details"]
    if architecture.sees:
        args += ["--limit-mm-per-prompt", json.dumps({"image": settings.image_limit, "video": settings.video_limit})]
        if settings.tensor_parallel_size > 1:
            args += ["--mm-encoder-tp-mode", "data"]  # a small encoder is faster replicated on each GPU than split
    args += parser_arguments(parsers_of(settings, architecture), settings.engine_args)
    if settings.lora_adapters:
        # All adapters may be in one batch; with vLLM's default of one, requests for other adapters are queued.
        args += ["--enable-lora", "--max-loras", str(len(settings.lora_adapters))]
        args += ["--max-lora-rank", str(settings.max_lora_rank), "--lora-modules", *settings.lora_adapters]
    if config := compilation_config(settings, architecture, gpu):
        args += ["--compilation-config", json.dumps(config)]
    if settings.fast_boot is FastBoot.EAGER:
        args += ["--enforce-eager"]
    args += ["--shutdown-timeout", str(SHUTDOWN_TIMEOUT_SECONDS)]
    return (*args, *settings.engine_args)


def compile_cache_key(settings: Settings, args: tuple[str, ...]) -> str:
    """The key of a deployed configuration, derived from engine, model, revision, GPU and every argument.

    The compile cache's own key is derived by the engine at startup; this key marks that such a start has happened.
    """
    image = settings.engine_image or UPSTREAM_IMAGE
    parts = [
        image,
        settings.model,
        settings.model_revision,
        settings.gpu,
        str(settings.gpu_count),
        *args,
        *settings.engine_environment,
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def engine_plan(
    settings: Settings, architecture: ModelArchitecture, memory: MemoryFit, gpu: GpuSpec, smallest: InstanceType
) -> EnginePlan:
    """The engine's container, sized for the smallest of the instance types."""
    args = engine_args(settings, architecture, memory, gpu)
    key = compile_cache_key(settings, args)
    container_gib = container_memory_gib(smallest)
    # Workers of a tensor-parallel engine exchange tensors through /dev/shm; Docker's default of 64 MB is too small.
    shared_gib = settings.shared_memory_gib or (min(16.0, container_gib / 4) if settings.gpu_count > 1 else 1.0)
    environment = {"HF_HOME": WEIGHTS_PATH, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    environment |= {"ENGINE_IMAGE": settings.engine_image or UPSTREAM_IMAGE, "ENGINE_PLAN_KEY": key}
    if settings.hub_endpoint:
        environment["HF_ENDPOINT"] = settings.hub_endpoint
    if architecture.sees:
        # The gateway checks the URL in a request, but not where it redirects to.
        environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] = "0"
    if settings.fast_boot is not FastBoot.OFF:
        environment["ENGINE_CACHE"] = CACHE_PATH
    if settings.fast_boot is FastBoot.COMPILE_CACHE:
        environment["VLLM_ENABLE_STARTUP_PLAN"] = "1"
    if forks(settings, architecture):
        environment["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    environment = with_direct_addresses(environment | dict(pair.split("=", 1) for pair in settings.engine_environment))
    return EnginePlan(
        image=settings.engine_image or UPSTREAM_IMAGE,
        args=args,
        environment=environment,
        tensor_parallel_size=settings.tensor_parallel_size,
        data_parallel_size=settings.data_parallel_size,
        port=ENGINE_PORT,
        memory_mib=int(container_gib * 1024),
        shared_memory_mib=int(shared_gib * 1024),
        checkpoint_gib=round(weight_bytes(architecture, "") / GIB, 2),
        compile_cache_key=key,
        stop_timeout_seconds=STOP_TIMEOUT_SECONDS,
    )
