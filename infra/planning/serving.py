"""Makes the ServingPlan from settings and catalog."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from infra.engine_options import json_object
from infra.errors import PlanError
from infra.gateway_environment import variables
from infra.planning.alternatives import longer, suggest
from infra.planning.catalog.gpus import GpuSpec, InstanceType, gpu_specs, known_instance_types
from infra.planning.catalog.models import (
    GIB,
    FetchConfig,
    ModelArchitecture,
)
from infra.planning.catalog.sources import config_reader
from infra.planning.cold_start import cold_start_seconds, scale_down_seconds, startup_timeout_seconds
from infra.planning.cost import cost_plan
from infra.planning.engine import engine_plan
from infra.planning.engine_arguments import (
    batch_problems,
    engine_argument_problems,
    engine_argument_warnings,
    host_memory_problems,
)
from infra.planning.engine_variables import engine_variable_problems
from infra.planning.fit import memory_fit
from infra.planning.hf_overrides import longer_context_hint
from infra.planning.instances import choose_instances, container_memory_gib
from infra.planning.memory import Extras
from infra.planning.overrides import architecture_of, overridden
from infra.planning.parsers import parser_warnings, parsers_of
from infra.planning.plan import GatewayPlan, MemoryFit, ReplicaPlan, ServingPlan
from infra.planning.proxies import with_direct_addresses
from infra.planning.purchase import purchase_warnings
from infra.planning.refusals import refusals
from infra.planning.speculation import extras
from infra.planning.weights import file_bytes
from infra.settings import FastBoot, Settings, Target

GATEWAY_PORT = 8080
METRICS_PORT = 9090
# The gateway accepts requests during the drain delay, until load balancers and DNS caches have removed it; running requests
# then have the drain timeout to finish. The sum is below Fargate's maximum stopTimeout of 120 s.
DRAIN_DELAY_SECONDS, DRAIN_TIMEOUT_SECONDS = 15, 95
# A non-streaming request receives no bytes until its response is complete. The timeouts are ordered: first the gateway's
# request timeout, then the load balancer's idle timeout (the maximum that AWS allows), then the gateway's keep-alive timeout.
PLAIN_REQUEST_TIMEOUT_SECONDS = 3600
LOAD_BALANCER_IDLE_TIMEOUT_SECONDS = 4000
# Another replica is added before this one is full, because it takes minutes to start.
SCALE_OUT_AT_SHARE_OF_CONCURRENCY = 0.75
# Unpacking the image is limited by disk throughput: 500 MiB/s instead of gp3's 125 saves one minute of a GPU instance.
ROOT_VOLUME_GIB, ROOT_VOLUME_THROUGHPUT_MIB_PER_SECOND, ROOT_VOLUME_IOPS = 100, 500, 3000


def make_plan(settings: Settings, *, region: str = "us-east-1", fetch: FetchConfig | None = None) -> ServingPlan:
    """Make the serving plan of a stack.

    Args:
        settings: the stack's validated settings.
        region: AWS region, for the cost estimate.
        fetch: fetches the config.json of a model outside the catalog; None: from where the engine will load it.

    Raises:
        PlanError: the settings cannot work; lists every problem with what to set instead.
    """
    fetch = fetch or config_reader(settings)
    gpu = gpu_specs()[settings.gpu]
    reasons = [*engine_argument_problems(settings, gpu), *engine_variable_problems(settings)]
    overrides = json_object(settings.engine_args, "--hf-overrides")
    try:
        architecture = architecture_of(settings, fetch, overrides)
    except PlanError as error:
        raise PlanError(reasons + error.problems) from None
    architecture = overridden(architecture, settings)
    hint = longer_context_hint(settings.max_model_len, architecture, overrides)
    reported = {_setting(reason) for reason in reasons} - {"engineArgs"}  # one line for each setting is enough
    reasons += [
        f"{reason}{hint if reason.startswith('maxModelLen') else ''}"
        for reason in refusals(settings, architecture, gpu)
        if _setting(reason) not in reported
    ]
    checkpoint_gib = file_bytes(architecture) / GIB
    try:
        instance_types = choose_instances(settings, gpu, known_instance_types(), checkpoint_gib, region)
        beside = extras(settings, architecture, fetch)
    except PlanError as error:
        raise PlanError(reasons + [one for one in error.problems if _setting(one) not in reported]) from None
    reasons += host_memory_problems(settings, instance_types)
    if reasons:
        raise PlanError(reasons)
    memory = memory_fit(settings, architecture, gpu, instance_types, beside)
    if problems := batch_problems(settings, gpu, architecture, memory.max_model_len):
        raise PlanError(problems)
    if not memory.fits:
        raise PlanError([_does_not_fit(settings, memory, gpu, suggest(settings, architecture, beside, region))])
    if settings.max_num_seqs and memory.most_sequences:
        raise PlanError([_too_many_sequences(settings, memory)])
    cold = cold_start_seconds(settings, architecture, checkpoint_gib)
    replicas = _replica_plan(settings, instance_types, gpu, cold, checkpoint_gib if settings.model_in_image else 0.0)
    engine = engine_plan(
        settings, architecture, memory, gpu, min(instance_types, key=lambda instance_type: instance_type.memory_gib)
    )
    gateway = _gateway_plan(settings, architecture, replicas, engine.image, memory.max_model_len)
    return ServingPlan(
        model=settings.model,
        model_revision=settings.model_revision,
        served_model_name=settings.served_name,
        architecture=architecture,
        memory=memory,
        engine=engine,
        gateway=gateway,
        replicas=replicas,
        cost=cost_plan(settings, replicas, engine, gateway, region),
        warnings=(
            *_warnings(settings, architecture, gpu, instance_types, checkpoint_gib),
            *_shortened(settings, architecture, memory, beside, region),
            *purchase_warnings(settings, gpu, instance_types, region),
            *parser_warnings(settings, architecture),
        ),
    )


def _setting(problem: str) -> str:
    return problem.partition(":")[0]


def priced_again(
    settings: Settings, plan: ServingPlan, instance_types: tuple[InstanceType, ...], region: str
) -> ServingPlan:
    """The same plan with the cost of the same instance types at other prices."""
    replicas = dataclasses.replace(plan.replicas, instance_types=instance_types)
    cost = cost_plan(settings, replicas, plan.engine, plan.gateway, region)
    return dataclasses.replace(plan, replicas=replicas, cost=cost)


def _does_not_fit(settings: Settings, memory: MemoryFit, gpu: GpuSpec, suggestions: list[str]) -> str:
    where = (
        f"{settings.tensor_parallel_size} x {gpu.label}" if settings.tensor_parallel_size > 1 else f"one {gpu.label}"
    )
    shard = " a GPU" if settings.tensor_parallel_size > 1 else ""
    if memory.kv_cache_tokens:
        cause = (
            f"maxModelLen: one sequence of {memory.max_model_len:,} tokens does not fit in the KV cache of {where}, "
            f"which holds {memory.kv_cache_tokens:,} tokens in addition to {memory.weights_gib} GiB of weights{shard}"
        )
    else:
        cause = (
            f"gpu: {settings.model} does not fit on {where}: {memory.weights_gib} GiB of weights and "
            f"{memory.overhead_gib} GiB of working memory{shard}, of {memory.usable_gib} GiB usable "
            f"({memory.gpu_memory_gib} GiB x gpuMemoryUtilization {settings.gpu_memory_utilization:g})"
        )
    return f"{cause}. Set {'; or '.join(suggestions) if suggestions else 'a smaller model'}"


def _too_many_sequences(settings: Settings, memory: MemoryFit) -> str:
    return (
        f"maxNumSeqs: found {settings.max_num_seqs}, but the states of about {memory.most_sequences} sequences of {settings.model} "
        f"fit in GPU memory, and vLLM does not start with more. Set maxNumSeqs to at most {memory.most_sequences}, or 0"
    )


def _replica_plan(
    settings: Settings, instance_types: tuple[InstanceType, ...], gpu: GpuSpec, cold: int, weights_in_image_gib: float
) -> ReplicaPlan:
    return ReplicaPlan(
        instance_types=instance_types,
        gpu=gpu,
        gpu_count=settings.gpu_count,
        min_replicas=settings.min_replicas,
        max_replicas=settings.max_replicas,
        scale_down_seconds=scale_down_seconds(settings, cold),
        expected_cold_start_seconds=cold,
        startup_timeout_seconds=startup_timeout_seconds(settings, cold),
        scale_out_cooldown_seconds=settings.scale_out_cooldown_minutes * 60 or cold,
        target_demand_per_replica=max(1, round(settings.concurrency_per_replica * SCALE_OUT_AT_SHARE_OF_CONCURRENCY)),
        # Docker keeps the layer and its unpacked files.
        root_volume_gib=ROOT_VOLUME_GIB + math.ceil(2 * weights_in_image_gib),
        root_volume_throughput_mib_per_second=ROOT_VOLUME_THROUGHPUT_MIB_PER_SECOND,
        root_volume_iops=ROOT_VOLUME_IOPS,
    )


def _gateway_plan(
    settings: Settings, architecture: ModelArchitecture, replicas: ReplicaPlan, engine_image: str, max_model_len: int
) -> GatewayPlan:
    hold = replicas.startup_timeout_seconds
    parsers = parsers_of(settings, architecture)
    info: dict[str, Any] = {
        "model": settings.served_name,
        "hub_id": settings.model,
        "revision": settings.revision,
        "gpu": settings.gpu.value,
        "gpu_count": settings.gpu_count,
        "engine_image": engine_image,
        "max_model_len": max_model_len,
        "image_limit": settings.image_limit if architecture.sees else 0,
        "video_limit": settings.video_limit if architecture.sees else 0,
        "tool_call_parser": parsers.tool_call,
        "reasoning_parser": parsers.reasoning,
        "thinking_argument": parsers.thinking,
    }
    if settings.target is Target.ECS:
        info["instance_types"] = [instance_type.name for instance_type in replicas.instance_types]
    return GatewayPlan(
        image=settings.gateway_image,
        count=settings.gateway_count,
        cpu_units=settings.gateway_cpu,
        memory_mib=settings.gateway_memory_mib,
        port=GATEWAY_PORT,
        metrics_port=METRICS_PORT,
        environment=with_direct_addresses(
            {
                "GATEWAY_PORT": str(GATEWAY_PORT),
                "GATEWAY_METRICS_PORT": str(METRICS_PORT),
                "GATEWAY_MODEL": settings.served_name,
                **_names(settings),
                **_media_hosts(settings),
                **({"GATEWAY_ALLOWED_ORIGINS": ",".join(settings.allowed_origins)} if settings.allowed_origins else {}),
                "GATEWAY_COUNT": str(settings.gateway_count),
                # The total over all gateways; each divides it by GATEWAY_COUNT.
                "GATEWAY_CONCURRENCY_PER_REPLICA": str(settings.concurrency_per_replica),
                "GATEWAY_HOLD_TIMEOUT_SECONDS": str(hold),
                "GATEWAY_HOLD_TIMEOUT_NONSTREAM_SECONDS": str(hold),
                "GATEWAY_DRAIN_DELAY_SECONDS": str(DRAIN_DELAY_SECONDS),
                "GATEWAY_DRAIN_TIMEOUT_SECONDS": str(DRAIN_TIMEOUT_SECONDS),
                "GATEWAY_REQUEST_TIMEOUT_NONSTREAM_SECONDS": str(PLAIN_REQUEST_TIMEOUT_SECONDS),
                "GATEWAY_KEEP_ALIVE_SECONDS": str(LOAD_BALANCER_IDLE_TIMEOUT_SECONDS + 60),
                "GATEWAY_INFO": json.dumps(info, sort_keys=True),
                **variables(settings.gateway_environment),
            }
        ),
        drain_timeout_seconds=DRAIN_TIMEOUT_SECONDS,
        stop_timeout_seconds=120,
        idle_timeout_seconds=LOAD_BALANCER_IDLE_TIMEOUT_SECONDS,
    )


def _names(settings: Settings) -> dict[str, str]:
    """The model's aliases and the names of its adapters, for the gateway."""
    aliases, adapters = settings.names[1:], [adapter.partition("=")[0] for adapter in settings.lora_adapters]
    found = {"GATEWAY_ALIASES": ",".join(aliases)} if aliases else {}
    return found | ({"GATEWAY_ADAPTERS": ",".join(adapters)} if adapters else {})


def _media_hosts(settings: Settings) -> dict[str, str]:
    return {"GATEWAY_MEDIA_HOSTS": ",".join(settings.media_hosts)} if settings.media_hosts else {}


def _would_fit_whole(
    settings: Settings, architecture: ModelArchitecture, gpu: GpuSpec, instance_types: tuple[InstanceType, ...]
) -> bool:
    """Whether each GPU of a tensor-parallel plan has memory for the whole model and a cache as large as its weights."""
    if settings.tensor_parallel_size == 1 or architecture.num_experts:
        return False
    whole = memory_fit(
        settings.model_copy(update={"data_parallel_size": settings.gpu_count}), architecture, gpu, instance_types
    )
    return whole.fits and whole.kv_cache_gib > whole.weights_gib


def _shortened(
    settings: Settings, architecture: ModelArchitecture, memory: MemoryFit, beside: Extras, region: str
) -> list[str]:
    """An automatic context length below the model's own, with what would make it longer, and fewer sequences than by default."""
    own, found = architecture.max_position_embeddings, []
    if memory.most_sequences:
        below = memory.most_sequences < settings.concurrency_per_replica
        excess = (
            f"; vLLM queues the rest of concurrencyPerReplica ({settings.concurrency_per_replica})" if below else ""
        )
        found.append(
            f"maxNumSeqs: planned {memory.most_sequences:,}, fewer than vLLM's default, because the states of more sequences do not fit in GPU memory{excess}"
        )
    if settings.max_model_len or not architecture.keeps_cache or memory.max_model_len >= own:
        return found
    changes = longer(settings, architecture, beside, memory.max_model_len, region)
    more = f"; for more: {'; or '.join(changes)}" if changes else ""
    return [*found, f"maxModelLen: planned {memory.max_model_len:,} of {own:,} tokens{more}"]


def _warnings(
    settings: Settings,
    architecture: ModelArchitecture,
    gpu: GpuSpec,
    instance_types: tuple[InstanceType, ...],
    checkpoint_gib: float,
) -> list[str]:
    found = engine_argument_warnings(settings)
    doubts = list(architecture.doubts)
    if architecture.source != "catalog" and not architecture.checkpoint_bytes:
        doubts.append("the size of its weights is computed from config.json (set weightsGib if you know it)")
    if doubts:
        found.append(
            f"model: {settings.model} is an estimate, because {'; '.join(doubts)}. Try it on the smallest instance that the plan allows before relying on it"
        )
    instance_type = instance_types[0]
    if instance_type.gpus > settings.gpu_count:
        found.append(
            f"{instance_type.name} has {instance_type.gpus} GPUs and bills for all, but gpuCount uses {settings.gpu_count}"
        )
    if settings.fast_boot is FastBoot.EAGER:
        found.append(
            "fastBoot: eager starts at most 8 s faster than with a compile cache, with a quarter of the throughput (measured on an H200: 12 instead of 20 s to the first token with everything cached, 730 instead of 2,740 tokens/s at 10 concurrent requests)"
        )
    if _would_fit_whole(settings, architecture, gpu, instance_types):
        found.append(
            f"gpuCount: {settings.gpu_count} splits a model that fits on one GPU. For more throughput under load, set dataParallelSize: {settings.gpu_count} (measured with a 4B model on two H200 at 256 concurrent requests: 38,600 instead of 29,200 tokens/s). With the split, a single stream is 20% faster"
        )
    if settings.speculative.startswith("ngram"):
        found.append(
            "speculative: ngram is faster only if outputs repeat parts of the prompt; otherwise it reduces throughput by a third (measured on an H200)"
        )
    smallest = min(container_memory_gib(k) for k in instance_types)
    if checkpoint_gib > 0.9 * smallest:
        disk = "the disk" if settings.model_in_image else "EFS" if settings.target is Target.ECS else "the volume"
        found.append(
            f"the checkpoint ({checkpoint_gib:.1f} GiB) is more than 90% of the container's memory ({smallest:.1f} GiB): vLLM will read it lazily from {disk}, which is slow. An instance type with more memory loads it faster"
        )
    if settings.target is Target.KUBERNETES and settings.min_replicas == 0:
        found.append("target kubernetes always runs one replica: it does not support scale to zero yet")
    if architecture.sees and not (settings.image_limit or settings.video_limit):
        found.append(
            "the model is a vision model, but imageLimit and videoLimit are 0: requests with images are rejected"
        )
    if settings.max_num_seqs and settings.max_num_seqs < settings.concurrency_per_replica:
        found.append(
            f"maxNumSeqs ({settings.max_num_seqs}) is below concurrencyPerReplica ({settings.concurrency_per_replica}): vLLM queues the excess requests"
        )
    return found
