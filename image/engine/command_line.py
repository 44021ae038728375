"""Reads a command line of ``vllm serve`` as vLLM's own parser reads it, and writes it in one form.

vLLM accepts underscores for hyphens, unique beginnings of names, ``=`` or a blank, dotted keys of JSON values
(``--speculative-config.model M``), ``-O3``, a YAML file (``--config``), and the model as the first word or as ``--model``. What
follows here sees none of that: each argument by its first long name, with a blank, the last occurrence only.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from image.engine.argument_list import Argument, ArgumentList, size

SECRET = ("--api-key", "--hf-token")
ReadConfig = Callable[[str], Any]
_MODEL = re.compile(r"--model(=.+)?")
_NUMBER = re.compile(r"-\d+|-\d*\.\d+")


class CommandLineError(ValueError):
    """vLLM would reject the command line; the message is one line."""


@dataclass(frozen=True)
class CommandLine:
    """``options`` are the arguments in effect: each name as written (``--no-x`` included) with its values.

    ``unknown`` are words that the list of arguments does not contain, each flag with the values that follow it.
    ``twice`` are names that were given more than once.
    """

    model: str
    options: Mapping[str, tuple[str, ...]]
    unknown: tuple[tuple[str, ...], ...] = ()
    twice: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The arguments in one form, without the model: ``--name value``."""
        found: list[str] = []
        for name, values in self.options.items():
            if len(values) == 1 and values[0].startswith("-") and not _NUMBER.fullmatch(values[0]):
                found.append(f"{name}={values[0]}")
            else:
                found += [name, *values]
        return found + [word for words in self.unknown for word in words]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandLineError(message)


class _Record(argparse.Action):
    """Notes each occurrence by the name that was written, so that the last one counts."""

    def __call__(self, _: Any, namespace: argparse.Namespace, values: Any, __: str | None = None) -> None:
        given = [values] if isinstance(values, str) else list(values or ())
        if self.nargs == "?" and values == self.const:  # no value was written
            given = []
        namespace.seen.append((self.dest, self.const, tuple(given)))


def read(words: Sequence[str], known: ArgumentList, read_config: ReadConfig | None = None) -> CommandLine:
    """Read the words after ``vllm serve``; the two words themselves may be there.

    Args:
        words: the command line.
        known: the arguments of the vLLM that will run.
        read_config: returns the content of the YAML file of ``--config``; None if there is no such file here.

    Raises:
        CommandLineError: vLLM would reject the command line.
    """
    words = list(words)
    for word in words:
        name, *rest = word.split(maxsplit=1)[:2] or [""]
        if rest and word.lstrip().startswith("-") and "=" not in name and known.find(name):
            shown = f"{name} ***" if known.find(name) in map(known.arguments.get, SECRET) else word
            raise CommandLineError(f"found {shown!r}, several words in one; write {name} and its value as two")
    for first in ("vllm", "serve"):
        if words[:1] == [first]:
            del words[0]
    words, flagged = _model_flag(words)
    words = _with_config(words, known, read_config)
    if flagged is not None:
        words = [flagged, *words]
    words = _dotted(_dashes(words, known))
    words, unknown = _without_unknown(words, known)
    namespace = argparse.Namespace(seen=[])
    tag = _parser(known).parse_args(words, namespace).model_tag
    options: dict[str, tuple[str, ...]] = {}
    current: dict[str, str] = {}
    twice = []
    for dest, name, values in namespace.seen:
        if dest in current:
            if known.arguments[dest].append:
                options[name] += values
                continue
            twice.append(dest)
            del options[current[dest]]
        current[dest], options[name] = name, values
    named = options.pop("--model", ())
    return CommandLine(tag or next(iter(named), ""), options, tuple(unknown), tuple(dict.fromkeys(twice)))


def _model_flag(words: list[str]) -> tuple[list[str], str | None]:
    """The first ``--model`` moves to the front, as `vllm serve` does it."""
    for i, word in enumerate(words):
        if _MODEL.fullmatch(word):
            if word != "--model":
                return words[:i] + words[i + 1 :], word.partition("=")[2]
            if i + 1 == len(words):
                raise CommandLineError("argument --model: expected one argument")
            return words[:i] + words[i + 2 :], words[i + 1]
    return words, None


def _with_config(words: list[str], known: ArgumentList, read_config: ReadConfig | None) -> list[str]:
    """The words of the file of ``--config`` come first, so that the command line overrides them."""
    places = [i for i, word in enumerate(words) if word == "--config" or word.startswith("--config=")]
    if not places:
        return words
    if len(places) > 1:
        raise CommandLineError("--config: found more than once; set one file")
    i = places[0]
    written = "=" in words[i]
    if not written and i + 1 == len(words):
        raise CommandLineError("argument --config: expected one argument")
    path = words[i].partition("=")[2] if written else words[i + 1]
    if not path.endswith((".yaml", ".yml")):
        raise CommandLineError(f"--config: found {path}; set a file that ends in .yaml or .yml")
    if read_config is None:
        raise CommandLineError(f"--config: found {path}, which cannot be read here; write its arguments out")
    content = read_config(path)
    if not isinstance(content, Mapping):
        raise CommandLineError(f"--config: {path} has no keys; write one argument a line, such as max-model-len: 4096")
    found: list[str] = []
    for key, value in content.items():
        if isinstance(value, bool):
            # vLLM drops a false under a name with underscores, or of a flag that cannot be switched off.
            if value or f"--no-{key.replace('_', '-')}" in known.by_name:
                found.append(f"--{key}" if value else f"--no-{key}")
        elif isinstance(value, list):
            found += [f"--{key}", *map(str, value)] if value else []
        else:
            found += [f"--{key}", json.dumps(value) if isinstance(value, dict) else str(value)]
    rest = words[:i] + words[i + (1 if written else 2) :]
    return [rest[0], *found, *rest[1:]] if rest and not rest[0].startswith("-") else [*found, *rest]


def _dashes(words: Sequence[str], known: ArgumentList) -> list[str]:
    """Hyphens for underscores in names, up to the first dot, and ``-O3`` in full."""
    found = []
    level = known.by_name.get("--optimization-level") is not None
    for i, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            head, dot, keys = name.partition(".")
            found.append(head.replace("_", "-") + dot + keys + equals + value)
        elif level and word.startswith("-O") and word != "-O":
            found += ["--optimization-level", word[3:] if word[2] == "=" else word[2:]]
        elif level and word == "-O" and words[i + 1 : i + 2] and words[i + 1] in ("0", "1", "2", "3"):
            found.append("--optimization-level")
        else:
            found.append(word)
    return found


def _dotted(words: Sequence[str]) -> list[str]:
    """Dotted keys become one JSON value of their argument, at the end, as vLLM appends them."""
    rest: list[str] = []
    values: dict[str, dict[str, Any]] = {}
    waiting = iter(words)
    for word in waiting:
        name, equals, text = word.partition("=")
        if not word.startswith("-") or "." not in name or _NUMBER.fullmatch(word):
            rest.append(word)
            continue
        if not equals:
            try:
                text = next(waiting)
            except StopIteration:
                raise CommandLineError(f"argument {name}: expected one argument") from None
        if name.endswith("+"):
            name, text = name[:-1], json.dumps(text.split(","))
        flag, *keys = name.split(".")
        value = _json_or_text(text)
        for key in reversed(keys):
            value = {key: value}
        _merge(values.setdefault(flag, {}), value)
    for flag, value in values.items():
        rest += [flag, json.dumps(value)]
    return rest


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        try:
            return size(text)
        except ValueError:
            return text


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif isinstance(value, list) and isinstance(into.get(key), list):
            into[key] += value
        else:
            into[key] = value


def _without_unknown(words: Sequence[str], known: ArgumentList) -> tuple[list[str], list[tuple[str, ...]]]:
    """Take out the flags that the list does not contain, each with the words after it up to the next flag."""
    rest: list[str] = []
    unknown: list[list[str]] = []
    taking = False
    for i, word in enumerate(words):
        if word == "--":
            return [*rest, *words[i:]], [tuple(one) for one in unknown]
        name = word.partition("=")[0]
        if not word.startswith("-") or len(word) == 1 or _NUMBER.fullmatch(word) or (" " in name):
            (unknown[-1] if taking else rest).append(word)
            continue
        similar = [other for other in known.by_name if other.startswith(name)] if name.startswith("--") else []
        taking = not known.resolved(name) and not (similar and len(name) > 2)
        if taking:
            unknown.append([word])
        else:
            rest.append(word)
    return rest, [tuple(one) for one in unknown]


@functools.cache
def _parser(known: ArgumentList) -> _Parser:
    parser = _Parser(prog="vllm serve", add_help=False)
    parser.add_argument("model_tag", nargs="?")
    for argument in known.arguments.values():
        _add(parser, argument)
    return parser


def _add(parser: _Parser, argument: Argument) -> None:
    nargs: str | int | None = 0 if argument.kind == "flag" else argument.nargs or None
    for names in (argument.names, argument.negated):
        if names:
            long = next((name for name in names if name.startswith("--")), names[0])
            parser.add_argument(*names, action=_Record, nargs=nargs, dest=argument.name, const=long)
