"""Prepares vLLM's start from arguments and environment: checks, weights, compile cache. Starts no process."""

from __future__ import annotations

import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from image.engine.arguments import EngineError, Launch, last_value
from image.engine.checks import Machine, check_machine
from image.engine.compile_cache import CompileCache, restore
from image.engine.gpus import by_index, check_weights_fit
from image.engine.hub import Hub
from image.engine.identity import compiled_for, folder_state, has_bytecode, machine, software
from image.engine.models import in_its_terms, localized, names_on_hub, repositories
from image.engine.patience import limit_seconds
from image.engine.s3 import S3, is_in_s3
from image.engine.staging import stage
from image.engine.watcher import Watch
from image.engine.weights import Repository, Weights, cache_folder, ensure, known

# The subfolder of each of vLLM's compilers, below the folder of compiled files.
COMPILED = {
    "VLLM_CACHE_ROOT": "vllm",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "CUDA_CACHE_PATH": "cuda",
}
LOCAL = "vllm-endpoint"
# These shrink the weights during loading or keep part of them off the GPU, so the size on disk is not a valid check.
_SHRINKING = ("--quantization", "-q", "--cpu-offload-gb", "--hf-overrides")
_YES = ("1", "true", "yes", "on")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Start:
    """How to start vLLM, and what to cache once it is ready."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    watch: Watch | None


def prepare(launch: Launch, tell: Tell, *, began: float | None = None) -> Start:
    """Check the machine, download the weights, restore the compile cache.

    Args:
        launch: the requested start.
        tell: logs a line.
        began: time.monotonic() of the container's start.

    Raises:
        EngineError: the engine cannot start.
    """
    began = time.monotonic() if began is None else began
    seconds: dict[str, float] = {}

    def done(phase: str) -> None:
        seconds[phase] = max(0.0, round(time.monotonic() - began - sum(seconds.values()), 2))

    for line in launch.notes:
        tell(line)
    found = check_machine(launch)
    for line in found.lines:
        tell(line)
    done("checks")
    weights = fetch(launch, found, tell)
    done("weights")
    folders = {one.repository: one.folder for one in weights}
    if disk := launch.environment.get("ENGINE_STAGE"):
        folders |= {one.repository: stage(one, Path(disk), found.memory_gib, tell) for one in weights[:1]}
        done("staging")
    arguments = localized(launch.arguments, folders)
    environment = dict(launch.environment) | by_index(found.gpus, launch.environment)
    if weights and "--trust-remote-code" not in arguments and not names_on_hub(arguments):
        # Remote code may come from another repository.
        environment.setdefault("HF_HUB_OFFLINE", "1")
    watch = _kept(launch, found, weights, arguments, environment, tell, began)
    done("compile cache")
    tell(f"ledger: {json.dumps(seconds)}")
    return Start(tuple(arguments), environment, watch)


def fetch(launch: Launch, found: Machine | None, tell: Tell, *, ask: bool = False) -> list[Weights]:
    """Download the weights of every model in the arguments, unless vLLM itself downloads them.

    Args:
        launch: the requested start.
        found: the machine that will load them; None if it is another machine.
        tell: logs a line.
        ask: ask the Hub for a newer commit.

    Raises:
        EngineError: the download failed.
    """
    environment, arguments = launch.environment, launch.arguments
    if last_value(arguments, "--load-format") == "dummy" or last_value(arguments, "--download-dir"):
        return []  # vLLM downloads it
    if environment.get("VLLM_USE_MODELSCOPE", "").lower() in _YES:
        return []  # another hub
    cache = cache_folder(environment)
    if environment.get("HF_HUB_OFFLINE", "").lower() in _YES:  # use the files that are there
        return [weights for one in repositories(arguments) if (weights := known(one, cache))]
    token = last_value(arguments, "--hf-token") or ""  # as for vLLM, it takes precedence over HF_TOKEN
    hub = Hub({**environment, "HF_TOKEN": token} if token and not token.startswith("-") else environment)
    # A plan has counted the weights as loaded, such as 32-bit files in 16 bits; the files alone would say less.
    planned = bool(environment.get("ENGINE_PLAN_KEY"))
    shrinks = planned or any(argument.partition("=")[0] in _SHRINKING for argument in arguments)

    def admit(size_bytes: int) -> None:
        if found and found.gpus and not shrinks:
            check_weights_fit(found.gpus, launch.gpus, launch.gpu_memory_utilization, size_bytes)

    models = repositories(arguments)
    main = [one for one in models if one.name == arguments[0]]
    limit = limit_seconds(environment)

    def ensured(one: Repository) -> Weights:
        client = S3() if is_in_s3(one.name) else hub
        try:
            return ensure(
                one,
                cache,
                client,
                lambda line: tell(in_its_terms(one, line)),
                ask=ask,
                admit=admit if one in main else None,
                limit_seconds=limit,
            )
        except EngineError as error:
            raise EngineError(in_its_terms(one, str(error))) from None

    return [ensured(one) for one in models]


def _kept(
    launch: Launch,
    found: Machine,
    weights: list[Weights],
    arguments: list[str],
    environment: dict[str, str],
    tell: Tell,
    began: float,
) -> Watch | None:
    """Restore the compile cache and set the environment so that vLLM uses it."""
    store = environment.get("ENGINE_CACHE")
    if not store or not launch.keeps_cache:
        return None
    local = _local_folder(tell)
    if local is None:
        return None
    installed = software(environment)
    kinds: list[CompileCache] = []
    if not (has_bytecode() or "PYTHONPYCACHEPREFIX" in environment):
        kinds.append(CompileCache("bytecode", Path(store), local / "bytecode", installed))
        environment["PYTHONPYCACHEPREFIX"] = str(local / "bytecode")
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if "VLLM_CACHE_ROOT" in environment:
        tell("VLLM_CACHE_ROOT is set: vLLM compiles there, in place, and nothing is cached in ENGINE_CACHE")
    else:
        model = json.dumps(_model_state(launch.arguments[0], weights))
        depends_on = compiled_for(
            installed, machine([gpu.identity for gpu in found.gpus]), model, arguments, environment
        ) | {"folder": str(local)}  # compiled code contains its own paths
        kinds.append(CompileCache("compiled", Path(store), local / "compiled", depends_on))
        environment |= {name: str(local / "compiled" / folder) for name, folder in COMPILED.items()}
    kept = []
    for one in kinds:
        restored = restore(one)
        for note in restored.notes:
            tell(f"compile cache: {note}")
        kept.append((one, restored.files))
    marker = environment.get("ENGINE_PLAN_KEY")
    health = f"http://127.0.0.1:{launch.port}/health"
    return Watch(health, kept, prewarm_marker(Path(store), marker) if marker else None, began)


def _local_folder(tell: Tell) -> Path | None:
    """This user's folder for compiled files. Its path is a part of compiled code, so it is the same for each start."""
    parent = Path(tempfile.gettempdir())
    problem: OSError | None = None
    for name in (LOCAL, f"{LOCAL}-{os.getuid()}"):
        folder = parent / name
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
            if status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode) and os.access(folder, os.W_OK | os.X_OK):
                return folder
        except OSError as error:
            problem = error
    reason = problem.strerror if problem else "it belongs to another user"
    tell(
        f"compile cache: {parent / LOCAL} cannot be used ({reason}); nothing is cached: set TMPDIR to a folder of your own"
    )
    return None


def prewarm_marker(store: Path, plan_key: str) -> Path:
    """A marker file: a start with this plan has cached its compiled files."""
    return store / "warm" / plan_key


def _model_state(model: str, weights: list[Weights]) -> list[list[str]]:
    if not weights and Path(model).is_dir():
        return [[model, folder_state(Path(model))]]
    return [[one.repository.name, one.commit] for one in weights] or [[model, "unknown"]]


def say(line: str) -> None:
    """A line of the log."""
    print(f"engine: {line}", flush=True)
