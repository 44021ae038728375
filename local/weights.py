"""Decides whether this machine can download and run the model's own weights, and downloads them."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from image.engine.hub import TokenRedirect
from image.engine.models import localized, repositories
from image.engine.s3 import is_in_s3
from image.engine.weights import Repository, known
from infra.planning.plan import ServingPlan
from infra.web_address import open_url
from local import folders
from local.failures import reason
from local.machine import Machine, free_gib
from local.processes import run
from local.progress import Progress

HUB = "https://huggingface.co"
HUB_TIMEOUT_SECONDS = 4.0
DOWNLOAD_TIMEOUT_SECONDS = 4 * 3600.0
COMPLETE = ".complete"
DOWNLOAD = "local.download"
SPARE_DISK_GIB = 2.0
SMALL_MODEL = "Qwen/Qwen3-0.6B"
"""The model used if the stack's is too large for the machine: 1.4 GiB, no licence to accept, real text."""
# Each token requires reading all weights. A core reads about 5 GB/s, so larger models would be slower than reading
# speed.
GIB_PER_CPU_CORE = 1.0
SHARE_OF_GPU_MEMORY = 0.85  # the rest is for activations and a useful KV cache


def folder_of(model: str, revision: str) -> Path:
    """The folder of a model's files, which may not exist yet."""
    if Path(model).is_dir():
        return Path(model).resolve()
    name = "--".join([*model.split("/"), revision or "main"])
    return folders.MODELS / name.replace("/", "-")


def is_here(model: str, revision: str) -> bool:
    """Whether all files of a model are on this machine."""
    return Path(model).is_dir() or (folder_of(model, revision) / COMPLETE).exists()


def _others(plan: ServingPlan, arguments: Sequence[str]) -> list[Repository]:
    """The other models that vLLM's arguments name: draft model, tokenizer, LoRA adapters."""
    main = (plan.model, plan.model_revision or "main")
    found = repositories([main[0], "--revision", main[1], *arguments])
    return [one for one in found if (one.name, one.revision) != main]


def others_are_here(plan: ServingPlan, arguments: Sequence[str]) -> bool:
    """Whether the other models that vLLM's arguments name are on this machine."""
    return all(known(one, _hub_home() / "hub") for one in _others(plan, arguments))


def with_folders(plan: ServingPlan, arguments: Sequence[str]) -> list[str]:
    """The arguments with the folder of each other model that is on this machine instead of its name."""
    found = [known(one, _hub_home() / "hub") for one in _others(plan, arguments)]
    return localized([plan.model, *arguments], {one.repository: one.folder for one in found if one})[1:]


def problem(plan: ServingPlan, machine: Machine) -> str | None:
    """Why this machine cannot store or run the model, as a clause that follows "because"; None if it can."""
    weights = plan.engine.checkpoint_gib
    if machine.has_gpu:
        share = weights / len(machine.gpu_names)
        if share > SHARE_OF_GPU_MEMORY * machine.gpu_memory_gib:
            return f"its {weights:.1f} GiB of weights do not fit on {machine}"
    else:
        if plan.architecture.quantization:
            return f"its weights are {plan.architecture.quantization}, which needs a GPU"
        if weights > machine.memory_gib / 2:
            return f"its {weights:.1f} GiB of weights need more than half of the {machine.memory_gib:.0f} GiB of memory"
        if weights > GIB_PER_CPU_CORE * machine.cpu_cores:
            return f"its {weights:.1f} GiB of weights would answer too slowly on {machine.cpu_cores} CPU cores"
    if not is_here(plan.model, plan.model_revision) and free_gib(folders.STATE) < weights + SPARE_DISK_GIB:
        return f"its {weights:.1f} GiB of weights do not fit on the disk"
    return None


def hub_is_reachable(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the Hugging Face Hub responds."""
    endpoint = environment.get("HF_ENDPOINT") or HUB
    try:
        open_url(f"{endpoint}/", HUB_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def hub_problem(model: str, revision: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Why the model cannot be downloaded from the Hub, from a quick check; None if it can."""
    if is_in_s3(model):
        return "make local serves a model of the Hub or a folder, not one in S3"
    if model.startswith("/"):
        return "make local serves a model of the Hub or a folder, and this path exists in engineImage only"
    endpoint = environment.get("HF_ENDPOINT", HUB).rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        return f"HF_ENDPOINT is {endpoint}, which is not an http or https URL"
    request = urllib.request.Request(f"{endpoint}/{model}/resolve/{revision or 'main'}/config.json")  # noqa: S310
    if token := environment.get("HF_TOKEN"):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with open_url(request, HUB_TIMEOUT_SECONDS, TokenRedirect()) as answer:
            json.load(answer)
    except urllib.error.HTTPError as error:
        told: dict[int, str] = {
            401: "it is not on the Hub, or it is gated and HF_TOKEN is not set",
            403: "it is gated and HF_TOKEN has no access to it",
            404: "it is not on the Hub",
        }
        return told.get(error.code, f"the Hub returned {error.code}")
    except (OSError, ValueError):
        return "the Hugging Face Hub cannot be reached"
    return None


def hub_environment(plan: ServingPlan) -> dict[str, str]:
    """This machine's environment, with the stack's mirror of the Hub if it has one."""
    mirror = plan.engine.environment.get("HF_ENDPOINT", "")
    return {**os.environ, **({"HF_ENDPOINT": mirror} if mirror else {})}


def fetch(plan: ServingPlan, python: Path, progress: Progress, arguments: Sequence[str] = ()) -> str | None:
    """Download the model's files, and those of the models that vLLM's arguments name.

    Returns:
        The reason if that failed, or None.
    """
    folder = folder_of(plan.model, plan.model_revision)
    home = _hub_home()
    coming = Repository(plan.model).folder(home / "hub") / "blobs"
    before = _size_gib(coming)
    wanted = plan.engine.checkpoint_gib

    def tick() -> None:
        progress.detail(f"downloading {plan.model}: {_size_gib(coming):.1f} of about {wanted:.1f} GiB")

    progress.say(
        f"Downloading {max(0.0, wanted - before):.1f} GiB of weights of {plan.model}; to skip, press Ctrl-C and set WEIGHTS=stand-in"
    )
    command: list[str | Path] = [python, "-m", DOWNLOAD, plan.model, plan.model_revision or "main", folder]
    command += arguments
    variables = {**hub_environment(plan), "HF_HOME": str(home)}
    log = folders.LOGS / "download.log"
    code, output = run("download", command, log, tick, DOWNLOAD_TIMEOUT_SECONDS, variables, folders.ROOT)
    if code != 0:
        return f"the download failed: {reason(output, code)}"
    if not Path(plan.model).is_dir():
        (folder / COMPLETE).touch()
    return None


def _hub_home() -> Path:
    return folders.CACHE / "huggingface"


def _size_gib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1024**3


def read_config(folder: Path) -> Mapping[str, Any]:
    """The config.json of a model in a folder."""
    return dict(json.loads((folder / "config.json").read_text()))
