"""The plugin's schema in a file, which shows what a change means for programs that use the components.

``python -m infra.schema`` prints the content of infra/schema.json, the schema of the last release. A test compares it with
the components: each difference must be named in CHANGELOG.md under Unreleased. Write the file again when you release.
``python -m infra.schema outputs`` prints the tables of outputs in docs/component.md, which a test holds equal to it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.alias_generators import to_camel

from infra.plugin import COMPONENTS, Provider

RELEASED = Path(__file__).with_name("schema.json")
KINDS = {"argument": "inputProperties", "output": "properties"}
REQUIRED = {"argument": "requiredInputs", "output": "required"}


def current() -> dict[str, Any]:
    """The schema of the components as they are, without the version."""
    schema: dict[str, Any] = json.loads(Provider().schema or "")
    del schema["version"]
    return schema


def released() -> dict[str, Any]:
    """The schema of the last release."""
    found: dict[str, Any] = json.loads(RELEASED.read_text())
    return found


def text(schema: Mapping[str, Any]) -> str:
    """A schema as the file contains it."""
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two schemas, as CHANGELOG.md names it: ``argument `gpu` changed``."""
    return list(dict.fromkeys(_differences(old, new)))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, after = old["resources"], new["resources"]
    yield from _named("component", {_last(token): None for token in before}, {_last(token): None for token in after})
    for token in sorted(before.keys() & after.keys()):
        for kind, key in KINDS.items():
            yield from _named(kind, _properties(before[token], kind, key), _properties(after[token], kind, key))
        if _rest(before[token]) != _rest(after[token]):
            yield f"component `{_last(token)}` changed"
    if _rest(old, "resources") != _rest(new, "resources"):
        yield "package `vllm-endpoint` changed"


def outputs_table(component: type) -> Iterator[str]:
    """The lines of a component's table of outputs, in Markdown."""
    (found,) = [entry for token, entry in current()["resources"].items() if _last(token) == component.__name__]
    yield from ("| output | type | secret | meaning |", "|---|---|---|---|")
    for name in component.__annotations__:
        entry = found["properties"][to_camel(name)]
        kind = {"string": "str", "number": "float", "object": "dict"}[entry["type"]]
        secret = "yes" if entry.get("secret") else "no"
        yield f"| `{name}` / `{to_camel(name)}` | {kind} | {secret} | {entry['description']} |".replace(
            f"`{name}` / `{name}`", f"`{name}`"
        )


def _named(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"{kind} `{name}` added"
        elif name not in new:
            yield f"{kind} `{name}` removed"
        elif old[name] != new[name]:
            yield f"{kind} `{name}` changed"


def _properties(resource: Mapping[str, Any], kind: str, key: str) -> dict[str, Any]:
    required = resource.get(REQUIRED[kind]) or ()
    return {name: {**entry, "required": name in required} for name, entry in resource[key].items()}


def _rest(part: Mapping[str, Any], *more: str) -> dict[str, Any]:
    apart = {*KINDS.values(), *REQUIRED.values(), *more}
    return {key: value for key, value in part.items() if key not in apart}


def _last(token: str) -> str:
    return token.rpartition(":")[2]


def main(arguments: list[str]) -> int:
    """Print what the arguments ask for."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.schema",
        description="Print the plugin's schema, or the tables of the components' outputs.",
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("schema", "outputs"),
        default="schema",
        help="schema: of infra/schema.json (default); outputs: the tables of docs/component.md",
    )
    if parser.parse_args(arguments).what == "outputs":
        for component in COMPONENTS:
            print(f"### {component.__name__}", "", *outputs_table(component), "", sep="\n")
    else:
        print(text(current()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
