"""``python3 -m image.engine.fetch [MODEL] [vllm serve arguments]``: have the weights, on a machine without a GPU.

The deploy's own step. It takes the engine's arguments and environment as they are, so that both mean the same models.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from image.engine.arguments import EngineError, settle
from image.engine.memory import GIB
from image.engine.prepare import fetch, prewarm_marker, say
from image.engine.usage import help_if_asked


def main() -> int:
    """Fetch, then start the engine once where ENGINE_PREWARM_TARGET says so and nothing is compiled yet; returns the exit code."""
    try:
        launch = settle(sys.argv[1:], os.environ)
        for weights in fetch(launch, None, say, ask=True):
            size_gib = weights.size_bytes / GIB
            say(f"weights: {weights.repository.name} at {weights.commit[:12]}, {size_gib:.2f} GiB, whole")
    except EngineError as error:
        print(f"engine: error: {error}", file=sys.stderr)
        return 2
    store, key, capacity = (
        os.environ.get(name, "") for name in ("ENGINE_CACHE", "ENGINE_PLAN_KEY", "ENGINE_PREWARM_TARGET")
    )
    if capacity and store and key:
        if prewarm_marker(Path(store), key).exists():
            say("kept compiled: there, made by an earlier start of this engine, model and arguments")
        else:
            say("kept compiled: none yet; the engine is started once, and stops again when idle")
            from image.engine import prewarm  # boto3 is in the gateway's image only

            prewarm.start(capacity)
    return 0


if __name__ == "__main__":
    help_if_asked("image.engine.fetch", "Download the weights that the engine needs, on a machine without a GPU.")
    sys.exit(main())
