"""Thousands of requests generated from the gateway's OpenAPI document: no response is a 5xx or undocumented.

    .venv/bin/python -m benchmarks.gateway.schemathesis_cases ENVIRONMENT/bin/schemathesis

Requires schemathesis 4.32.5, installed in a separate environment. Starts a gateway in front of a fake engine on free
ports. The exit status is that of schemathesis.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TextIO

from benchmarks.gateway.running import in_process, loopback_settings, port_of
from fakes.fake_engine import MODEL, FakeEngine
from image.gateway import openapi
from image.gateway.backends import InlineKeys
from image.gateway.routes import UPSTREAM

KEY = "sk-generated"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def pinned(document: dict[str, object]) -> str:
    """The document with the served model as the only value of `model`, so that most cases reach the engine."""
    return json.dumps(document).replace('"model": {"type": "string"}', json.dumps({"model": {"const": MODEL}})[1:-1])


def open_log() -> TextIO:
    """The gateway's log, discarded."""
    return Path(os.devnull).open("w")


async def run(schemathesis: str, cases: int) -> int:
    """Run schemathesis. Returns its exit status."""
    engine = await FakeEngine().start()
    settings = loopback_settings(MODEL, [engine.port], keys=InlineKeys(KEY))
    examples = -(-cases // len(UPSTREAM))  # per operation; those without a body have a single case each
    try:
        with tempfile.TemporaryDirectory() as folder, open_log() as log:
            schema = Path(folder) / "openapi.json"
            schema.write_text(pinned(openapi.document()))
            async with in_process(settings, 1, log.fileno()) as service:
                process = await asyncio.create_subprocess_exec(
                    schemathesis, "run", str(schema), "--url", f"http://127.0.0.1:{port_of(service)}",
                    "--header", f"Authorization: Bearer {KEY}", "--max-examples", str(examples), "--phases", "fuzzing",
                    "--checks", CHECKS, "--suppress-health-check", "all", "--generation-deterministic", cwd=folder,
                )  # fmt: skip
                status = await process.wait()
    finally:
        await engine.stop()
    print(f"requests at the engine: {len(engine.requests)}")
    return status


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schemathesis", help="path of the schemathesis command")
    parser.add_argument("cases", type=int, nargs="?", default=10_000, help="number of requests; 10000 by default")
    options = parser.parse_args()
    return asyncio.run(run(str(Path(options.schemathesis).absolute()), options.cases))


if __name__ == "__main__":
    sys.exit(main())
