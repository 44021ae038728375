"""Translates the plan's engine arguments for this machine; every dropped or changed argument is reported."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.planning.plan import ServingPlan
from infra.planning.proxies import with_direct_addresses
from local import folders, weights
from local.machine import GIB, Machine

STAND_IN_KV_CACHE_GIB = 1
LARGEST_CPU_KV_CACHE_GIB = 8
SHUTDOWN_TIMEOUT_SECONDS = 30
CPU_HAS_NONE = "the CPU build does not support it"
NOT_ON_CPU = {
    "--gpu-memory-utilization": "there is no GPU",
    "--tensor-parallel-size": "there is no GPU",
    "--data-parallel-size": "there is no GPU",
    "--compilation-config": "it configures CUDA graphs",
    "--performance-mode": "it configures CUDA graphs",
    "--mm-encoder-tp-mode": "there is no GPU",
    "--quantization": CPU_HAS_NONE,
    "--kv-cache-dtype": CPU_HAS_NONE,
    "--speculative-config": CPU_HAS_NONE,
}
NOT_FOR_STAND_IN = {
    "--revision": "the stand-in has no revisions",
    "--quantization": "the stand-in is not quantized",
    "--mm-encoder-tp-mode": "the stand-in's encoder is too small to split",
    "--mm-processor-kwargs": "the stand-in has its own image sizes",
    "--hf-overrides": "the stand-in has its own configuration",
    "--trust-remote-code": "the stand-in has no code",
    "--speculative-config": "the stand-in has no draft model",
    "--reasoning-parser": "the stand-in does not reason",
    "--tokenizer-mode": "the stand-in has its own tokenizer",
    "--config-format": "the stand-in has its own configuration",
    "--load-format": "the stand-in has its own weights",
    "--enable-lora": "the stand-in has no adapters",
    "--max-loras": "the stand-in has no adapters",
    "--max-lora-rank": "the stand-in has no adapters",
    "--lora-modules": "the stand-in has no adapters",
}
VARIABLES_NOT_ON_CPU = ("VLLM_ENABLE_STARTUP_PLAN", "VLLM_WORKER_MULTIPROC_METHOD")
# These would make the engine require a key, listen elsewhere, or use the Hub.
NOT_FROM_THE_SHELL = ("VLLM_API_KEY", "VLLM_PORT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PYTHONPATH", "PYTHONHOME")


@dataclass(frozen=True)
class EngineCommand:
    """How to start vLLM on this machine; ``notes`` list what was dropped from the plan, changed or added, and why."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    notes: tuple[str, ...]
    compiles: bool

    @property
    def options(self) -> tuple[str, ...]:
        """The arguments without host, port and the model's folder, which do not affect how it serves."""
        return self.arguments[len(("--host", "HOST", "--port", "PORT", "--model", "FOLDER")) :]


def engine_command(
    plan: ServingPlan, machine: Machine, model: Path, stand_in: bool, port: int, compiler: Path | None
) -> EngineCommand:
    """Translate the plan for this machine.

    Args:
        plan: the plan that would be deployed.
        machine: this machine.
        model: folder of the model.
        stand_in: whether the model is the stand-in instead of the plan's model.
        port: the engine's port on 127.0.0.1.
        compiler: C++ compiler, which torch.compile needs on the CPU; None if not installed.
    """
    dropped = (NOT_FOR_STAND_IN if stand_in else {"--revision": "the files are already downloaded"}) | (
        {} if machine.has_gpu else NOT_ON_CPU
    )
    notes: list[str] = []
    options: list[list[str]] = []
    for option in _options(plan.engine.args):
        flag, _, _ = option[0].partition("=")
        if why := dropped.get(flag):
            notes.append(f"dropped {' '.join(option)}: {why}")
        else:
            options.append(option)

    def change(flag: str, value: str | None, why: str) -> None:
        before = [option for option in options if option[0].partition("=")[0] == flag]
        after = [flag] if value is None else [flag, value]
        if before != [after]:
            options[:] = [option for option in options if option not in before] + [after]
            was = f" (was {before[-1][-1].partition('=')[2] or before[-1][-1]})" if before else ""
            notes.append(f"{'changed' if before else 'added'} {' '.join(after)}{was}: {why}")

    variables = {}
    if machine.has_gpu:
        if (parallel := _tensor_parallel(plan, len(machine.gpu_names))) != plan.engine.tensor_parallel_size:
            change("--tensor-parallel-size", str(parallel), f"there are {len(machine.gpu_names)} GPUs")
        copies = max(1, min(plan.engine.data_parallel_size, len(machine.gpu_names) // parallel))
        if copies != plan.engine.data_parallel_size:
            change("--data-parallel-size", str(copies), f"there are {len(machine.gpu_names)} GPUs")
    else:
        cache_gib = _cpu_kv_cache_gib(plan, machine, stand_in)
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(cache_gib)
        per_token = plan.memory.kv_bytes_per_token  # 0 for an encoder and for a model that keeps states only
        room = int(cache_gib * GIB // per_token // 1024 * 1024) if per_token else plan.memory.max_model_len
        if not stand_in and room < plan.memory.max_model_len:
            change("--max-model-len", str(room), f"{cache_gib} GiB of KV cache have room for no more tokens")
        if stand_in:
            change("--enforce-eager", None, "a model this small starts faster and runs no slower without compilation")
        elif compiler is None:
            change("--enforce-eager", None, "there is no C++ compiler to compile with; g++ would make it faster")
    change("--shutdown-timeout", str(SHUTDOWN_TIMEOUT_SECONDS), "a local shutdown waits no longer")
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--model", str(model)]
    words = [word for option in options for word in option]
    arguments += words if stand_in else weights.with_folders(plan, words)
    return EngineCommand(
        arguments=tuple(arguments),
        environment=_environment(plan.engine.environment, machine.has_gpu, variables),
        notes=tuple(notes),
        compiles="--enforce-eager" not in arguments,
    )


def kept_on(machine: Machine, plan: ServingPlan) -> list[str]:
    """The plan's arguments without those that this machine does not support."""
    dropped = {} if machine.has_gpu else NOT_ON_CPU
    kept = (option for option in _options(plan.engine.args) if option[0].partition("=")[0] not in dropped)
    return [word for option in kept for word in option]


def _options(args: Sequence[str]) -> Iterable[list[str]]:
    """Each option with its values, for both ``--flag value`` and ``--flag=value``."""
    current: list[str] = []
    for word in args:
        if word.startswith("--") and current:
            yield current
            current = []
        current.append(word)
    if current:
        yield current


def _tensor_parallel(plan: ServingPlan, gpus: int) -> int:
    heads = plan.architecture.num_attention_heads
    return max(n for n in (1, 2, 4, 8) if n <= min(gpus, plan.engine.tensor_parallel_size) and heads % n == 0)


def _cpu_kv_cache_gib(plan: ServingPlan, machine: Machine, stand_in: bool) -> int:
    if stand_in:
        return STAND_IN_KV_CACHE_GIB
    left = machine.memory_gib - plan.engine.checkpoint_gib
    return max(1, min(LARGEST_CPU_KV_CACHE_GIB, math.floor(0.4 * left)))


def _environment(planned: Mapping[str, str], has_gpu: bool, variables: Mapping[str, str]) -> dict[str, str]:
    cache = folders.CACHE
    shell = {name: value for name, value in os.environ.items() if name not in NOT_FROM_THE_SHELL}
    told = {
        **shell,
        **{name: value for name, value in planned.items() if has_gpu or name not in VARIABLES_NOT_ON_CPU},
        **variables,
        # The plan's folders are paths in the container.
        "HF_HOME": str(cache / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "XDG_CACHE_HOME": str(cache),
        "XDG_CONFIG_HOME": str(cache / "config"),
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        "VLLM_CONFIG_ROOT": str(cache / "config" / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "vllm" / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "vllm" / "triton"),
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }
    return with_direct_addresses(told)
