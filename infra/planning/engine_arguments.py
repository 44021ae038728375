"""Checks ``engineArgs`` and the settings that become engine arguments against vLLM's own list of arguments."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import re
import shlex
from collections.abc import Iterator

from pydantic import ValidationError

from image.engine.argument_list import ArgumentList, argument_list, size, versions
from image.engine.command_line import CommandLine, CommandLineError, read
from infra.engine_options import engine_options, json_object, number
from infra.errors import PlanError
from infra.planning.catalog.gpus import GpuSpec, InstanceType
from infra.planning.catalog.models import ModelArchitecture
from infra.planning.engine import VLLM_VERSION
from infra.planning.instances import container_memory_gib
from infra.planning.memory import default_batch
from infra.planning.parsers import parser_problems
from infra.planning.speculation import speculation
from infra.settings import Settings

# Arguments that a setting makes: the setting, and how its value is written.
SETTINGS = {
    "--model": "model", "--revision": "modelRevision", "--served-model-name": "servedModelName", "--max-model-len": "maxModelLen",
    "--quantization": "quantization", "--kv-cache-dtype": "kvCacheDtype", "--gpu-memory-utilization": "gpuMemoryUtilization",
    "--max-num-seqs": "maxNumSeqs", "--max-num-batched-tokens": "maxNumBatchedTokens", "--tensor-parallel-size": "gpuCount",
    "--data-parallel-size": "dataParallelSize", "--tool-call-parser": "toolCallParser", "--reasoning-parser": "reasoningParser", "--tokenizer-mode": "tokenizerMode", "--max-lora-rank": "maxLoraRank",
    "--performance-mode": "performanceMode", "--speculative-config": "speculative",
}  # fmt: skip
# Arguments that a setting makes with another value: what to set.
OTHERWISE = {
    "--enforce-eager": "fastBoot: eager", "--enable-prefix-caching": "enablePrefixCaching", "--enable-auto-tool-choice": "toolCallParser",
    "--enable-lora": "loraAdapters", "--lora-modules": "loraAdapters: [NAME=HUB_ID]", "--max-loras": "loraAdapters",
    "--limit-mm-per-prompt": "imageLimit and videoLimit", "--language-model-only": "imageLimit: 0 and videoLimit: 0", "--spec-method": "speculative", "--spec-model": "speculative",
    "--spec-tokens": "speculative", "--hf-token": "the secret hfToken", "--api-key": "the secret apiKeys",
    "--kv-cache-memory-bytes": "gpuMemoryUtilization", "--allowed-origins": "allowedOrigins", "--allowed-methods": "allowedOrigins",
    "--allowed-headers": "allowedOrigins", "--allow-credentials": "allowedOrigins", "--api-server-count": "gatewayCount",
}  # fmt: skip
# Arguments that belong to the stack; no setting replaces them.
STACK = {
    "--host": "the gateway reaches the engine at an address that the stack sets", "--port": "the setting port is the endpoint's, and the engine's is the stack's",
    "--uds": "the gateway reaches the engine over TCP", "--root-path": "the gateway forwards the engine's own paths",
    "--config": "the file is not in the container; write its arguments as items", "--headless": "the gateway needs the engine's API",
    "--grpc": "the gateway needs the engine's HTTP API", "--grpc-port": "the gateway needs the engine's HTTP API",
    "--shutdown-timeout": "the stack's stop timeouts depend on it", "--nnodes": "a replica is one instance",
    "--node-rank": "a replica is one instance", "--master-addr": "a replica is one instance", "--master-port": "a replica is one instance",
    "--device-ids": "a replica uses gpuCount GPUs",
}  # fmt: skip
_STACK_PREFIXES = {"--ssl-": "TLS ends at the load balancer: set certificateArn or domain", "--enable-ssl-": "TLS ends at the load balancer: set certificateArn or domain",
                   "--data-parallel-": "a replica is one instance; set dataParallelSize"}  # fmt: skip
# Arguments that earlier versions had, and what replaced them.
REMOVED = {
    "--task": "--runner pooling, with --convert embed or classify", "--swap-space": "--kv-offloading-size", "--rope-scaling": "--hf-overrides",
    "--rope-theta": "--hf-overrides", "--speculative-model": "the setting speculative", "--num-speculative-tokens": "the setting speculative",
    "--guided-decoding-backend": "--structured-outputs-config.backend", "--disable-log-requests": "--no-enable-log-requests",
    "--device": "the setting gpu", "--enable-reasoning": "the setting reasoningParser", "--cuda-graph-sizes": "--cudagraph-capture-sizes",
    "--max-seq-len-to-capture": "--max-cudagraph-capture-size", "--num-scheduler-steps": "", "--use-v2-block-manager": "",
    "--worker-use-ray": "", "--preemption-mode": "", "--disable-frontend-multiprocessing": "", "--max-seq-len": "the setting maxModelLen",
    "--max-len": "the setting maxModelLen", "--context-length": "the setting maxModelLen", "--tp": "the setting gpuCount",
    "--tp-size": "the setting gpuCount", "--mem-fraction-static": "the setting gpuMemoryUtilization", "--tool-parser": "the setting toolCallParser",
    "--lora-extra-vocab-size": "", "--multi-step-stream-outputs": "", "--enable-chunked-context": "--enable-chunked-prefill",
}  # fmt: skip
_HOST_MEMORY_SHARE = 0.8


def known_arguments(engine_image: str) -> tuple[ArgumentList, bool]:
    """The arguments of an image's vLLM, and whether they are all: a custom image may have another version."""
    tag = re.search(r":v?(\d+\.\d+\.\d+)$", engine_image)
    version = tag[1] if tag else ""
    return argument_list(version or VLLM_VERSION), not engine_image or version in versions()


@functools.lru_cache(maxsize=64)
def _own_problems(engine_args: tuple[str, ...], engine_image: str) -> tuple[str, ...]:
    known, exact = known_arguments(engine_image)
    found = list(_badly_written(engine_args)) or list(_owned(engine_args, known))
    if found:
        return tuple(found)
    try:
        line = read(("model", *engine_args), known)
    except CommandLineError as error:
        return (f"engineArgs: {_plain(str(error))}",)
    return (*(_unknown(line, known) if exact else ()), *_values(line, known, exact=exact))


def _badly_written(engine_args: tuple[str, ...]) -> Iterator[str]:
    after_flag = False
    for item in engine_args:
        name = item.partition("=")[0]
        if not item or item in ("-", "--"):
            yield f"engineArgs: found {item!r}, which is no argument. Remove it"
        elif item.startswith("-") and re.search(r"\s", name) and not re.fullmatch(r"-[\d.]+\s*", name):
            try:
                words = shlex.split(item)
            except ValueError:
                words = item.split()
            yield f"engineArgs: found {_short(item)}, several words in one item. Set {json.dumps(words, ensure_ascii=False)}"
        elif not item.startswith("-") and not after_flag:
            yield f'engineArgs: found {_short(item)}, which follows no argument. Set it after its argument, such as [--seed, "1"], or remove it'
        after_flag = "=" not in item if item.startswith("-") else after_flag


def _owned(engine_args: tuple[str, ...], known: ArgumentList) -> Iterator[str]:
    seen = set()
    for i, item in enumerate(engine_args):
        argument = known.find(item) if item.startswith("-") and not re.fullmatch(r"-[\d.]+", item) else None
        if argument is None or argument.name in seen:
            continue
        name, short = argument.name, item.partition("=")[0]
        if name in SETTINGS:
            yield f"engineArgs: found {short}, which the setting {SETTINGS[name]} sets. {_instead(SETTINGS[name], item, engine_args[i + 1 :])}"
        elif name in OTHERWISE:
            yield f"engineArgs: found {short}, which a setting sets. Remove it, and set {OTHERWISE[name]}"
        elif reason := STACK.get(name) or next(
            (why for start, why in _STACK_PREFIXES.items() if name.startswith(start)), ""
        ):
            yield f"engineArgs: found {short}, but {reason}. Remove it"
        else:
            continue
        seen.add(name)


def _instead(key: str, item: str, following: tuple[str, ...]) -> str:
    """What to set in place of an argument: its value, if the setting accepts it."""
    short, equals, text = item.partition("=")
    values = [text] if equals else list(itertools.takewhile(lambda word: not word.startswith("-"), following))
    if "." in short or not values:
        return f"Remove it, and set {key}"
    value = ",".join(values) if key == "servedModelName" else values[0]
    with contextlib.suppress(ValueError):
        value = str(size(value)) if key in ("maxModelLen", "maxNumBatchedTokens") else value
    try:
        Settings.model_validate({key: value})
    except ValidationError:
        return f"Remove it, or set {key} to a value that it accepts"
    return f"Remove it, and set {key}: {_short(value, quote=False)}"


def _unknown(line: CommandLine, known: ArgumentList) -> Iterator[str]:
    for words in line.unknown:
        name = words[0].partition("=")[0]
        plain = re.split(r"[.]", name)[0].replace("_", "-")
        if plain in REMOVED:
            instead = f"Set {REMOVED[plain]} instead" if REMOVED[plain] else "Remove it"
        else:
            close = known.nearest(name)
            instead = f"Set {close}, or remove it" if close else "Remove it"
        yield f"engineArgs: found {_short(name, quote=False)}, which vLLM {known.version} does not have. {instead}"


def _values(line: CommandLine, known: ArgumentList, *, exact: bool) -> Iterator[str]:
    for name, values in line.options.items():
        argument = known.by_name[name]
        if not exact and (argument.choices or argument.fields is not None):
            continue
        for problem in filter(None, (argument.problem(value) for value in values)):
            yield f"engineArgs: {name}: {_ended(problem)} Set another value, or remove {name}"
            break


def _addresses(settings: Settings) -> Iterator[str]:
    """Only the model's folder in S3 is readable for the engine; vLLM reads adapters and tokenizers from no other store."""
    named = {"loraAdapters": settings.lora_adapters, "speculative": (settings.speculative,)}
    named["engineArgs"] = tuple(
        word
        for flag in ("--tokenizer", "--hf-config-path")
        for word in engine_options(settings.engine_args).get(flag, ())
    )
    for key, words in named.items():
        if found := next((match[0] for word in words if (match := re.search(r"[a-z0-9]+://[^\s\"]*", word))), ""):
            yield f"{key}: found {found}, but only model can be in S3. Set a Hub id, or a path in engineImage"


def engine_argument_problems(settings: Settings, gpu: GpuSpec) -> list[str]:
    """All arguments and settings that vLLM would reject, or that would change what another setting promises."""
    known, exact = known_arguments(settings.engine_image)
    found = list(_own_problems(settings.engine_args, settings.engine_image))
    options = engine_options(settings.engine_args)
    found += parser_problems(settings, known.version) if exact else []
    found += _speculative(settings.speculative, known)
    found += _addresses(settings)
    found += _batch(settings, gpu)
    found += _processes(settings)
    dtype = next(iter(options.get("--dtype", ())), "auto")
    if dtype in ("float", "float32"):
        found.append(
            f"engineArgs: found --dtype {dtype}, which doubles the weights that the plan counts. Set --dtype auto, or remove it"
        )
    if dtype == "bfloat16" and not gpu.has_bf16:
        found.append(
            f"engineArgs: found --dtype bfloat16, which an {gpu.label} does not support. Set --dtype half, or gpu: a10g"
        )
    return found


def _speculative(text: str, known: ArgumentList) -> Iterator[str]:
    """What vLLM rejects in a JSON object; what is no JSON is reported where it is parsed."""
    try:
        given = json.loads(text) if text.startswith("{") else None
    except ValueError:
        return
    if given is None:
        return
    if problem := known.arguments["--speculative-config"].problem(text):
        yield f"speculative: {_ended(problem)} Set a JSON object of vLLM's --speculative-config, or another form"
        return
    config = {key.replace("-", "_"): value for key, value in given.items()}
    if not config.get("model") and not config.get("method"):
        yield "speculative: found neither model nor method in the JSON object, and vLLM rejects that. Set one of them, or remove speculative"
    elif config.get("num_speculative_tokens") is None and config.get("method") in (
        "ngram",
        "suffix",
        "draft_model",
        None,
    ):
        yield "speculative: found no num_speculative_tokens in the JSON object. Set it to a whole number such as 4"


def _batch(settings: Settings, gpu: GpuSpec) -> Iterator[str]:
    tokens = settings.max_num_batched_tokens or default_batch(gpu, settings.performance_mode)[0]
    if settings.max_num_seqs > tokens and not settings.max_num_batched_tokens:
        yield f"maxNumSeqs: found {settings.max_num_seqs}, more than the {tokens} tokens per batch that are vLLM's default on an {gpu.label}; vLLM rejects that. Set maxNumBatchedTokens: {settings.max_num_seqs}, or maxNumSeqs to at most {tokens}"
    sequences = settings.max_num_seqs or min(default_batch(gpu, settings.performance_mode)[1], tokens)
    drafted = sequences * (1 + _draft_tokens(settings.speculative))
    if settings.lora_adapters and settings.speculative and tokens < drafted:
        yield f"speculative: found with loraAdapters, for which vLLM needs maxNumBatchedTokens of at least maxNumSeqs x (draft tokens + 1), {drafted}, and {tokens} are set. Set maxNumBatchedTokens: {drafted}, or maxNumSeqs to at most {tokens * sequences // drafted}"


def _draft_tokens(text: str) -> int:
    try:
        chosen = speculation(text)
    except PlanError:
        return 0
    return chosen.tokens if chosen else 0


def batch_problems(settings: Settings, gpu: GpuSpec, architecture: ModelArchitecture, max_model_len: int) -> list[str]:
    """Without chunked prefill, a batch must hold a whole prompt of the planned length. Encoders never have it."""
    off = "--no-enable-chunked-prefill" in engine_options(settings.engine_args)
    if off and settings.enable_prefix_caching and any(cache.state_bytes for cache in architecture.caches):
        return [
            f"engineArgs: found --no-enable-chunked-prefill, but vLLM needs chunked prefill for the prefix cache of {settings.model}, which keeps states. Remove it, or set enablePrefixCaching: false"
        ]
    tokens = settings.max_num_batched_tokens or default_batch(gpu, settings.performance_mode)[0]
    encoder = not architecture.keeps_cache and settings.max_num_batched_tokens > 0
    if not (off or encoder) or tokens >= max_model_len:
        return []
    why = "engineArgs switch chunked prefill off" if off else f"{settings.model} reads its input at once"
    return [
        f"maxNumBatchedTokens: found {tokens}, less than the context length ({max_model_len}), and {why}; vLLM rejects that. Set maxNumBatchedTokens to at least {max_model_len}, or a smaller maxModelLen"
    ]


def _processes(settings: Settings) -> Iterator[str]:
    stages, copies = settings.pipeline_parallel_size, settings.data_parallel_size
    if stages > 1 and settings.gpu_count % (stages * copies):
        yield f"engineArgs: found --pipeline-parallel-size {stages}{f' with dataParallelSize {copies}' if copies > 1 else ''}, which does not divide gpuCount ({settings.gpu_count}). Set gpuCount to a multiple of {stages * copies}, or another --pipeline-parallel-size"
    executor = next(iter(engine_options(settings.engine_args).get("--distributed-executor-backend", ())), "mp")
    if executor == "ray":
        yield "engineArgs: found --distributed-executor-backend ray, but no Ray cluster runs beside the engine. Remove it"


def host_memory_problems(settings: Settings, instance_types: tuple[InstanceType, ...]) -> list[str]:
    """What engineArgs keep in the instance's memory must fit in the engine's container."""
    args = settings.engine_args
    weights = settings.cpu_offload_gib * settings.gpu_count
    cache = number(args, "--kv-offloading-size", 0.0)
    smallest = min(instance_types, key=lambda instance_type: instance_type.memory_gib)
    room = _HOST_MEMORY_SHARE * container_memory_gib(smallest)
    if weights + cache <= room:
        return []
    named = (
        [
            f"--cpu-offload-gb {settings.cpu_offload_gib:g} on {settings.gpu_count} GPU{'s' if settings.gpu_count > 1 else ''}"
        ]
        if weights
        else []
    )
    named += [f"--kv-offloading-size {cache:g}"] if cache else []
    return [
        f"engineArgs: {' and '.join(named)} would take {weights + cache:g} GiB of memory, and the engine may use {room:.0f} GiB for that on {smallest.name}. Set smaller values, or instanceTypes to a type with more memory"
    ]


def engine_argument_warnings(settings: Settings) -> list[str]:
    """What the plan cannot judge, or what costs more than it seems."""
    known, exact = known_arguments(settings.engine_image)
    found = []
    try:
        line = read(("model", *settings.engine_args), known)
    except CommandLineError:
        return []
    if line.unknown and not exact:
        names = ", ".join(words[0].partition("=")[0] for words in line.unknown)
        found.append(
            f"engineArgs: vLLM {known.version} does not have {names}; the engine starts only if engineImage's vLLM does"
        )
    old = [name for name in line.options if known.by_name[name].deprecated]
    if old:
        found.append(f"engineArgs: {', '.join(old)} is deprecated, and a later vLLM rejects it")
    if settings.cpu_offload_gib:
        found.append(
            f"engineArgs: --cpu-offload-gb {settings.cpu_offload_gib:g} reads that many GiB of weights over PCIe for every token: expect a fraction of the throughput. A GPU that holds the weights is usually cheaper per token"
        )
    if "--hf-overrides" in line.options and not json_object(settings.engine_args, "--hf-overrides"):
        found.append("engineArgs: --hf-overrides is not a JSON object, so the plan does not know what it changes")
    return found


def _plain(message: str) -> str:
    text = re.sub(r"^argument (--[\w-]+)(/\S+)?: ", r"\1: ", message)
    text = text.replace("expected one argument", "found no value. Set its value as the next item")
    text = text.replace("expected at least one argument", "found no value. Set its value as the next item")
    text = re.sub(
        r"ignored explicit argument '?(.*?)'?$", r"found the value \1, but it takes none. Remove the value", text
    )
    text = re.sub(r"unrecognized arguments: (.+)", r"found \1, which follows no argument. Remove it", text)
    text = re.sub(
        r"ambiguous option: (\S+) could match (.+)",
        r"found \1, which is the beginning of several arguments. Set one of \2",
        text,
    )
    return text if "Set " in text or "Remove " in text else f"{text}. Remove it, or set another value"


def _ended(problem: str) -> str:
    return problem if problem.endswith("?") else f"{problem}."


def _short(text: str, *, quote: bool = True) -> str:
    text = text if text.isprintable() else ascii(text)[1:-1]
    text = text if len(text) <= 60 else text[:57] + "..."
    return repr(text) if quote else text
