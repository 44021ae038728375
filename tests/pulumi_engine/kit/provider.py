"""The engine kit's stand-in provider with what it lacks: types that its schema leaves out, and more of AWS's refusals."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from tests.pulumi_engine.kit import cloud_rules

sys.path.insert(0, os.environ["PULUMI_ENGINE_FOLDER"])
kit: Any = importlib.import_module("provider")
cloud: Any = importlib.import_module("cloud")

# Computed outputs of types that schema.json does not know.
SCHEMA = {
    "aws:lambda/function:Function": {
        "autoname": True,
        "computed": {
            "arn": "string",
            "invokeArn": "string",
            "lastModified": "string",
            "name": "string",
            "qualifiedArn": "string",
            "tagsAll": ["map", "string"],
            "version": "string",
        },
    },
}


def add() -> None:
    """Put our additions in the kit's place."""
    known, refuses = kit.schemas, cloud._refusal

    def refusal(kind: str, new: dict[str, Any], others: list[dict[str, Any]], updating: bool) -> str | None:
        return cloud_rules.refusal(kind, new, others, updating) or refuses(kind, new, others, updating)

    kit.schemas = lambda: {**known(), **SCHEMA}
    cloud._refusal = refusal


if __name__ == "__main__":
    add()
    kit.main()
