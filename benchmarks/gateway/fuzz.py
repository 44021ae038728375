"""Mutated requests by the ten thousand: does the gateway ever find other messages in them than the servers around it do?

    .venv/bin/python -m benchmarks.gateway.fuzz [--cases 20000] [--behind-nginx 5000] [--seed 1] [--out fuzz.json]

Forty seed requests, one to three on a connection, up to three changes each, sent in up to six parts: to the gateway itself, and to
a real nginx that shares four connections to it. Behind it are uvicorn's two HTTP servers, of which vLLM runs one; h11 reads the same
bytes. What must hold is in tests/image/gateway/fuzzing.py, whose short run is a test. Exits with 1 if anything did not.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h11
import httptools
import uvicorn
import uvloop

from benchmarks.gateway.fuzzing import fuzz


def _run(cases: int, seed: int, *, behind_nginx: bool) -> dict[str, Any]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(fuzz(cases, seed, Path(folder), behind_nginx=behind_nginx))
    return {
        "behind_nginx": behind_nginx,
        "seed": seed,
        "cases": found.cases,
        "seconds": round(time.monotonic() - began, 1),
        "answers": {str(status): count for status, count in sorted(found.answers.items())},
        "engine_requests": found.engine_requests,
        "refused_by_h11_only": found.stricter,
        "problems": found.problems[:20],
    }


def main() -> int:
    """Run both, print and write what came of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--behind-nginx", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runs = [_run(options.cases, options.seed, behind_nginx=False)]
    if options.behind_nginx:
        runs.append(_run(options.behind_nginx, options.seed + 1, behind_nginx=True))
    versions = {"h11": h11.__version__, "httptools": httptools.__version__, "uvicorn": uvicorn.__version__}
    text = json.dumps({"python": platform.python_version(), **versions, "runs": runs}, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    return 1 if any(run["problems"] for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
