"""Where things are. Nothing is written outside the repository's folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".local"
LOGS = STATE / "logs"
MODELS = STATE / "models"
CACHE = STATE / "cache"
API_KEY = STATE / "api-key"
ENDPOINT = STATE / "endpoint"
"""Address of the gateway while it runs; clients read it."""
API_KEYS = STATE / "api-keys.json"
REPLICAS = STATE / "replicas"
CURL_HEADERS = STATE / "curl-headers"
LOCAL_ENVIRONMENT = ROOT / ".venv-local"
ENGINE_ENVIRONMENT = ROOT / ".venv-engine"
REQUIREMENTS = ROOT / "requirements"

LONGEST_SOCKET_FOLDER = 107 - 37  # sun_path, less the "/" and the UUID that vLLM names its sockets with


def temporary_folder() -> Path:
    """A folder for TMPDIR; short, as vLLM makes Unix sockets in it. The caller makes and removes it."""
    inside = STATE / "tmp"
    if len(str(inside)) <= LONGEST_SOCKET_FOLDER:
        return inside
    return Path("/tmp") / f"vllm-local-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]}"  # noqa: S108
