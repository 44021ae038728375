"""vLLM's own arguments as data, by version: names, kinds of values, choices, bounds. Both the planner and the entrypoint read it.

``benchmarks/engine/engine_arguments.py`` writes the files from an installed vLLM.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("vllm_arguments")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
_SIZE_IN_JSON = re.compile(r"\b\d+(?:\.\d+)?[kKmMgGtT]\b")
_QUOTED = re.compile(r'("(?:[^"\\]|\\.)*")')
_EXPECTED = {"int": "a whole number", "float": "a number", "size": "a whole number, or one such as 16k",
             "size or auto": "a whole number, one such as 16k, or auto", "json": "JSON", "text or json": "JSON or text"}  # fmt: skip
_KIND_WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text", "list": "a list",
               "dict": "an object", "none": "null"}  # fmt: skip
_LEAST, _MOST = {"ge": "at least", "gt": "more than"}, {"le": "at most", "lt": "less than"}


@dataclass(frozen=True)
class Argument:
    """One argument of ``vllm serve``.

    ``name`` is its first long name, and ``negated`` are the names that switch a flag off. ``kind`` is how vLLM reads the value: flag (none), int, float, size (16k), json, str.
    ``nargs`` is argparse's. ``fields`` are the keys that a JSON value may have; None if it may have any.
    """

    name: str
    names: tuple[str, ...]
    kind: str
    negated: tuple[str, ...] = ()
    nargs: str = ""
    choices: tuple[Any, ...] = ()
    bounds: Mapping[str, float] = field(default_factory=dict)
    optional: bool = False
    append: bool = False
    frontend: bool = False
    deprecated: bool = False
    default: Any = None
    fields: Mapping[str, Mapping[str, Any]] | None = None

    def problem(self, text: str) -> str:
        """What is wrong with a value, as ``found ...; ...``; empty if vLLM accepts it."""
        if self.optional and text in ("", "None"):
            return ""
        if "json" in self.kind and re.match(r"""\s*['"]\s*[{[]""", text):
            return f"found {_shown(text)}; vLLM expects JSON without quotation marks around it"
        try:
            value = self._converted(text)
        except ValueError:
            return f"found {_shown(text)}; vLLM expects {_EXPECTED.get(self.kind, 'text')}"
        if self.choices and value not in self.choices:
            return (
                f"found {_shown(text)}; vLLM expects {_one_of(self.choices)}{near(str(value), map(str, self.choices))}"
            )
        if wrong := _out_of_bounds(value, self.bounds):
            return f"found {_shown(text)}; vLLM expects {wrong}"
        if self.fields is not None:
            return self._wrong_field(value, text)
        return ""

    def _converted(self, text: str) -> Any:
        if self.kind == "int":
            return int(text)
        if self.kind == "float":
            return float(text)
        if self.kind == "size or auto" and (text.strip() == "-1" or text.strip().lower() == "auto"):
            return -1
        if self.kind.startswith("size"):
            return size(text)
        if self.kind == "json" or (self.kind == "text or json" and re.fullmatch(r"(?s)\s*\{.*\}\s*", text)):
            return json.loads(_with_sizes(text) if self.fields is not None else text)
        return text.lower().replace("-", "_") if self.kind == "lower" else text

    def _wrong_field(self, value: Any, text: str) -> str:
        if not isinstance(value, dict):
            return f"found {_shown(text)}; vLLM expects a JSON object"
        for given, item in value.items():
            key = given.replace("-", "_") if self.name == "--speculative-config" else given
            known = (self.fields or {}).get(key)
            if known is None:
                return f"found the key {given[:40]}, which vLLM does not know{near(key, self.fields or ())}"
            if not _fits(item, known.get("kinds", ())):
                return f"found {_shown(json.dumps(item))} for {given}; vLLM expects {_kinds(known['kinds'])}"
            if known.get("choices") and item is not None and item not in known["choices"]:
                return f"found {_shown(json.dumps(item))} for {given}; vLLM expects {_one_of(known['choices'])}{near(str(item), known['choices'])}"
            if wrong := _out_of_bounds(item, known.get("bounds", {})):
                return f"found {_shown(json.dumps(item))} for {given}; vLLM expects {wrong}"
        return ""


@dataclass(frozen=True, eq=False)
class ArgumentList:
    """The arguments and the environment variables of one version of vLLM."""

    version: str
    arguments: Mapping[str, Argument]
    environment: frozenset[str]

    @functools.cached_property
    def by_name(self) -> Mapping[str, Argument]:
        """Each name, long, short or negated, and its argument."""
        return {name: argument for argument in self.arguments.values() for name in (*argument.names, *argument.negated)}

    def resolved(self, word: str) -> str:
        """The name that vLLM understands by a word: exact, with underscores, or a unique beginning; empty if none.

        The word has no ``=`` and no dotted key.
        """
        name = "--" + word[2:].replace("_", "-") if word.startswith("--") else word
        if name in self.by_name:
            return name
        if not name.startswith("--"):
            return name[:2] if name[:2] in self.by_name and len(name) > 2 else ""
        found = [other for other in self.by_name if other.startswith(name)] if len(name) > 2 else []
        return found[0] if len(found) == 1 else ""

    def find(self, word: str) -> Argument | None:
        """The argument that a word of the command line names; ``=value`` and dotted keys are ignored."""
        return self.by_name.get(self.resolved(re.split(r"[=.]", word, maxsplit=1)[0]))

    def nearest(self, word: str) -> str:
        """The argument whose name is most like a misspelt one; empty if none is."""
        name = re.split(r"[=.]", word, maxsplit=1)[0].lower().lstrip("-").replace("_", "-")
        names = [known for known in self.by_name if known.startswith("--")]
        by_ending = [known for known in names if known.endswith(f"-{name}")]
        close = difflib.get_close_matches(f"--{name}", names, n=1, cutoff=0.7)
        begins = [known for known in names if known.startswith(f"--{name}")] if len(name) > 2 else []
        return next(iter(close or begins or by_ending), "")


def near(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest known word, as ``; did you mean ...?``; empty if none is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def size(text: str) -> int:
    """A whole number as vLLM reads it: 1k is 1,000, 1K is 1,024, and so on up to t and T.

    Raises:
        ValueError: the text is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        return int(text)
    number, suffix = match.groups()
    power = "kmgt".index(suffix.lower()) + 1
    return int(float(number) * 1000**power) if suffix.islower() else int(number) * 1024**power


def versions() -> list[str]:
    """The versions of vLLM whose arguments are known, oldest first."""
    return sorted((path.stem for path in FOLDER.glob("*.json")), key=_order)


@functools.cache
def argument_list(version: str = "") -> ArgumentList:
    """The arguments of a version; without that version's data, those of the newest version before it, or else the oldest."""
    known = versions()
    before = [name for name in known if not version or _order(name) <= _order(version)]
    data = json.loads((FOLDER / f"{(before or known[:1])[-1]}.json").read_text(encoding="utf-8"))
    rows: dict[str, dict[str, Any]] = data["arguments"]
    arguments = {}
    for name, row in rows.items():
        values: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in row.items()}
        arguments[name] = Argument(name, **values)
    return ArgumentList(
        data["vllm"],
        arguments,
        frozenset(data["environment"]),
    )


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _with_sizes(text: str) -> str:
    parts = _QUOTED.split(text)
    return "".join(
        part if i % 2 else _SIZE_IN_JSON.sub(lambda match: str(size(match[0])), part) for i, part in enumerate(parts)
    )


def _fits(value: Any, kinds: Iterable[str]) -> bool:
    """Whether pydantic accepts a JSON value for one of these kinds: numbers may be written as text, but not the other way."""
    allowed = set(kinds)
    if not allowed:
        return True
    numeric = bool(allowed & {"int", "float", "bool"})
    if value is None or isinstance(value, dict | list):
        return {type(None): "none", dict: "dict", list: "list"}[type(value)] in allowed
    if isinstance(value, str):
        return "str" in allowed or (
            numeric and bool(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|(?i:true|false|yes|no|on|off)", value))
        )
    if isinstance(value, float) and not value.is_integer():
        return "float" in allowed
    return numeric


def _out_of_bounds(value: Any, bounds: Mapping[str, float]) -> str:
    if not bounds or isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    outside = (
        value < bounds.get("ge", value)
        or value > bounds.get("le", value)
        or ("gt" in bounds and value <= bounds["gt"])
        or ("lt" in bounds and value >= bounds["lt"])
        or value != value
    )
    words = {**_LEAST, **_MOST}
    return " and ".join(f"{words[name]} {limit:g}" for name, limit in bounds.items()) if outside else ""


def _one_of(choices: Iterable[Any]) -> str:
    names = [str(choice) for choice in choices]
    return (
        f"one of {', '.join(names)}"
        if len(names) <= 12
        else f"one of its {len(names)} choices, such as {', '.join(names[:5])}"
    )


def _kinds(kinds: Iterable[str]) -> str:
    return " or ".join(_KIND_WORDS[kind] for kind in kinds)


def _shown(text: str) -> str:
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return repr(shown) if len(shown) <= 60 else repr(shown[:57] + "...")
