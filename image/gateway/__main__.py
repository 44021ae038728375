"""`python -m image.gateway`: read the settings from the environment, then serve until SIGTERM.

Exit status: 0 after a drain, 1 after a failure or a second signal, 2 if the settings are invalid.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys

import uvloop

from image.gateway import open_files
from image.gateway.keys import KeysError
from image.gateway.service import ListenError, Service
from image.gateway.settings import Settings, SettingsError

_OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


async def _serve(settings: Settings) -> None:
    tracer = None
    if any(os.environ.get(variable) for variable in _OTLP_ENDPOINTS):
        from image.gateway import tracing  # imported here: only a gateway with tracing needs the memory

        tracer = tracing.otlp(os.environ)
    service = Service(settings, tracer=tracer)
    service.stop_on_signals()
    # Loaded modules are never freed. Scanning them blocks the event loop for 20 to 40 ms per garbage collection.
    gc.freeze()
    await service.run()


def main() -> int:
    """Run the gateway; returns its exit status."""
    open_files.raise_limit()
    try:
        settings = Settings.from_environment(os.environ)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except SettingsError as error:
        for problem in error.problems:
            print(f"gateway: {problem}", file=sys.stderr)
        return 2
    except (KeysError, ListenError) as error:
        for problem in str(error).splitlines():
            print(f"gateway: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m image.gateway",
        description="Run the gateway. It reads its settings from the environment variables GATEWAY_*; docs/gateway.md lists them.",
    )
    parser.parse_args()
    sys.exit(main())
