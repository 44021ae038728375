"""The arguments in ``engineArgs``, read as vLLM reads them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from image.engine.argument_list import argument_list
from image.engine.command_line import CommandLineError, read

_NO_OPTIONS: Mapping[str, tuple[str, ...]] = {}


@functools.lru_cache(maxsize=64)
def engine_options(engine_args: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Each argument in effect and its values; empty if vLLM would reject them, which the plan reports."""
    if not engine_args:
        return _NO_OPTIONS
    try:
        return read(("model", *engine_args), argument_list()).options
    except CommandLineError:
        return _NO_OPTIONS


def engine_words(engine_args: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments in one form: by their first long name, with a blank, the last occurrence only."""
    try:
        return tuple(read(("model", *engine_args), argument_list()).words()) if engine_args else ()
    except CommandLineError:
        return engine_args


def number(engine_args: tuple[str, ...], name: str, default: float) -> float:
    """The number that an argument sets; the default if it sets none."""
    try:
        value = float(engine_options(engine_args)[name][-1])
    except (KeyError, IndexError, ValueError):
        return default
    return value if 0 <= value < 1e9 else default


def json_object(engine_args: tuple[str, ...], name: str) -> dict[str, Any]:
    """The JSON object that an argument sets; empty if it sets none."""
    try:
        value = json.loads(engine_options(engine_args)[name][-1])
    except (KeyError, IndexError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
