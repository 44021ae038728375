"""The seconds of each phase of each start, from the timestamped logs of the engine's benchmarks.

    python -m benchmarks.engine.ledger ~/results/logs/*.log

Prints a Markdown table with a row per log. docs/benchmarks/engine/boots.md is the table of all five sessions.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

# Phase -> the log line that ends it. The cell of a phase without this line is empty; eager mode captures no graphs.
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
    """Print the table. Each line of a log begins with the seconds since the start."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, nargs="+", help="logs of starts; each row is named after its file")
    table(parser.parse_args().logs)
