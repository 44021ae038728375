"""Tens of thousands of mutated requests: does the gateway parse them differently from the servers around it?

    .venv/bin/python -m benchmarks.gateway.fuzz

Each connection sends one to three of forty seed requests, with up to three mutations each, in up to six parts. It goes to the
gateway directly, or to a real nginx that shares four connections to the gateway. The engines are uvicorn's two HTTP servers,
one of which vLLM uses; h11 parses the same bytes. The class Found in benchmarks/gateway/fuzzing.py has the properties that
must hold. The exit status is 1 if one does not.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.gateway.fuzzing import fuzz
from benchmarks.gateway.nginx import NGINX
from benchmarks.reports import publish


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
    """Run both, and print the results. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="connections to the gateway; 20000 by default")
    parser.add_argument("--behind-nginx", type=int, default=5000, help="connections through nginx; 5000 by default")
    parser.add_argument("--seed", type=int, default=1, help="random seed; 1 by default")
    parser.add_argument("--out", type=Path, help="write the results to this file as JSON")
    options = parser.parse_args()
    if options.behind_nginx and NGINX is None:
        parser.error("--behind-nginx: nginx was not found. Install it, or set --behind-nginx 0")
    runs = [_run(options.cases, options.seed, behind_nginx=False)]
    if options.behind_nginx:
        runs.append(_run(options.behind_nginx, options.seed + 1, behind_nginx=True))
    versions = {name: metadata.version(name) for name in ("h11", "httptools", "uvicorn")}
    publish({"python": platform.python_version(), **versions, "runs": runs}, options.out)
    return 1 if any(run["problems"] for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
