"""Run the real gateway in a separate process, for tests that use it as its clients do."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from local.preflight import free_port
from tests.smoke_tests.fake_openai_server import MODEL

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 20.0


def wait_until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {SECONDS:.0f} s for {what}"
        time.sleep(0.01)


@contextmanager
def gateway(replicas: Path, keys: str = "none", key: str | None = None, **more: str) -> Iterator[str]:
    """Start the gateway in front of the replicas listed in a file; yields its base URL.

    `keys` is GATEWAY_KEYS and `key` one of the keys; `more` are additional environment variables.
    """
    port = free_port()
    variables = {
        "PATH": os.environ["PATH"], "GATEWAY_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "GATEWAY_MODEL": MODEL,
        "GATEWAY_METRICS_PORT": str(free_port()), "GATEWAY_DISCOVERY": f"file:{replicas}", "GATEWAY_KEYS": keys,
        "GATEWAY_PROBE_SECONDS": "0.05", "GATEWAY_DISCOVERY_SECONDS": "0.05",
        # The vision tests serve their images from this machine.
        "GATEWAY_MEDIA_HOSTS": "127.0.0.1", **more,
    }  # fmt: skip
    command = [sys.executable, "-m", "image.gateway"]
    with subprocess.Popen(command, cwd=REPOSITORY, env=variables, stdout=subprocess.DEVNULL) as process:
        try:
            endpoint = f"http://127.0.0.1:{port}"
            wait_until(lambda: ready_replicas(endpoint, key) == 1, "the gateway to find its replica")
            yield endpoint
        finally:
            process.kill()


def ready_replicas(endpoint: str, key: str | None = None) -> int:
    """Return the number of ready replicas of a gateway."""
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return int(httpx2.get(f"{endpoint}/info", headers=headers).json()["replicas"]["ready"])
    except httpx2.TransportError:
        return 0
