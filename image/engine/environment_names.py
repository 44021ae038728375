"""Environment variables of other vLLM images, translated to arguments: which name means which argument, and which mean nothing.

RunPod's vLLM image accepts the name of each argument in upper case (`KV_CACHE_DTYPE`), and so does this one, except for what the
container itself decides.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Iterator, Mapping

from image.engine.argument_list import Argument, ArgumentList

ALIASES = {
    "MODEL_REVISION": "--revision", "TOKENIZER_NAME": "--tokenizer", "OPENAI_SERVED_MODEL_NAME_OVERRIDE": "--served-model-name",
    "CUSTOM_CHAT_TEMPLATE": "--chat-template", "OPENAI_RESPONSE_ROLE": "--response-role",
}  # fmt: skip
"""Names that differ from their argument's."""
MODEL_NAMES = ("MODEL_NAME", "VLLM_MODEL_NAME", "MODEL")
CONFIG_FILE, EXTRA_ARGUMENTS, TASK = "VLLM_CONFIG_FILE", "VLLM_EXTRA_ARGS", "TASK"
TASKS = {
    "auto": (), "generate": ("--runner", "generate"), "embed": ("--runner", "pooling", "--convert", "embed"),
    "embedding": ("--runner", "pooling", "--convert", "embed"), "classify": ("--runner", "pooling", "--convert", "classify"),
    "score": ("--runner", "pooling", "--convert", "classify"), "reward": ("--runner", "pooling", "--convert", "reward"),
}  # fmt: skip
"""The arguments that replaced `--task`."""
# Set by Kubernetes, torchrun or the container itself, or decided by it: the address it listens on, keys, TLS, several machines.
_OWN = re.compile(
    r"--(model|config|host|port|uds|api-key|hf-token|root-path|ssl-\w+|headless|grpc(-\w+)?|nnodes|node-rank|master-(addr|port)|log-level"
    r"|allow(ed)?-(credentials|origins|methods|headers)|middleware|plugins|shutdown-timeout|device-ids|data-parallel-(?!size$)\S+)"
)
# Names of other images that have no counterpart: what to set instead, if anything.
NO_EFFECT = {
    "MAX_CONCURRENCY": "GATEWAY_CONCURRENCY_PER_REPLICA", "RAW_OPENAI_OUTPUT": "", "BASE_PATH": "HF_HOME",
    "DEFAULT_BATCH_SIZE": "", "DEFAULT_MIN_BATCH_SIZE": "", "DEFAULT_BATCH_SIZE_GROWTH_FACTOR": "",
    "DISABLE_LOG_REQUESTS": "ENABLE_LOG_REQUESTS", "SWAP_SPACE": "", "WORKER_USE_RAY": "", "DEVICE": "ENGINE_DEVICE",
    "MAX_CONTEXT_LEN_TO_CAPTURE": "COMPILATION_CONFIG", "MAX_SEQ_LEN_TO_CAPTURE": "COMPILATION_CONFIG",
    "CUDA_GRAPH_SIZES": "CUDAGRAPH_CAPTURE_SIZES", "GUIDED_DECODING_BACKEND": "STRUCTURED_OUTPUTS_CONFIG",
    "SPECULATIVE_MODEL": "SPECULATIVE_CONFIG", "SPECULATIVE_METHOD": "SPECULATIVE_CONFIG",
    "NUM_SPECULATIVE_TOKENS": "SPECULATIVE_CONFIG", "NGRAM_PROMPT_LOOKUP_MAX": "SPECULATIVE_CONFIG",
    "NGRAM_PROMPT_LOOKUP_MIN": "SPECULATIVE_CONFIG", "ROPE_SCALING": "HF_OVERRIDES", "ROPE_THETA": "HF_OVERRIDES",
    "NUM_LOOKAHEAD_SLOTS": "", "PREEMPTION_MODE": "", "SCHEDULER_DELAY_FACTOR": "", "USE_V2_BLOCK_MANAGER": "",
    "TOKENIZER_POOL_SIZE": "", "TOKENIZER_POOL_TYPE": "", "QUANTIZATION_PARAM_PATH": "", "ENABLE_PROMPT_ADAPTER": "",
    "LORA_EXTRA_VOCAB_SIZE": "", "LONG_LORA_SCALING_FACTORS": "", "QLORA_ADAPTER_NAME_OR_PATH": "", "ENABLE_REASONING": "REASONING_PARSER",
    "VLLM_STARTUP_TIMEOUT": "", "REQUEST_TIMEOUT": "GATEWAY_REQUEST_TIMEOUT_NONSTREAM_SECONDS", "MODEL_ID": "MODEL_NAME",
    "HF_MODEL_ID": "MODEL_NAME", "NUM_GPU": "TENSOR_PARALLEL_SIZE", "VLLM_ATTENTION_BACKEND": "ATTENTION_BACKEND", "VLLM_MODEL": "MODEL_NAME",
    "VLLM_MODEL_ID": "MODEL_NAME", "VLLM_HOST": "", "VLLM_SERVE_ARGS": "VLLM_EXTRA_ARGS", "VLLM_ARGS": "VLLM_EXTRA_ARGS",
    "VLLM_ENGINE_ARGS": "VLLM_EXTRA_ARGS", "EXTRA_VLLM_ARGS": "VLLM_EXTRA_ARGS", "EXTRA_ARGS": "VLLM_EXTRA_ARGS", "MODEL_PATH": "MODEL_NAME",
}  # fmt: skip
WITHOUT_EFFECT = "environment: these variables have no effect here: "
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


class VariableError(ValueError):
    """A variable's value is not what its argument accepts; the message is one line."""


def argument_names(known: ArgumentList) -> dict[str, str]:
    """Each variable that means an argument, and the argument's name."""
    generic = {name[2:].upper().replace("-", "_"): name for name in known.arguments if not _OWN.fullmatch(name)}
    return generic | {alias: name for alias, name in ALIASES.items() if name in known.arguments}


def words_of(variable: str, value: str, argument: Argument) -> list[str]:
    """The words of the command line that a variable means; none for a flag that is off by default.

    Raises:
        VariableError: vLLM would reject the value.
    """
    if argument.kind == "flag":
        if value.lower() in _TRUE:
            return [argument.name]
        if value.lower() not in _FALSE:
            raise VariableError(f"{variable}: found {value!r}; set true or false")
        return list(argument.negated[:1])
    values = _several(value) if argument.nargs == "+" else [value]
    for one in values:
        if problem := argument.problem(one):
            raise VariableError(f"{variable}: {problem}")
    return [argument.name, *values]


def task_words(value: str) -> tuple[str, ...]:
    """The arguments that a TASK means.

    Raises:
        VariableError: it is none that vLLM has.
    """
    if value.lower() not in TASKS:
        raise VariableError(f"{TASK}: found {value!r}; set one of {', '.join(TASKS)}")
    return TASKS[value.lower()]


def extra_words(value: str) -> list[str]:
    """The words of VLLM_EXTRA_ARGS, split as a shell does.

    Raises:
        VariableError: a quotation is not closed.
    """
    try:
        return shlex.split(value)
    except ValueError as error:
        raise VariableError(f"{EXTRA_ARGUMENTS}: {str(error).lower()}; close the quotation") from None


def without_effect(given: Mapping[str, str], known: ArgumentList, ours: frozenset[str]) -> str:
    """One line that names the variables which do nothing here; empty if there are none."""
    found = list(_without_effect(given, known, ours))
    return f"{WITHOUT_EFFECT}{', '.join(found)}" if found else ""


def _without_effect(given: Mapping[str, str], known: ArgumentList, ours: frozenset[str]) -> Iterator[str]:
    names = argument_names(known)
    for name in sorted(given):
        if name in ours:
            continue
        if name in NO_EFFECT:
            instead = NO_EFFECT[name]
            yield f"{name} (set {instead})" if instead else name
        elif name.startswith("VLLM_") and name not in known.environment and not _from_kubernetes(name):
            bare = name.removeprefix("VLLM_")
            close = difflib.get_close_matches(name, known.environment | ours, n=1, cutoff=0.85)
            instead = bare if bare in names else next(iter(close), "")
            yield f"{name} (set {instead})" if instead else name


def _from_kubernetes(name: str) -> bool:
    """Kubernetes describes a Service named vllm in variables such as VLLM_SERVICE_HOST and VLLM_PORT_8000_TCP."""
    return bool(re.fullmatch(r"VLLM_\w*(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP))\w*", name))


def _several(value: str) -> list[str]:
    if value.startswith("["):
        try:
            items = json.loads(value)
        except ValueError:
            return [value]
        return [item if isinstance(item, str) else json.dumps(item) for item in items]
    return [value] if value.startswith("{") else [part for part in re.split(r"[,\s]+", value) if part]
