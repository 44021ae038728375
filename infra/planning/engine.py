"""What the plan tells vLLM: arguments, environment, memory, the key of its compile cache."""

from __future__ import annotations

import hashlib
import json
import re

from infra.planning.catalog.gpus import InstanceType
from infra.planning.catalog.models import GIB, ModelArchitecture
from infra.planning.memory import weight_bytes
from infra.planning.plan import EnginePlan, MemoryFit
from infra.planning.refusals import PlanError, container_memory_gib
from infra.settings import FastBoot, Settings

VLLM_VERSION = "0.33.0"
UPSTREAM_IMAGE = f"docker.io/vllm/vllm-openai:v{VLLM_VERSION}"
ENGINE_PORT = 8000
WEIGHTS_PATH = "/weights"
CACHE_PATH = "/cache"
# A replica that is told to stop takes no more requests and finishes those that run: the longest answers take minutes.
# vLLM exits about 7 s after the last; only Fargate limits a container's stop to 120 s, and the engine is not there.
SHUTDOWN_TIMEOUT_SECONDS = 600
STOP_TIMEOUT_SECONDS = 630
DEFAULT_DRAFT_TOKENS = 4


def speculative_config(text: str) -> str | None:
    """The JSON for ``--speculative-config``: from ``ngram[:N]``, ``DRAFT_MODEL[:N]`` or JSON as it is.

    Raises:
        PlanError: the text is none of them.
    """
    if not text:
        return None
    if text.startswith("{"):
        try:
            json.loads(text)
        except ValueError as error:
            raise PlanError(
                [
                    f"speculative: found JSON that does not parse ({error}). Set ngram, DRAFT_MODEL:TOKENS or a JSON object"
                ]
            ) from None
        return text
    match = re.fullmatch(r"(?P<name>ngram|[\w.-]+/[\w.-]+)(:(?P<tokens>[1-9]\d?))?", text)
    if not match:
        raise PlanError(
            [f"speculative: found {text!r}. Set ngram[:TOKENS], DRAFT_MODEL[:TOKENS] (a hub id) or a JSON object"]
        )
    tokens = int(match["tokens"] or DEFAULT_DRAFT_TOKENS)
    if match["name"] == "ngram":
        return json.dumps({"method": "ngram", "num_speculative_tokens": tokens, "prompt_lookup_max": 4})
    return json.dumps({"model": match["name"], "num_speculative_tokens": tokens})


def engine_args(settings: Settings, architecture: ModelArchitecture, memory: MemoryFit) -> tuple[str, ...]:
    """The arguments of ``vllm serve MODEL``, but for host and port. What is not set is left to vLLM's default."""
    args = ["--served-model-name", settings.name, "--max-model-len", str(memory.max_model_len)]
    args += ["--gpu-memory-utilization", f"{settings.gpu_memory_utilization:g}"]
    if settings.model_revision:
        args += ["--revision", settings.model_revision]
    if settings.gpu_count > 1:
        args += ["--tensor-parallel-size", str(settings.gpu_count)]
    if settings.max_num_seqs:
        args += ["--max-num-seqs", str(settings.max_num_seqs)]
    if settings.max_num_batched_tokens:
        args += ["--max-num-batched-tokens", str(settings.max_num_batched_tokens)]
    if settings.quantization:
        args += ["--quantization", settings.quantization]
    if settings.kv_cache_dtype != "auto":
        args += ["--kv-cache-dtype", settings.kv_cache_dtype]
    if config := speculative_config(settings.speculative):
        args += ["--speculative-config", config]
    if not settings.enable_prefix_caching:
        args += ["--no-enable-prefix-caching"]
    if architecture.sees:
        args += ["--limit-mm-per-prompt", json.dumps({"image": settings.image_limit, "video": settings.video_limit})]
        if settings.gpu_count > 1:
            args += ["--mm-encoder-tp-mode", "data"]  # a small encoder is faster whole on each GPU than split
    if settings.fast_boot is FastBoot.EAGER:
        args += ["--enforce-eager"]
    args += ["--shutdown-timeout", str(SHUTDOWN_TIMEOUT_SECONDS)]
    return (*args, *settings.engine_args)


def compile_cache_key(settings: Settings, args: tuple[str, ...]) -> str:
    """Names what a deploy asks for: engine, model, revision, GPU and every argument are in it.

    The engine's own key of compiled files is made of what it finds itself; this one says that such a start was there.
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
    settings: Settings, architecture: ModelArchitecture, memory: MemoryFit, smallest: InstanceType
) -> EnginePlan:
    """The engine's container on the smallest of the instance types."""
    args = engine_args(settings, architecture, memory)
    key = compile_cache_key(settings, args)
    container_gib = container_memory_gib(smallest)
    # Workers of a tensor-parallel engine pass tensors through /dev/shm; Docker's 64 MB breaks them.
    shared_gib = settings.shared_memory_gib or (min(16.0, container_gib / 4) if settings.gpu_count > 1 else 1.0)
    environment = {"HF_HOME": WEIGHTS_PATH, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    environment |= {"ENGINE_IMAGE": settings.engine_image or UPSTREAM_IMAGE, "ENGINE_PLAN_KEY": key}
    if settings.fast_boot is not FastBoot.OFF:
        environment["ENGINE_CACHE"] = CACHE_PATH
    if settings.fast_boot is FastBoot.KEPT_CACHE:
        environment["VLLM_ENABLE_STARTUP_PLAN"] = "1"
    environment |= dict(pair.split("=", 1) for pair in settings.engine_environment)
    return EnginePlan(
        image=settings.engine_image or UPSTREAM_IMAGE,
        args=args,
        environment=environment,
        tensor_parallel_size=settings.gpu_count,
        port=ENGINE_PORT,
        memory_mib=int(container_gib * 1024),
        shared_memory_mib=int(shared_gib * 1024),
        checkpoint_gib=round(weight_bytes(architecture, "") / GIB, 2),
        compile_cache_key=key,
        shutdown_timeout_seconds=SHUTDOWN_TIMEOUT_SECONDS,
        stop_timeout_seconds=STOP_TIMEOUT_SECONDS,
    )
