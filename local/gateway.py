"""Runs the gateway as a process on this machine, with the plan's settings where they apply."""

from __future__ import annotations

import json
import os
import secrets
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from image.gateway import keys_document
from infra.planning.plan import ServingPlan
from infra.planning.proxies import with_direct_addresses
from local import folders
from local.failures import LocalError, reason
from local.loopback import open_loopback
from local.machine import Machine
from local.processes import Child
from local.progress import Progress

DRAIN_SECONDS = 30
READY_SECONDS = 30.0
FIRST_TOKEN_SECONDS = 300.0


def make_key() -> str:
    """The first valid API key of this clone, from the gateway's keys document. The key and curl's headers are also written
    to separate files. All files are created once and readable only by their owner.

    Raises:
        LocalError: the document is invalid, or every key in it has expired.
    """
    if not folders.API_KEYS.exists():
        # Older clones have a key, but no document.
        key = folders.API_KEY.read_text().strip() if folders.API_KEY.exists() else f"sk-{secrets.token_urlsafe(24)}"
        _write_private(folders.API_KEYS, json.dumps({"default": key}) + "\n")
    try:
        keys = keys_document.parse(folders.API_KEYS.read_text())
    except keys_document.KeysError as error:
        raise LocalError(f"{folders.API_KEYS}: {error.problems[0]}") from None
    good = (text for text, of in keys.items() if not of.health and (of.expires is None or of.expires > time.time()))
    if (key := next(good, "")) == "":
        raise LocalError(f"every key in {folders.API_KEYS} has expired; add one with make key LOCAL=1 ADD=NAME")
    _write_private(folders.API_KEY, f"{key}\n")
    _write_private(folders.CURL_HEADERS, f"Authorization: Bearer {key}\nContent-Type: application/json\n")
    return key


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def information(plan: ServingPlan, machine: Machine, engine_version: str, stand_in_because: str) -> dict[str, Any]:
    """The information for /info: the plan's, corrected for this machine."""
    planned: dict[str, Any] = json.loads(plan.gateway.environment["GATEWAY_INFO"])
    for name in ("engine_image", "instance_types"):
        planned.pop(name, None)
    told = {
        **planned,
        "gpu": machine.gpu_names[0] if machine.has_gpu else None,
        "gpu_count": len(machine.gpu_names),
        "runs_on": str(machine),
        "engine_version": engine_version,
        "stand_in": bool(stand_in_because),
    }
    return told | ({"stand_in_because": stand_in_because} if stand_in_because else {})


def environment(
    plan: ServingPlan, port: int, metrics_port: int, supervisor_url: str, info: Mapping[str, Any]
) -> dict[str, str]:
    """The gateway's environment: the plan's, with this machine's addresses."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    missing = ("GATEWAY_ADAPTERS",) if info.get("stand_in") else ()  # a stand-in has no adapters
    told = {
        **inherited,
        **{name: value for name, value in plan.gateway.environment.items() if name not in missing},
        "GATEWAY_CHAT_PAGE": "1",
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_METRICS_PORT": str(metrics_port),
        "GATEWAY_DISCOVERY": f"file:{folders.REPLICAS}",
        "GATEWAY_DISCOVERY_SECONDS": "0.2",  # a file, which is cheaper to read than DNS
        "GATEWAY_CAPACITY": f"local:{supervisor_url}",
        "GATEWAY_KEYS": f"file:{folders.API_KEYS}",
        "GATEWAY_MEDIA_HOSTS": _media_hosts(plan),
        "GATEWAY_COUNT": "1",  # this machine runs one gateway, regardless of the stack
        "GATEWAY_DRAIN_DELAY_SECONDS": "0",  # there is no load balancer that has to notice
        "GATEWAY_DRAIN_TIMEOUT_SECONDS": str(DRAIN_SECONDS),
        "GATEWAY_INFO": json.dumps(info),
    }
    return with_direct_addresses(told)


def _media_hosts(plan: ServingPlan) -> str:
    """The stack's hosts and this machine, from which its owner may fetch."""
    planned = plan.gateway.environment.get("GATEWAY_MEDIA_HOSTS")
    return f"{planned},127.0.0.1" if planned else "127.0.0.1"


def start(python: Path, variables: Mapping[str, str], port: int, progress: Progress) -> Child:
    """Start the gateway and wait until it is ready.

    Raises:
        LocalError: it exited, or timed out.
    """
    log = folders.LOGS / "gateway.log"
    log.unlink(missing_ok=True)
    child = Child("gateway", [python, "-m", "image.gateway"], log, variables, folders.ROOT)
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if (code := child.wait(0.1, progress.tick)) is not None:
            raise LocalError(f"the gateway exited: {reason(child.output(), code)}", log)
        try:
            with open_loopback(f"http://127.0.0.1:{port}/health/ready", 5):
                return child
        except OSError:
            continue
    child.stop(2)
    raise LocalError("the gateway did not become ready", log)


def first_token(base_url: str, model: str, key: str) -> str:
    """Request a short stream through the gateway; returns its first text as soon as it arrives.

    Raises:
        LocalError: no text arrived.
    """
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 16, "stream": True}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{base_url}/chat/completions", json.dumps(body).encode(), headers)  # noqa: S310
    try:
        with open_loopback(request, FIRST_TOKEN_SECONDS) as answer:
            for text in _texts(answer):
                return text
    except (OSError, ValueError) as error:
        raise LocalError(f"the first request failed: {error}", folders.LOGS / "gateway.log") from None
    raise LocalError("the answer to the first request contains no text", folders.LOGS / "engine.log")


def _texts(lines: Iterator[bytes]) -> Iterator[str]:
    for line in lines:
        if line.startswith(b"data: {"):
            event = json.loads(line[len(b"data: ") :])
            if "error" in event:
                raise ValueError(event["error"].get("message", "an error without a message"))
            for choice in event.get("choices", []):
                delta = choice.get("delta", {})
                if text := delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content"):
                    yield text
