"""Finds the Hub models in vLLM's arguments, and replaces their names with the folders of their files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from image.engine.arguments import last_value
from image.engine.s3 import SCHEME
from image.engine.weights import Repository

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISIONS = ("--revision", "--tokenizer-revision", "--code-revision")


def is_hub_id(name: str) -> bool:
    """Whether it is the name of a Hub model rather than a folder or an object store's URL."""
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()


def is_in_s3(name: str) -> bool:
    """Whether it is a folder in S3, which is downloaded as a Hub model is."""
    return name.startswith(SCHEME)


def repositories(arguments: Sequence[str]) -> list[Repository]:
    """The models that these arguments of ``vllm serve`` need: the main one, then tokenizer, draft model and LoRA adapters."""
    revision = last_value(arguments, "--revision") or "main"
    mistral = _mistral(last_value(arguments, "--load-format"))
    named: list[tuple[str, str, str]] = []
    if isinstance(config := _json(last_value(arguments, "--speculative-config")), dict):
        named.append((str(config.get("model", "")), str(config.get("revision") or "main"), "model"))
    named += [(path, "main", "weights") for path in _adapters(arguments)]
    main = Repository(arguments[0], revision, mistral)
    if tokenizer := last_value(arguments, "--tokenizer"):
        named.insert(0, (tokenizer, last_value(arguments, "--tokenizer-revision") or revision, ""))
    others = [
        Repository(name, commit, needs=needs)
        for name, commit, needs in named
        if (name, commit) != (main.name, main.revision)
    ]
    return list(dict.fromkeys(one for one in (main, *others) if is_hub_id(one.name) or is_in_s3(one.name)))


def _mistral(load_format: str | None) -> bool | None:
    """Whether Mistral's layout is loaded; None: vLLM decides."""
    return None if load_format in (None, "auto") else load_format == "mistral"


def localized(arguments: Sequence[str], folders: Mapping[Repository, Path]) -> list[str]:
    """The arguments with each model's name replaced by its folder; the served name does not change."""
    by_name = {repository.name: str(folder) for repository, folder in folders.items()}
    if not by_name:
        return list(arguments)
    told = [by_name.get(arguments[0], arguments[0])]
    flag = ""
    skip = False
    for word in arguments[1:]:
        if word.startswith("--"):
            flag, separator, value = word.partition("=")
            skip = flag in _REVISIONS and told[0] != arguments[0]  # the folder contains one commit
            if not skip:
                told.append(f"{flag}={_replaced(flag, value, by_name)}" if separator else word)
        elif not skip:
            told.append(_replaced(flag, word, by_name))
    if told[0] != arguments[0] and not any(word.partition("=")[0] == "--served-model-name" for word in arguments):
        told += ["--served-model-name", arguments[0]]
    return told


def _replaced(flag: str, value: str, by_name: Mapping[str, str]) -> str:
    if flag == "--tokenizer":
        return by_name.get(value, value)
    if flag == "--speculative-config" and isinstance(config := _json(value), dict) and config.get("model") in by_name:
        return json.dumps(
            {name: v for name, v in config.items() if name != "revision"} | {"model": by_name[config["model"]]}
        )
    if flag == "--lora-modules":
        if isinstance(adapter := _json(value), dict):
            path = str(adapter.get("path", ""))
            return json.dumps(adapter | {"path": by_name[path]}) if path in by_name else value
        name, _, path = value.partition("=")
        return f"{name}={by_name[path]}" if path in by_name else value
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
