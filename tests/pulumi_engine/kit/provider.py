"""The engine kit's stand-in provider with what it lacks: types that its schema leaves out, and more of AWS's refusals."""

from __future__ import annotations

import hashlib
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

    outputs = kit.Provider._outputs

    def without_copies(self: Any, urn: str, inputs: dict[str, Any], id_: str) -> dict[str, Any]:
        """A password's value is in `result` alone, marked as secret; the kit repeats it in the clear as `hex`, `b64Std`."""
        found: dict[str, Any] = outputs(self, urn, inputs, id_)
        if not urn.split("::")[2].endswith(":RandomPassword"):
            return found
        value = found["result"]
        hidden = value if isinstance(value, dict) else {kit.SIG: kit.SECRET, "value": value}
        return {**inputs, "result": hidden, "bcryptHash": found["bcryptHash"], "id": "none"}

    invoke = kit.Provider.Invoke

    def zones_apart(self: Any, request: Any, context: Any) -> Any:
        """Two hosted zones are two: the kit gives all of them one id."""
        answer = invoke(self, request, context)
        if request.tok.endswith(":getZone"):
            found = getattr(answer, "return")
            found["zoneId"] = found["id"] = f"Z{hashlib.sha256(found['name'].encode()).hexdigest()[:13].upper()}"
        return answer

    kit.Provider._outputs, kit.Provider.Invoke = without_copies, zones_apart
    kit.schemas = lambda: {**known(), **SCHEMA}
    cloud._refusal = refusal


if __name__ == "__main__":
    add()
    kit.main()
