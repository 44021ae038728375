"""Chooses vLLM's reasoning parser, tool call parser and tokenizer for a model.

Without a reasoning parser, the text before ``</think>`` is returned as part of the answer. A wrong one is worse: the parser
takes the whole answer of a model that does not reason for its reasoning. So a parser is chosen only if the name of the model
names a known family, or if every model of its model_type reasons.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.engine_options import engine_options
from infra.planning.catalog.models import ModelArchitecture
from infra.settings import Settings

NONE, AUTO = "none", "auto"
_CATALOG = Path(__file__).parent / "catalog"
_FAMILIES, _REGISTRY = _CATALOG / "families.json", _CATALOG / "parsers.json"
# Models for which no parser applies: they have no chat template, or do not generate text.
_NO_CHAT = re.compile(r"(^|[-_.])(base|pretrained|pt|asr|tts|ocr)($|[-_.])|guard|embed|rerank|reward", re.IGNORECASE)


@dataclass(frozen=True)
class Parsers:
    """The parsers of a model; an empty value means vLLM's default.

    Attributes:
        reasoning: the value of ``--reasoning-parser``.
        tool_call: the value of ``--tool-call-parser``.
        tokenizer_mode: the value of ``--tokenizer-mode``.
        format: the value of ``--config-format`` and ``--load-format``.
        thinking: the argument of the chat template (``chat_template_kwargs`` of a request) that switches reasoning on or off.
    """

    reasoning: str = ""
    tool_call: str = ""
    tokenizer_mode: str = ""
    format: str = ""
    thinking: str = ""


@functools.cache
def families() -> dict[str, Any]:
    """The data of families.json."""
    return dict(json.loads(_FAMILIES.read_text()))


@functools.cache
def registry(version: str) -> dict[str, tuple[str, ...]]:
    """The names that a version of vLLM registers: ``reasoning``, ``tool_call`` and ``tokenizer_modes``."""
    return {kind: tuple(names) for kind, names in json.loads(_REGISTRY.read_text())[version].items()}


def known_versions() -> tuple[str, ...]:
    """The versions of vLLM whose names are known."""
    return tuple(name for name in json.loads(_REGISTRY.read_text()) if not name.startswith("_"))


def family_of(model: str, model_type: str) -> tuple[dict[str, Any], bool]:
    """The family of a model, empty if it is unknown, and whether the model's name names it.

    Args:
        model: Hub id, ``s3://`` address or path. The last part that names a family counts.
        model_type: of its config.json; empty if it is not known.
    """
    parts = [part for part in model.lower().split("/") if part]
    if not parts or _NO_CHAT.search(parts[-1]):
        return {}, False
    for part in reversed(parts):
        for family in families()["families"]:
            types = family.get("model_types", ())
            if re.search(family["names"], part) and (not model_type or not types or model_type in types):
                return family, True
    wanted = families()["types"].get(model_type, "")
    return next((family for family in families()["families"] if family["family"] == wanted), {}), False


def parsers_of(settings: Settings, architecture: ModelArchitecture) -> Parsers:
    """The parsers of a stack's model: those that are set, else those of the model's family."""
    if architecture.kind != "generate":
        return Parsers()
    family, named = family_of(settings.model, architecture.model_type)
    if not named and settings.base_model:
        family, named = family_of(settings.base_model, architecture.model_type)
    certain = named or architecture.model_type not in families()["may_reason"]
    reasoning = _chosen(settings.reasoning_parser, family.get("reasoning_parser", "") if certain else "")
    # Only the publisher's own repository is known to have the files of its own format, and not its conversions (-GGUF, -BF16).
    published = re.fullmatch(rf"{family.get('publisher', '-')}/[\w.-]+-\d{{4}}", settings.model.lower())
    own = family.get("format", "") if published else ""
    mode = _chosen(settings.tokenizer_mode, family.get("tokenizer_mode", "") or own)
    return Parsers(
        reasoning=reasoning,
        tool_call=_chosen(settings.tool_call_parser, family.get("tool_call_parser", "")),
        tokenizer_mode=mode,
        format=mode if own and mode in (own, "hf") else "",  # tokenizer, config and weights of one format
        thinking=family.get("thinking", "") if reasoning else "",
    )


def _chosen(setting: str, automatic: str) -> str:
    if setting in ("", AUTO):
        return automatic
    return "" if setting == NONE else setting


def parser_arguments(parsers: Parsers, given: Sequence[str]) -> list[str]:
    """The arguments of ``vllm serve`` for these parsers, without those that the user's own arguments contain."""
    flags = {
        "--reasoning-parser": parsers.reasoning,
        "--tokenizer-mode": parsers.tokenizer_mode,
        "--config-format": parsers.format,
        "--load-format": parsers.format,
        "--enable-auto-tool-choice": "",  # vLLM rejects it without a parser
        "--tool-call-parser": parsers.tool_call,
    }
    if not parsers.tool_call:
        del flags["--enable-auto-tool-choice"]
    theirs = {word.partition("=")[0].replace("_", "-") for word in given}
    if theirs & {"--config-format", "--load-format"}:  # one format for both
        theirs |= {"--config-format", "--load-format"}
    return [
        word
        for flag, value in flags.items()
        if (value or flag == "--enable-auto-tool-choice") and flag not in theirs
        for word in ((flag, value) if value else (flag,))
    ]


def parser_problems(settings: Settings, version: str) -> list[str]:
    """The parsers and the tokenizer mode that a version of vLLM does not have, and no plugin of engineArgs adds."""
    found = []
    options = engine_options(settings.engine_args)
    for key, value, kind, plugin in (
        ("reasoningParser", settings.reasoning_parser, "reasoning", "--reasoning-parser-plugin"),
        ("toolCallParser", settings.tool_call_parser, "tool_call", "--tool-parser-plugin"),
        ("tokenizerMode", settings.tokenizer_mode, "tokenizer_modes", ""),
    ):
        names = registry(version)[kind]
        if value in ("", AUTO, NONE, *names) or plugin in options:
            continue
        near = difflib.get_close_matches(value.lower(), names, n=3, cutoff=0.6) or list(names)
        found.append(f"{key}: found {value}, which vLLM {version} does not have. Set {' or '.join(near)}, or none")
    return found


def parser_warnings(settings: Settings, architecture: ModelArchitecture) -> list[str]:
    """A line if the model may reason, but nothing says whether it does."""
    parser = families()["may_reason"].get(architecture.model_type, "")
    if settings.reasoning_parser or not parser or architecture.kind != "generate":
        return []
    if _NO_CHAT.search(settings.model) or any(
        family_of(model, architecture.model_type)[1] for model in (settings.model, settings.base_model)
    ):
        return []
    return [
        f"reasoningParser: {settings.model} names no known family, and some models of its type ({architecture.model_type}) reason. "
        f"If its answers contain </think>, set reasoningParser: {parser}; if not, set none"
    ]
