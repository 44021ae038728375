"""Thousands of generated requests from the gateway's OpenAPI document: no answer is a 5xx, none is undocumented.

Needs `pip install schemathesis==4.32.5` in an environment of its own, whose `schemathesis` is given as the argument:

    .venv/bin/python -m benchmarks.gateway.schemathesis_cases ENVIRONMENT/bin/schemathesis [CASES]

Starts a gateway before a fake engine on free ports, and ends with schemathesis' exit status.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from fakes.fake_engine import MODEL, FakeEngine
from image.gateway import openapi
from image.gateway.backends import FixedDiscovery, InlineKeys
from image.gateway.routes import UPSTREAM
from image.gateway.service import Service
from image.gateway.settings import Settings
from image.gateway.telemetry import Telemetry

KEY = "sk-generated"


def pinned(document: dict[str, object]) -> str:
    """The document, but with the model that is served as the one value of `model`: most cases shall reach the engine."""
    return json.dumps(document).replace('"model": {"type": "string"}', json.dumps({"model": {"const": MODEL}})[1:-1])


async def main(schemathesis: str, cases: int) -> int:
    """The exit status of schemathesis."""
    engine = await FakeEngine().start()
    service = Service(
        Settings(
            model=MODEL,
            discovery=FixedDiscovery((("127.0.0.1", engine.port),)),
            keys=InlineKeys(KEY),
            host="127.0.0.1",
            port=0,
            metrics_port=0,
        ),
        telemetry=Telemetry(os.open(os.devnull, os.O_WRONLY)),
    )
    serving = asyncio.create_task(service.run())
    # The paths without a body have but one case each.
    operations = len(UPSTREAM)
    with tempfile.TemporaryDirectory() as folder:
        schema = Path(folder) / "openapi.json"
        schema.write_text(pinned(openapi.document()))
        url = f"http://127.0.0.1:{service.sockets[0].getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            schemathesis, "run", str(schema), "--url", url, "--header", f"Authorization: Bearer {KEY}",
            "--max-examples", str(-(-cases // operations)), "--phases", "fuzzing",
            "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            "--suppress-health-check", "all", "--generation-deterministic", cwd=folder,
        )  # fmt: skip
        status = await process.wait()
    print(f"requests the engine saw: {len(engine.requests)}")
    service.stop()
    await serving
    await engine.stop()
    return status


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10_000)))
