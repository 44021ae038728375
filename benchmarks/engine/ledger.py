"""Where the seconds of each start went, from the stamped logs.

Usage: ledger.py trim LOGS_FOLDER >> boots.log     keep the lines that mark a phase, with the boot's name
       ledger.py table boots.log NAME ...          a table of the named boots (all when none is named)
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
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
KEPT = re.compile(
    "|".join(PHASES.values())
    + r"|Resolved architecture|Dynamo bytecode|Directly load|saved AOT|Available KV cache|Applying persisted|not applied"
    r"|DeepGEMM warmup: 100%|Using V\d Model Runner|FlashAttention version|Free memory on device|GET /health"
)
PRIVATE = (
    (re.compile(r"/root\b"), "~"),
    (re.compile(r"/\S+/bin/python3"), "python3"),
    (re.compile(r" pid=\d+"), ""),
)
LONGEST_LINE = 260


def trim(folder: Path) -> None:
    """Print ``NAME SECONDS TEXT`` for each line that marks a phase; the first request only, no folder of a machine."""
    for path in sorted(folder.glob("*.log")):
        for line in path.read_text(errors="replace").splitlines():
            if KEPT.search(line):
                for pattern, text in PRIVATE:
                    line = pattern.sub(text, line)
                print(path.stem, line[:LONGEST_LINE].strip())
                if '"POST /v1/completions' in line:
                    break


def table(path: Path, names: list[str]) -> None:
    """Print the seconds of each phase, a boot a row."""
    boots: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for line in path.read_text().splitlines():
        name, seconds, text = line.split(maxsplit=2)
        boots[name].append((float(seconds), text))
    print("| start | " + " | ".join(PHASES) + " | first token |")
    print("|---" * (len(PHASES) + 2) + "|")
    for name in names or sorted(boots):
        cells, before = [], 0.0
        for pattern in PHASES.values():
            ends = [seconds for seconds, text in boots[name] if re.search(pattern, text)]
            cells.append(f"{ends[0] - before:.1f}" if ends else "")
            before = ends[0] if ends else before
        print(f"| {name} | " + " | ".join(cells) + f" | {before:.1f} |")


if __name__ == "__main__":
    if sys.argv[1] == "trim":
        trim(Path(sys.argv[2]))
    else:
        table(Path(sys.argv[2]), sys.argv[3:])
