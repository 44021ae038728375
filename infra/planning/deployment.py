"""Finds valid plans that cannot be deployed, before anything is created, and reports what to set instead."""

from __future__ import annotations

import re

from infra.planning.catalog.sources import REMOTE_ADVICE, is_local
from infra.planning.instances import container_memory_gib
from infra.planning.plan import ServingPlan
from infra.settings import LONGEST_STARTUP_TIMEOUT_MINUTES, FastBoot, Settings, Target, WeightsThroughput

# Fargate's table: CPU units -> (smallest, largest, step) of memory in MiB.
FARGATE_MEMORY_MIB = {
    256: (512, 2048, 512), 512: (1024, 4096, 1024), 1024: (2048, 8192, 1024), 2048: (4096, 16384, 1024),
    4096: (8192, 30720, 1024), 8192: (16384, 61440, 4096), 16384: (32768, 122880, 8192),
}  # fmt: skip
# NCCL and vLLM's workers exchange tensors through /dev/shm; with less than 1 GiB per GPU, a tensor-parallel engine crashes
# under load.
SHARED_MEMORY_GIB_PER_GPU = 1


def deployment_problems(settings: Settings, plan: ServingPlan, region: str) -> list[str]:
    """All problems that prevent a stack's plan from being deployed in a region. make local does not check them."""
    found = _model(settings, plan) + _shared_memory(settings, plan) + _times(settings, plan)
    if settings.target is not Target.ECS:
        return found
    found += _fargate_size(settings)
    match = re.match(
        r"arn:aws[a-z-]*:acm:(?P<region>[a-z0-9-]+):",
        settings.certificate_arn if isinstance(settings.certificate_arn, str) else "",
    )
    if match and match["region"] != region:
        found.append(
            f"certificateArn: found a certificate in {match['region']}, but the stack is in {region}; a load balancer requires a certificate in its own region. Set certificateArn to one in {region}, or aws:region: {match['region']}"
        )
    return found


def _model(settings: Settings, plan: ServingPlan) -> list[str]:
    if settings.bucket and settings.target is not Target.ECS:
        return [
            f"model: found {settings.model} with target {settings.target}, whose pods have no role of the stack to read it with. Set target: ecs, or a Hub id"
        ]
    if is_local(settings.model) and not settings.model_in_image and plan.architecture.source != "catalog":
        return [
            f"model: found {settings.model}, a folder of this machine, where the engine does not run. {REMOTE_ADVICE}"
        ]
    return []


def _shared_memory(settings: Settings, plan: ServingPlan) -> list[str]:
    found = []
    least = SHARED_MEMORY_GIB_PER_GPU * settings.gpu_count
    memory_gib = min(container_memory_gib(instance_type) for instance_type in plan.replicas.instance_types)
    if settings.gpu_count > 1 and plan.engine.shared_memory_mib < least * 1024:
        found.append(
            f"sharedMemoryGib: found {settings.shared_memory_gib}, too small for {settings.gpu_count} GPUs that exchange tensors through it. Set sharedMemoryGib to at least {least}, or 0"
        )
    if plan.engine.shared_memory_mib > memory_gib * 1024 / 2:
        found.append(
            f"sharedMemoryGib: found {settings.shared_memory_gib}, more than half of the engine's {memory_gib:.1f} GiB of memory. Set sharedMemoryGib to at most {int(memory_gib / 2)}, or 0"
        )
    return found


def _times(settings: Settings, plan: ServingPlan) -> list[str]:
    found = []
    cold = plan.replicas.expected_cold_start_seconds
    minutes = -(-cold // 60)
    scales = settings.max_replicas > settings.min_replicas or settings.min_replicas == 0
    if scales and plan.replicas.scale_down_seconds < cold:
        found.append(
            f"scaleDownMinutes: found {settings.scale_down_minutes}, shorter than a cold start of about {cold} s, so the stack would start and stop repeatedly. Set scaleDownMinutes to at least {minutes}, or 0"
        )
    if settings.max_replicas > max(1, settings.min_replicas) and plan.replicas.scale_out_cooldown_seconds < cold:
        found.append(
            f"scaleOutCooldownMinutes: found {settings.scale_out_cooldown_minutes}, shorter than a cold start of about {cold} s, so replicas would be added while one is still starting. Set scaleOutCooldownMinutes to at least {minutes}, or 0"
        )
    if cold > LONGEST_STARTUP_TIMEOUT_MINUTES * 60:
        slow = settings.weights_throughput is WeightsThroughput.BURSTING and not settings.model_in_image
        elastic = ", or weightsThroughput: elastic" if slow else ""
        found.append(
            f"model: a cold start takes about {cold} s, longer than the longest startup timeout of {LONGEST_STARTUP_TIMEOUT_MINUTES} minutes. Set a smaller model{elastic}"
        )
    elif plan.replicas.startup_timeout_seconds < cold:
        faster = "; fastBoot: true starts faster" if settings.fast_boot is FastBoot.OFF else ""
        found.append(
            f"startupTimeoutMinutes: found {settings.startup_timeout_minutes}, shorter than a cold start of about {cold} s. Set startupTimeoutMinutes to at least {minutes}, or 0{faster}"
        )
    return found


def _fargate_size(settings: Settings) -> list[str]:
    sizes = FARGATE_MEMORY_MIB.get(settings.gateway_cpu)
    if sizes is None:
        near = min(FARGATE_MEMORY_MIB, key=lambda cpu: abs(cpu - settings.gateway_cpu))
        return [
            f"gatewayCpu: found {settings.gateway_cpu}, which Fargate does not offer. Set gatewayCpu to {near} (or another of {', '.join(map(str, FARGATE_MEMORY_MIB))})"
        ]
    smallest, largest, step = sizes
    if smallest <= settings.gateway_memory_mib <= largest and settings.gateway_memory_mib % step == 0:
        return []
    near = min(range(smallest, largest + 1, step), key=lambda mib: abs(mib - settings.gateway_memory_mib))
    return [
        f"gatewayMemoryMib: found {settings.gateway_memory_mib}, which Fargate does not offer with gatewayCpu {settings.gateway_cpu} ({smallest} to {largest} in steps of {step}). Set gatewayMemoryMib to {near}"
    ]
