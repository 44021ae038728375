"""Finds the Hub models in vLLM's arguments, and replaces their names with the folders of their files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from image.engine.arguments import last_value
from image.engine.s3 import is_in_s3
from image.engine.weights import Repository

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_QUANTIZED = re.compile(rf"{_HUB_ID.pattern}:[\w.-]+")  # one file of a GGUF repository, which vLLM downloads itself
# A folder contains one commit. --code-revision stays: the code may come from another repository.
_REVISIONS = ("--revision", "--tokenizer-revision")

# How to set the revision of each model but the main one.
_REVISION_SETTINGS = {
    "--tokenizer": "--tokenizer-revision", "speculative": "revision in the JSON object of speculative",
    "loraAdapters": "NAME=HUB_ID@REVISION in loraAdapters",
}  # fmt: skip


def is_hub_id(name: str) -> bool:
    """Whether it is the name of a Hub model rather than a folder or an object store's URL."""
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()


def repositories(arguments: Sequence[str]) -> list[Repository]:
    """The models that these arguments of ``vllm serve`` need: the main one, then tokenizer, draft model and LoRA adapters."""
    main = _main(arguments)
    others = [
        one
        for one in (_tokenizer(arguments), _draft(arguments), *map(_adapter, _adapters(arguments)))
        if one and _key(one) != _key(main)
    ]
    return list(dict.fromkeys(one for one in (main, *others) if is_hub_id(one.name) or is_in_s3(one.name)))


def in_its_terms(repository: Repository, line: str) -> str:
    """A line about a model, with the settings of what names it instead of those of the main model."""
    if repository.setting not in _REVISION_SETTINGS:
        return line
    line = re.sub(r"\b(set|check) model\b", rf"\1 {repository.setting}", line)
    return line.replace("modelRevision", _REVISION_SETTINGS[repository.setting])


def names_on_hub(arguments: Sequence[str]) -> list[str]:
    """The names in localized arguments that vLLM itself looks up on the Hub, such as one file of a GGUF repository."""
    config = _json(last_value(arguments, "--speculative-config"))
    draft = [str(config.get(key) or "") for key in ("model", "tokenizer")] if isinstance(config, dict) else []
    sure = (arguments[0], last_value(arguments, "--tokenizer"), last_value(arguments, "--hf-config-path"))
    perhaps = (*draft, last_value(arguments, "--generation-config"), *_adapters(arguments))
    return [name for name in sure if name and not Path(name).exists()] + [
        name for name in perhaps if name and (is_hub_id(name) or _QUANTIZED.fullmatch(name))
    ]


def _main(arguments: Sequence[str]) -> Repository:
    revision = last_value(arguments, "--revision") or "main"
    return Repository(arguments[0], revision, _mistral(last_value(arguments, "--load-format")))


def _tokenizer(arguments: Sequence[str]) -> Repository | None:
    """The tokenizer's repository; None if it is the model's, at the same revision."""
    revision = last_value(arguments, "--revision") or "main"
    name, at = last_value(arguments, "--tokenizer"), last_value(arguments, "--tokenizer-revision") or revision
    if not name and at == revision:
        return None
    return Repository(name or arguments[0], at, needs="", setting="--tokenizer")


def _draft(arguments: Sequence[str]) -> Repository | None:
    config = _json(last_value(arguments, "--speculative-config"))
    return _of_config(config) if isinstance(config, dict) else None


def _of_config(config: Mapping[str, object]) -> Repository:
    return Repository(str(config.get("model", "")), str(config.get("revision") or "main"), setting="speculative")


def _adapter(path: str) -> Repository:
    """The repository of an adapter, ``HUB_ID`` or ``HUB_ID@REVISION``."""
    name, _, revision = path.partition("@")
    if revision and is_hub_id(name) and not Path(path).exists():
        return Repository(name, revision, needs="weights", setting="loraAdapters")
    return Repository(path, needs="weights", setting="loraAdapters")


def _key(repository: Repository) -> tuple[str, str]:
    return repository.name, repository.revision


def _mistral(load_format: str | None) -> bool | None:
    """Whether Mistral's layout is loaded; None: vLLM decides."""
    return None if load_format in (None, "auto") else load_format == "mistral"


def localized(arguments: Sequence[str], folders: Mapping[Repository, Path]) -> list[str]:
    """The arguments with each model's name replaced by its folder; the served name does not change."""
    places = {_key(repository): str(folder) for repository, folder in folders.items()}
    if not places:
        return list(arguments)
    model = places.get(_key(_main(arguments)), arguments[0])
    tokenizer = _tokenizer(arguments)
    told, flag, skip = [model], "", False
    for word in arguments[1:]:
        if word.startswith("--"):
            flag, separator, value = word.partition("=")
            skip = flag in _REVISIONS and model != arguments[0]
            if not skip:
                told.append(f"{flag}={_replaced(flag, value, places, tokenizer)}" if separator else word)
        elif not skip:
            told.append(_replaced(flag, word, places, tokenizer))
    if tokenizer and last_value(arguments, "--tokenizer") is None and _key(tokenizer) in places:
        told += ["--tokenizer", places[_key(tokenizer)]]  # of the model's repository, at a revision of its own
    if model != arguments[0] and not any(word.partition("=")[0] == "--served-model-name" for word in arguments):
        told += ["--served-model-name", arguments[0]]
    return told


def _replaced(flag: str, value: str, places: Mapping[tuple[str, str], str], tokenizer: Repository | None) -> str:
    if flag == "--tokenizer" and tokenizer and value == tokenizer.name:
        return places.get(_key(tokenizer), value)
    if flag == "--speculative-config" and isinstance(config := _json(value), dict):
        place = places.get(_key(_of_config(config)))
        rest = {name: v for name, v in config.items() if name != "revision"}
        return json.dumps(rest | {"model": place}) if place else value
    if flag == "--lora-modules":
        if isinstance(adapter := _json(value), dict):
            place = places.get(_key(_adapter(str(adapter.get("path", "")))))
            return json.dumps(adapter | {"path": place}) if place else value
        name, _, path = value.partition("=")
        place = places.get(_key(_adapter(path)))
        return f"{name}={place}" if place else value
    return value


def _adapters(arguments: Sequence[str]) -> Iterator[str]:
    flag = ""
    for word in arguments[1:]:
        value = word
        if word.startswith("--"):
            flag, _, value = word.partition("=")
        if flag == "--lora-modules" and value:
            adapter = _json(value)
            yield str(adapter.get("path", "")) if isinstance(adapter, dict) else value.partition("=")[2]


def _json(text: str | None) -> object:
    try:
        return json.loads(text or "null")
    except ValueError:
        return None
