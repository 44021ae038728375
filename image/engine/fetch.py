"""``python3 -m image.engine.fetch [MODEL] [vllm serve arguments]``: download the weights, on a machine without a GPU.

The deployment runs it as a separate task, with the engine's arguments and environment, so that both use the same models.
"""

from __future__ import annotations

from image.engine.init import become_child

if __name__ == "__main__":
    become_child()  # before the imports below: as PID 1, this process does not receive SIGTERM yet

import os
import sys
from pathlib import Path

from image.engine.arguments import EngineError, settle
from image.engine.memory import GIB
from image.engine.prepare import fetch, prewarm_marker, say
from image.engine.usage import help_if_asked


def main() -> int:
    """Download, then start the engine once if ENGINE_PREWARM_TARGET is set and nothing is compiled yet; returns the exit
    code.
    """
    try:
        launch = settle(sys.argv[1:], os.environ)
        for weights in fetch(launch, None, say, ask=True):
            size_gib = weights.size_bytes / GIB
            say(f"weights: {weights.repository.name} at {weights.commit[:12]}, {size_gib:.2f} GiB, complete")
    except EngineError as error:
        print(f"engine: error: {error}", file=sys.stderr)
        return 2
    store, key, capacity = (
        os.environ.get(name, "") for name in ("ENGINE_CACHE", "ENGINE_PLAN_KEY", "ENGINE_PREWARM_TARGET")
    )
    if capacity and store and key:
        if prewarm_marker(Path(store), key).exists():
            say("compile cache: found, from an earlier start of this engine, model and arguments")
        else:
            say("compile cache: empty; starting the engine once, which stops again when idle")
            from image.engine import prewarm  # imported here: only the gateway's image has boto3

            prewarm.start(capacity)
    return 0


if __name__ == "__main__":
    help_if_asked("image.engine.fetch", "Download the weights that the engine needs, on a machine without a GPU.")
    sys.exit(main())
