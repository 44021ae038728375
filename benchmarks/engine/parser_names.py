"""Prints the parsers and tokenizers that an installed vLLM registers, as a row of infra/planning/catalog/parsers.json.

``python -m benchmarks.engine.parser_names FOLDER``, where FOLDER is site-packages. Nothing of vLLM is imported.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from pathlib import Path

_TABLES = {
    "reasoning": ("reasoning/__init__.py", "_REASONING_PARSERS_TO_REGISTER"),
    "tool_call": ("tool_parsers/__init__.py", "_TOOL_PARSERS_TO_REGISTER"),
    "tokenizer_modes": ("tokenizers/registry.py", "_VLLM_TOKENIZERS"),
}


def version_of(site_packages: Path) -> str:
    """The version of the vLLM in a site-packages folder."""
    found = re.search(r"__version__ = version = '([\d.]+)", (site_packages / "vllm/_version.py").read_text())
    if not found:
        raise ValueError(f"{site_packages}/vllm/_version.py names no version")
    return found[1]


def registered(site_packages: Path) -> dict[str, list[str]]:
    """The names in vLLM's tables of reasoning parsers, tool call parsers and tokenizers, sorted."""
    return {kind: _keys(site_packages / "vllm" / file, table) for kind, (file, table) in _TABLES.items()}


def _keys(source: Path, table: str) -> list[str]:
    for node in ast.walk(ast.parse(source.read_text())):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Dict):
            continue
        names = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(name, ast.Name) and name.id == table for name in names):
            return sorted(str(ast.literal_eval(key)) for key in node.value.keys if key)
    raise ValueError(f"{source} has no table {table}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine.parser_names",
        description="Print the parsers that an installed vLLM registers, as JSON.",
    )
    parser.add_argument("folder", type=Path, help="site-packages of a Python that has vLLM")
    folder = parser.parse_args().folder
    print(json.dumps({version_of(folder): registered(folder)}, indent=1))
