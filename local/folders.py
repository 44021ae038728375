"""Paths of files and folders. Nothing is written outside the repository."""

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
"""The gateway's address while it runs, for clients."""
API_KEYS = STATE / "api-keys.json"
REPLICAS = STATE / "replicas"
CURL_HEADERS = STATE / "curl-headers"
LOCAL_ENVIRONMENT = ROOT / ".venv-local"
ENGINE_ENVIRONMENT = ROOT / ".venv-engine"
REQUIREMENTS = ROOT / "requirements"

LONGEST_SOCKET_FOLDER = 107 - 37  # sun_path, less the "/" and the UUID that vLLM names its sockets with


def temporary_folder() -> Path:
    """A folder for TMPDIR. It is short, because vLLM creates Unix sockets in it. The caller creates and removes it."""
    inside = STATE / "tmp"
    if len(str(inside)) <= LONGEST_SOCKET_FOLDER:
        return inside
    return Path("/tmp") / f"vllm-local-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]}"  # noqa: S108
