"""Reads what a model's repository says about its size and kind: config.json, the list of its files, and small files beside them."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from image.engine.hub import TokenRedirect
from image.engine.weight_files import indexed_bytes, select
from infra.planning.architecture.runners import SENTENCE_LENGTH, SENTENCE_TRANSFORMERS
from infra.web_address import open_url

HUB = "https://huggingface.co"
HUB_TIMEOUT_SECONDS = 5
UNUSABLE_ADVICE = "Set baseModel to a model with the same architecture, or another model"
WEIGHTS_BYTES = "weights_bytes"  # added to a config: the bytes of the files that vLLM loads
INDEX, QUANTIZATION, MODULES, LENGTH = (
    "model.safetensors.index.json",
    "hf_quant_config.json",
    "modules.json",
    "sentence_bert_config.json",
)
Read = Callable[[str], str]


class UnknownModelError(LookupError):
    """A model is not in the catalog, and its config.json cannot be read or is not usable.

    ``advice`` is what to set instead; empty: what helps with any model of the Hub.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


def folder_config(model: str) -> dict[str, Any]:
    """The config.json of a folder, with what its other files add.

    Raises:
        UnknownModelError: there is none, or it is not usable; contains the reason.
    """
    folder = Path(model)
    try:
        config = json.loads((folder / "config.json").read_text())
        sizes = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    except (OSError, ValueError, TypeError) as error:
        raise UnknownModelError(f"the folder {model} has no readable config.json ({error})") from None
    if not isinstance(config, dict):
        raise UnknownModelError(f"the config.json of {model} is not a JSON object")
    return completed(config, sizes, lambda name: (folder / name).read_text())


def hub_config(model: str, revision: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """The config.json of a repository on the Hub or its mirror, with what its other files add.

    Args:
        model: Hub id.
        revision: branch, tag or commit; empty: main.
        environment: HF_ENDPOINT and HF_TOKEN.

    Raises:
        UnknownModelError: it cannot be read; contains the reason, never the token.
    """
    endpoint = (environment.get("HF_ENDPOINT") or HUB).rstrip("/")
    if not endpoint.startswith(("https://", "http://")):
        raise UnknownModelError(f"HF_ENDPOINT is {endpoint}, not an http address")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model):
        raise UnknownModelError(f"{model[:60]!r} is not a Hub id such as org/name")
    at, token = quote(revision or "main", safe=""), environment.get("HF_TOKEN", "").strip()
    title = "the Hub" if endpoint == HUB else endpoint

    def read(name: str) -> str:
        return _text(f"{endpoint}/{model}/resolve/{at}/{name}", token, title)

    config = _parsed(read("config.json"))
    if not isinstance(config, dict):
        raise UnknownModelError("its config.json is not a JSON object", UNUSABLE_ADVICE)
    try:
        # The sizes are exact; without them the plan is an estimate.
        listing = _parsed(_text(f"{endpoint}/api/models/{model}/revision/{at}?blobs=true", token, title))
        sizes: dict[str, int | None] = {str(row["rfilename"]): _size(row) for row in listing["siblings"]}
    except (UnknownModelError, KeyError, TypeError, AttributeError):
        # A mirror may have the files without the API. Which of the small files exist is then found out by asking for them.
        asked = [INDEX, MODULES] + ([] if config.get("quantization_config") else [QUANTIZATION])
        sizes = dict.fromkeys(name for name in asked if _exists(read, name))
        if not sizes:
            return config
    return completed(config, sizes, read)


def completed(config: dict[str, Any], sizes: Mapping[str, int | None], read: Read) -> dict[str, Any]:
    """The config with the bytes of the weights, a quantization that is described in a file of its own, and Sentence Transformers' marks."""
    found = dict(config)
    files = select(sizes)
    weights = files.weight_bytes if files.weights else None
    if not weights and INDEX in sizes:
        weights = _tried(read, INDEX, indexed_bytes)
    if weights:
        found[WEIGHTS_BYTES] = weights
    if QUANTIZATION in sizes and not config.get("quantization_config"):
        given = _tried(read, QUANTIZATION, _parsed)
        if isinstance(given, dict):
            found["quantization_config"] = {"quant_method": "modelopt", **given}
    if MODULES in sizes:
        found[SENTENCE_TRANSFORMERS] = True
        limits = _tried(read, LENGTH, _parsed) if LENGTH in sizes else None
        if isinstance(limits, dict):
            found[SENTENCE_LENGTH] = limits.get("max_seq_length")
    return found


def _tried(read: Read, name: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(read(name))
    except (UnknownModelError, OSError, ValueError):
        return None


def _exists(read: Read, name: str) -> bool:
    return _tried(read, name, lambda text: True) is True


def _size(row: Mapping[str, Any]) -> int | None:
    size = row.get("size")
    return size if isinstance(size, int) and size >= 0 else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnknownModelError(f"the Hub's answer is not JSON ({error})") from None


def _text(address: str, token: str, title: str) -> str:
    request = urllib.request.Request(address)  # noqa: S310 - the caller checks the scheme
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with open_url(request, HUB_TIMEOUT_SECONDS, TokenRedirect()) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        error.close()
        missing = "hfToken has no access" if token else "is gated and needs hfToken (or HF_TOKEN in the environment)"
        reason = {
            401: f"it does not exist, or {missing}",
            403: f"it is gated: {missing}" if token else f"it {missing}",
            404: "it does not exist",
        }
        raise UnknownModelError(f"{title} returned {error.code}: {reason.get(error.code, error.reason)}") from None
    except (OSError, ValueError) as error:
        raise UnknownModelError(f"{title} cannot be reached ({getattr(error, 'reason', error)})") from None
