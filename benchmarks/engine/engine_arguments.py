"""Writes the argument list of the installed vLLM as data: the planner and the container's entrypoint read it. Requires vLLM.

    python -m benchmarks.engine.engine_arguments write image/engine/vllm_arguments
    python -m benchmarks.engine.engine_arguments changes image/engine/vllm_arguments/0.33.0.json

"write" adds one file, named after the version. "changes" prints how the installed version differs from a file, and returns 1
if it does: what to look at when the pinned version changes. Both work without a GPU, with vLLM's CPU build or with the Python
files of any other build in front of it (PYTHONPATH).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

PARSER_MODULES = ("vllm.entrypoints.common.cli_args", "vllm.entrypoints.launchers.cli_args")
"""Where releases from 0.32 on keep `make_arg_parser`."""
PLAIN = {int: "int", float: "float", str: "str", json.loads: "json"}
JSON_KINDS = {bool: "bool", int: "int", float: "float", str: "str", list: "list", tuple: "list", set: "list", dict: "dict",
              type(None): "none"}  # fmt: skip
CHECKED_LATER = {"--speculative-config": "SpeculativeConfig"}
"""Arguments that the parser takes as plain JSON, and the class that then checks them."""


def kind_of(action: argparse.Action) -> tuple[str, bool, Any]:
    """(kind of the value, whether "None" stands for no value, the configuration class of a JSON value)."""
    function: Any = action.type
    name, closure = getattr(function, "__name__", ""), list(getattr(function, "__closure__", None) or [])
    if name == "_optional_type":
        inner = argparse.Action(["-x"], "x", type=closure[0].cell_contents)
        kind, _, cls = kind_of(inner)
        return kind, True, cls
    if name == "_parse_type":
        return kind_of(argparse.Action(["-x"], "x", type=closure[0].cell_contents))
    if name == "parse_dataclass":
        return "json", False, (function.__defaults__ or (None,))[0]
    if name == "<lambda>":
        return "lower", False, None  # lower case, hyphens as underscores
    named = {
        "human_readable_int": "size",
        "human_readable_int_or_auto": "size or auto",
        "union_dict_and_str": "text or json",
    }
    return named.get(name) or PLAIN.get(function, "str"), False, None


def plain(value: Any) -> Any:
    """A default as JSON; None for objects."""
    return value if isinstance(value, bool | int | float | str) else None


def json_fields(cls: Any) -> dict[str, Any]:
    """The fields of a configuration class: the JSON kinds that it accepts, and its choices; an empty list: anything."""
    from vllm.engine.arg_utils import get_type_hints

    found = {}
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        hints = get_type_hints(field.type)
        kinds: set[str] = set()
        choices: list[Any] = []
        for hint in hints:
            base = get_origin(hint) or hint
            if base is Literal:
                choices += get_args(hint)
                kinds |= {JSON_KINDS[type(choice)] for choice in get_args(hint)}
            else:
                kinds.add(JSON_KINDS.get(base, "any"))
        only = bool(choices) and not kinds - {"str", "none"} and str not in hints
        found[field.name] = {
            **({} if "any" in kinds else {"kinds": sorted(kinds)}),
            **({"choices": sorted(choices)} if only else {}),
            **({"bounds": bounds} if (bounds := bounds_of(field)) else {}),
        }
    return found


def bounds_of(field: Any) -> dict[str, float]:
    """The least and greatest value that a configuration class accepts in a field, by pydantic's names."""
    annotations = getattr(field.default, "metadata", []) + [
        part for hint in getattr(field.type, "__metadata__", ()) for part in getattr(hint, "metadata", [hint])
    ]
    return {
        name: getattr(part, name)
        for part in annotations
        for name in ("ge", "gt", "le", "lt")
        if isinstance(getattr(part, name, None), int | float)
    }


def bounds_by_name() -> dict[str, dict[str, float]]:
    """The bounds of each field of vLLM's configuration classes, by the name of its argument."""
    import vllm.config

    found: dict[str, dict[str, float]] = {}
    for cls in vars(vllm.config).values():
        if isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls is not vllm.config.SpeculativeConfig:
            for field in dataclasses.fields(cls):
                if bounds := bounds_of(field):
                    found.setdefault(field.name, bounds)
    return found


def entry(action: argparse.Action, names: list[str], frontend: bool) -> dict[str, Any]:
    """One argument as data."""
    import vllm.config

    negated = getattr(action, "negative_option_strings", {name for name in names if name.startswith("--no-")})
    negated = set() if action.option_strings[0] in negated else negated
    names, off = [name for name in names if name not in negated], sorted(negated, reverse=True)
    long = [name for name in names if name.startswith("--")]
    kind, optional, cls = kind_of(action)
    how = type(action).__name__
    found: dict[str, Any] = {"names": names, **({"negated": off} if off else {})}
    if action.nargs == 0:
        found["kind"] = "flag"
    else:
        found["kind"] = kind
        found |= {"optional": True} if optional else {}
        found |= {"nargs": action.nargs} if action.nargs is not None else {}
        found |= {"choices": [choice for choice in action.choices if choice is not None]} if action.choices else {}
    found |= {"append": True} if how == "_AppendAction" else {}
    found |= {"default": plain(action.default)} if plain(action.default) is not None else {}
    found |= {"frontend": True} if frontend else {}
    found |= (
        {"deprecated": True}
        if "Deprecated" in how or re.search(r"^\W*deprecated|is deprecated", (action.help or "").lower()[:200])
        else {}
    )
    cls = cls or getattr(vllm.config, CHECKED_LATER.get(long[0] if long else "", ""), None)
    if cls is not None and dataclasses.is_dataclass(cls):
        found["fields"] = json_fields(cls)
    return found


def vllm_parser(*, serve: bool = False) -> Any:
    """vLLM's own parser, of its server or of the whole command with the subcommand `serve`."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    for module in PARSER_MODULES:
        try:
            make_arg_parser = importlib.import_module(module).make_arg_parser
            break
        except ModuleNotFoundError:
            continue
    parser = FlexibleArgumentParser()
    if serve:
        make_arg_parser(parser.add_subparsers(dest="subparser").add_parser("serve"))
        return parser
    return make_arg_parser(parser)


def installed() -> dict[str, Any]:
    """The argument list and the environment variables of the installed vLLM."""
    sys.argv.append("--help")  # vLLM collects its help texts, which name what is deprecated, only if asked for help
    import vllm
    from vllm import envs

    parser = vllm_parser()
    sys.argv.pop()
    frontend = {
        id(action) for group in parser._action_groups if group.title == "Frontend" for action in group._group_actions
    }
    bounds = bounds_by_name()
    arguments = {}
    names: dict[int, list[str]] = {}
    for name, action in parser._option_string_actions.items():  # with the names that the help leaves out
        names.setdefault(id(action), []).append(name)
    for action in parser._actions:
        long = [name for name in action.option_strings if name.startswith("--")]
        if long and long[0] != "--help":
            arguments[long[0]] = entry(action, names[id(action)], id(action) in frontend)
            if action.dest in bounds and arguments[long[0]]["kind"] in ("int", "float", "size"):
                arguments[long[0]]["bounds"] = bounds[action.dest]
            if action in getattr(parser, "_deprecated", ()):
                arguments[long[0]]["deprecated"] = True
    return {
        "vllm": vllm.__version__,
        "licence": "Apache-2.0",
        "environment": sorted(envs.environment_variables),
        "arguments": arguments,
    }


def text_of(data: dict[str, Any]) -> str:
    """The file: one argument a line, so that a new version's differences are readable."""
    head = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in data.items() if name != "arguments"]
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in data["arguments"].items()]
    return "{\n" + ",\n".join(head) + ',\n"arguments": {\n' + ",\n".join(lines) + "\n}\n}\n"


def changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """The differences between two versions, one line each."""
    yield from (f"environment: {name} removed" for name in old["environment"] if name not in new["environment"])
    yield from (f"environment: {name} added" for name in new["environment"] if name not in old["environment"])
    before, after = old["arguments"], new["arguments"]
    yield from (f"{name}: removed" for name in before if name not in after)
    yield from (f"{name}: added, {json.dumps(after[name])}" for name in after if name not in before)
    for name in (name for name in before if name in after and before[name] != after[name]):
        parts = sorted(before[name].keys() | after[name].keys())
        yield from (
            f"{name}: {part} was {json.dumps(before[name].get(part))}, is {json.dumps(after[name].get(part))}"
            for part in parts
            if before[name].get(part) != after[name].get(part)
        )


def main() -> int:
    """Write the data, or print what changed; returns the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("command", choices=("write", "changes"), help="what to do")
    options.add_argument("path", type=Path, help="the folder to write to, or the file to compare with")
    given = options.parse_args()
    data = json.loads(json.dumps(installed()))
    if given.command == "write":
        path = given.path / f"{data['vllm'].partition('+')[0]}.json"
        path.write_text(text_of(data), encoding="utf-8")
        print(f"{path.name}: {len(data['arguments'])} arguments")
        return 0
    found = list(changes(json.loads(given.path.read_text(encoding="utf-8")), data))
    print("\n".join(found) or "no changes")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
