"""The engine kit's stand-in provider with what it lacks: types that its schema leaves out, and more of AWS's refusals."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from typing import Any

from tests.pulumi_engine.kit import cloud_rules, file_systems

sys.path.insert(0, os.environ["PULUMI_ENGINE_FOLDER"])
kit: Any = importlib.import_module("provider")
cloud: Any = importlib.import_module("cloud")

ACCOUNT = file_systems.ACCOUNT
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

    class Provider(kit.Provider):  # type: ignore[misc]
        region: str

        def DiffConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            answer = kit.provider_pb2.DiffResponse
            old, new = (kit.plain(inputs).get("region") for inputs in (request.old_inputs, request.news))
            if old == new:
                return answer(changes=answer.DIFF_NONE)
            return answer(changes=answer.DIFF_SOME, diffs=["region"])  # else the engine goes on with the old region

        def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            configured = super().Configure(request, context)
            self.region = request.variables.get("aws:config:region") or self.region
            roles = json.loads(request.variables.get("aws:config:assumeRoles") or "[]")
            # One process of the kit per provider of the program: what it says about its account is all of one.
            kit.ACCOUNT = file_systems.ACCOUNT = roles[0]["roleArn"].split(":")[4] if roles else ACCOUNT
            return configured

        def Invoke(self, request: Any, context: Any) -> Any:  # noqa: N802
            args = kit.plain(request.args)
            refused = kit.failure("invoke", request.tok)
            answer = None if refused else file_systems.answer(request.tok.split(":")[-1], args, self.region)
            if isinstance(answer, str) or refused:
                context.abort(kit.grpc.StatusCode.UNKNOWN, refused or answer)
            if answer is None:
                found = super().Invoke(request, context)
                if request.tok.endswith(":getZone"):  # two hosted zones are two: the kit gives all of them one id
                    zone = getattr(found, "return")
                    zone["zoneId"] = zone["id"] = f"Z{hashlib.sha256(zone['name'].encode()).hexdigest()[:13].upper()}"
                return found
            return kit.provider_pb2.InvokeResponse(**{"return": kit.struct(answer)})

        def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
            old, new = kit.reveal(kit.plain(request.olds)), kit.reveal(kit.plain(request.news))
            if refused := cloud_rules.update(request.urn.split("::")[2].rpartition(":")[2], old, new):
                context.abort(kit.grpc.StatusCode.UNKNOWN, refused)
            updated = super().Update(request, context)
            if request.preview:  # as the real provider: what an update does not touch stays known
                touched = {"latestVersion", "versionId"}
                kept = {key: value for key, value in kit.plain(request.olds).items() if key not in touched}
                updated.properties.CopyFrom(kit.struct({**kept, **kit.plain(request.news)}))
            return updated

        def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
            rows = kit.CLOUD._rows() if kit.CLOUD.path else {}
            old = kit.reveal(kit.plain(request.properties))
            if refused := cloud_rules.deletion(request.id, old.get("arn", ""), old.get("name", ""), rows):
                kit.note(op="delete", urn=request.urn, id=request.id, started=0, ended=0, failed=refused)
                context.abort(kit.grpc.StatusCode.UNKNOWN, refused)
            return super().Delete(request, context)

        def _outputs(self, urn: str, inputs: dict[str, Any], id_: str) -> dict[str, Any]:
            """A password's value is in `result` alone, marked as secret; the kit repeats it in the clear as `hex`, `b64Std`."""
            found: dict[str, Any] = super()._outputs(urn, inputs, id_)
            if not urn.split("::")[2].endswith(":RandomPassword"):
                return found
            value = found["result"]
            hidden = value if isinstance(value, dict) else {kit.SIG: kit.SECRET, "value": value}
            return {**inputs, "result": hidden, "bcryptHash": found["bcryptHash"], "id": "none"}

        def _id(self, urn: str, inputs: dict[str, Any]) -> str:
            return file_systems.identifier(urn) or super()._id(urn, inputs)

    kit.Provider = Provider
    kit.schemas = lambda: {**known(), **SCHEMA}
    cloud._refusal = refusal


if __name__ == "__main__":
    add()
    kit.main()
