"""Resolve command-line options to the endpoint under test, a `Target`."""

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from image.gateway import keys_document
from smoke_tests.errors import TargetError
from smoke_tests.stack import read_stack

API_KEY_VARIABLE = "VLLM_API_KEY"


def ask_loopback_directly(endpoint: str) -> None:
    """Have the clients here ask an endpoint on this machine past the proxy that the shell may name."""
    host = urlsplit(endpoint).hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        known = [os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy")]
        names = ",".join(dict.fromkeys([*filter(None, ",".join(known).split(",")), host]))
        os.environ |= {"NO_PROXY": names, "no_proxy": names}


@dataclass(frozen=True)
class Target:
    """An endpoint under test and its known properties.

    `endpoint` is the base URL without `/v1` and without a trailing slash. `api_key` is None if the endpoint
    requires none; a repr never contains it, so that a failing test cannot print it. `model` is empty until
    the endpoint has answered (see `cold_start.wait_for_answer`). `usd_per_hour` is the planned cost of an
    active hour. It is None, and `outputs` is empty, for an endpoint without a stack.
    """

    endpoint: str
    api_key: str | None = field(default=None, repr=False)
    model: str = ""
    stack: str | None = None
    gpu: str | None = None
    gpu_count: int | None = None
    instance_type: str | None = None
    region: str | None = None
    usd_per_hour: float | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def openai_base_url(self) -> str:
        """The base URL for the OpenAI SDK."""
        return f"{self.endpoint}/v1"

    @property
    def headers(self) -> dict[str, str]:
        """The headers with the API key; empty without a key."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all commands of this package share."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--endpoint", metavar="URL", help="base URL, with or without /v1")
    where.add_argument("--stack", help="Pulumi stack whose outputs name endpoint, model and key")
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help=f"file with the API key (else ${API_KEY_VARIABLE}, else the stack's secret)",
    )
    parser.add_argument("--model", default="", help="model to ask for (default: the stack's, else the first listed)")
    parser.add_argument(
        "--wait-seconds",
        type=float,
        default=900.0,
        metavar="S",
        help="how long to wait through a cold start (default 900)",
    )


def target_from_options(options: argparse.Namespace) -> Target:
    """Return the target that the options name.

    The key is read from `--api-key-file`, else from the environment, else from the stack's secret. Raises
    TargetError with a one-line message for the user.
    """
    key = _given_key(options.api_key_file)
    if options.stack is None:
        endpoint = normalize_endpoint(options.endpoint)
        ask_loopback_directly(endpoint)
        return Target(endpoint, key, options.model)
    stack = read_stack(options.stack, read_key=key is None)
    return Target(
        endpoint=normalize_endpoint(stack.endpoint),
        api_key=key or (first_key(stack.keys_document) if stack.keys_document is not None else None),
        model=options.model or stack.model,
        stack=options.stack,
        gpu=stack.gpu,
        gpu_count=stack.gpu_count,
        instance_type=stack.instance_type,
        region=stack.region,
        usd_per_hour=stack.usd_per_hour_active,
        outputs=stack.outputs,
    )


def normalize_endpoint(url: str) -> str:
    """Return `url` without a trailing slash or `/v1`; raises TargetError unless it is http(s)."""
    base = url.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TargetError(f"--endpoint: {url!r} is no URL; give one such as http://127.0.0.1:8080")
    return base


def first_key(document: str) -> str:
    """Return the first usable key of a keys document, parsed as the gateway parses it.

    Expired keys and health-check keys are skipped. Raises TargetError if no key is usable; the message contains no key.
    """
    try:
        keys = keys_document.parse(document)
    except keys_document.KeysError as error:
        raise TargetError(f"the API keys document cannot be used: {error.problems[0]}") from None
    for text, key in keys.items():
        if not key.health and (key.expires is None or key.expires > time.time()):
            return text
    raise TargetError(
        "every key of the API keys document has expired or is for health checks; add one with make key ADD=NAME"
    )


def _given_key(path: Path | None) -> str | None:
    if path is None:
        given = os.environ.get(API_KEY_VARIABLE, "").strip()
        return first_key(given) if given else None
    try:
        document = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise TargetError(f"--api-key-file: cannot read {path}: {reason}") from None
    return first_key(document)
