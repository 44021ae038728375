"""Where the seconds of each start went, from the stamped logs.

Usage: ledger.py LOGS_FOLDER/*.log    a table of the boots, each named after its log; `boots.md` is that of all five sessions
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

# Phase -> the line that ends it. A phase whose line is missing (no graphs in eager mode) is left out.
PHASES = {
    "import": r"non-default args",
    "configure, engine process": r"Initializing a V1 LLM engine",
    "device, distributed": r"Loading model from scratch",
    "weights": r"Model loading took",
    "compile or load code": r"torch\.compile took",
    "profile": r"GPU KV cache size",
    "kernels": r"Capturing CUDA graphs \(PIECEWISE\):   0%",
    "graphs": r"Graph capturing finished",
    "warm-up": r"init engine \(profile",
    "API, first token": r'"POST /v1/completions',
}


def table(paths: Sequence[Path]) -> None:
    """Print the seconds of each phase, a boot a row; each log's lines begin with the seconds since the start."""
    print("| start | " + " | ".join(PHASES) + " | first token |")
    print("|---" * (len(PHASES) + 2) + "|")
    for path in sorted(paths):
        lines = path.read_text(errors="replace").splitlines()
        cells, before = [], 0.0
        for pattern in PHASES.values():
            ends = [float(line.split(maxsplit=1)[0]) for line in lines if re.search(pattern, line)]
            cells.append(f"{ends[0] - before:.1f}" if ends else "")
            before = ends[0] if ends else before
        print(f"| {path.stem} | " + " | ".join(cells) + f" | {before:.1f} |")


if __name__ == "__main__":
    table([Path(name) for name in sys.argv[1:]])
