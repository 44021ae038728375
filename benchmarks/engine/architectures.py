"""Writes which architectures a vLLM knows, from its source and without importing it.

python -m benchmarks.engine.architectures FOLDER VERSION > infra/planning/architecture/architectures.json
"""

from __future__ import annotations

import argparse
import ast
import json
from pathlib import Path
from typing import Any

REGISTRY = Path("model_executor", "models", "registry.py")
QUANTIZATION = Path("model_executor", "layers", "quantization", "__init__.py")
COMMENT = (
    "Architectures of vLLM's registry (vllm/model_executor/models/registry.py): those that generate, those that pool, those r"
    "emoved with the last version that had them, and those of plugins. Suffixes decide for any other name. A test compares th"
    "is with an installed vLLM."
)
_GENERATE = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS")
_POOL = (
    "_EMBEDDING_MODELS",
    "_LATE_INTERACTION_MODELS",
    "_REWARD_MODELS",
    "_TOKEN_CLASSIFICATION_MODELS",
    "_SEQUENCE_CLASSIFICATION_MODELS",
)


def constants(path: Path) -> dict[str, dict[str, Any]]:
    """The dictionaries and Literals that a module assigns, with constant keys; values that are not constant are None."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        if isinstance(target, ast.Name):
            found[target.id] = _entries(value)
    return found


def _entries(value: ast.expr) -> dict[str, Any]:
    if isinstance(value, ast.Dict):
        pairs = list(zip(value.keys, value.values, strict=True))
    elif isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Tuple):
        pairs = [(item, item) for item in value.slice.elts]
    else:
        return {}
    return {
        key.value: item.value if isinstance(item, ast.Constant) else None
        for key, item in pairs
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


def architectures(folder: Path) -> dict[str, Any]:
    """What architectures.json says, without its comment and version."""
    found = constants(folder / REGISTRY)
    generate = {name for kind in _GENERATE for name in found[kind]}
    pooling = {name for kind in _POOL for name in found[kind]} - generate
    return {
        "generate": sorted(generate),
        "pooling": sorted(pooling),
        "removed": dict(sorted(found["_PREVIOUSLY_SUPPORTED_MODELS"].items())),
        "plugins": sorted(found["_OOT_SUPPORTED_MODELS"]),
    }


def main() -> None:
    """Print the data file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the vllm folder of its source or of an environment's site-packages")
    parser.add_argument("version", help="its version, such as 0.32.0")
    options = parser.parse_args()
    content = {"_comment": COMMENT, "vllm": options.version} | architectures(options.folder)
    print("{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()) + "\n}")


if __name__ == "__main__":
    main()
