"""The endpoint under test: command-line options in, a `Target` out."""

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from image.gateway import keys_document
from infra.command_line import positive
from infra.identity import Identity
from infra.web_address import AddressError, WebAddress, basic, parse, use_no_proxy_for_this_machine
from smoke_tests.errors import TargetError
from smoke_tests.options import (
    add_api_key_file,
    add_endpoint,
    add_endpoint_name,
    add_model,
    add_stack,
    check_stack_options,
)
from smoke_tests.stack import read_stack

API_KEY_VARIABLE = "VLLM_API_KEY"


@dataclass(frozen=True)
class Target:
    """An endpoint under test.

    Attributes:
        endpoint: base URL without `/v1`, without a trailing slash, and without user name and password.
        api_key: None if the endpoint requires none. Never part of a repr, so that a failing test cannot print it.
        model: empty until `cold_start.wait_for_answer` has asked the endpoint.
        stack: the stack's name; of another program's endpoint, PROJECT/STACK/NAME; None without a stack.
        identity: whose endpoint it is; None without a stack.
        user: "user:password" of Basic authentication, from the URL; empty if it has none. Never part of a repr.
        usd_per_hour: price of an active hour in the stack's plan; None without a stack.
        outputs: the stack's; empty without a stack.
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
    user: str = field(default="", repr=False)
    outputs: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    identity: Identity | None = field(default=None, compare=False)

    @property
    def openai_base_url(self) -> str:
        """The base URL for the OpenAI SDK."""
        return f"{self.endpoint}/v1"

    @property
    def headers(self) -> dict[str, str]:
        """The Authorization header: the user name and password of the URL, else the API key; empty without both."""
        if self.user:
            return {"Authorization": basic(self.user)}
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of programs that ask an endpoint for completions."""
    where = parser.add_mutually_exclusive_group(required=True)
    add_endpoint(where)
    add_stack(where)
    add_endpoint_name(parser)
    add_api_key_file(parser, f"${API_KEY_VARIABLE}, else the stack's secret")
    add_model(parser)
    parser.add_argument(
        "--wait-seconds",
        type=positive,
        default=900.0,
        metavar="S",
        help="how long to wait for a cold start (default 900)",
    )


def target_from_options(options: argparse.Namespace) -> Target:
    """Return the target that the options name.

    The key is read from `--api-key-file`, else from the environment, else from the stack's secret. Raises
    TargetError with a one-line message for the user.
    """
    address = endpoint_address(options.endpoint) if options.stack is None else None
    key = given_key(options.api_key_file)
    if address is not None:
        check_stack_options(options)
        if key and address.user:
            raise TargetError(one_authorization(options.api_key_file))
        use_no_proxy_for_this_machine(address.url)
        return Target(address.url, key, options.model, user=address.user)
    stack = read_stack(options.stack, options.endpoint_name, read_key=key is None)
    return Target(
        endpoint=normalize_endpoint(stack.endpoint),
        api_key=key or (first_key(stack.keys_document) if stack.keys_document is not None else None),
        model=options.model or stack.model,
        stack=stack.identity.tag if stack.identity.endpoint else options.stack,
        gpu=stack.gpu,
        gpu_count=stack.gpu_count,
        instance_type=stack.instance_type,
        region=stack.region,
        usd_per_hour=stack.usd_per_hour_active,
        outputs=stack.outputs,
        identity=stack.identity,
    )


def one_authorization(key_file: Path | None) -> str:
    """Why an API key and a user name in the endpoint are refused together."""
    source = "--api-key-file" if key_file else f"${API_KEY_VARIABLE}"
    return (
        f"{source} and the user name in --endpoint: a request has one Authorization header, which carries an API key or a "
        "user name and password. Give one of them"
    )


def normalize_endpoint(url: str) -> str:
    """Return `url` without user name, trailing slash and `/v1`; raises TargetError if it is not http or https."""
    return endpoint_address(url).url


def endpoint_address(url: str) -> WebAddress:
    """Return the address of an endpoint, given with or without `/v1`. Raises TargetError, which hides the password."""
    try:
        return parse(url.strip().rstrip("/").removesuffix("/v1"))
    except AddressError as error:
        raise TargetError(f"--endpoint: {error}") from None


def first_key(document: str) -> str:
    """Return the first usable key of a keys document, read as the gateway reads it.

    Skips expired keys and keys for health checks. Raises TargetError if no key is left; no message contains a key.
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


def given_key(path: Path | None) -> str | None:
    """Return the key of a file, else that of the environment; None without both. Raises TargetError."""
    if path is None:
        given = os.environ.get(API_KEY_VARIABLE, "").strip()
        return first_key(given) if given else None
    try:
        document = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise TargetError(f"--api-key-file: cannot read {path}: {reason}") from None
    return first_key(document)
