"""HTTP clients for a target. An endpoint on this machine is never reached through a proxy; others as the environment says."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import httpx2
import openai

from infra.web_address import is_local_url, redact
from smoke_tests.errors import TargetError
from smoke_tests.target import Target

T = TypeVar("T")


def sync_client(target: Target, *, timeout: float, with_key: bool = True) -> httpx2.Client:
    """Return a client with the target's base URL, and its credentials unless `with_key` is false. Raises TargetError."""
    transport = httpx2.HTTPTransport(verify=_tls_context()) if is_local_url(target.endpoint) else None
    headers = target.headers if with_key else {}
    return _made(target, httpx2.Client, base_url=target.endpoint, headers=headers, timeout=timeout, transport=transport)


def async_client(target: Target, *, timeout: httpx2.Timeout) -> httpx2.AsyncClient:
    """The same for asyncio."""
    transport = httpx2.AsyncHTTPTransport(verify=_tls_context()) if is_local_url(target.endpoint) else None
    return _made(
        target,
        httpx2.AsyncClient,
        base_url=target.endpoint,
        headers=target.headers,
        timeout=timeout,
        transport=transport,
    )


def openai_client(target: Target, *, timeout: float) -> openai.OpenAI:
    """Return OpenAI's SDK for the target, without retries: a retry would hide a failure. Raises TargetError."""
    transport = httpx2.HTTPTransport(verify=_tls_context()) if is_local_url(target.endpoint) else None
    http = _made(target, openai.DefaultHttpxClient, timeout=timeout, transport=transport)
    return openai.OpenAI(
        base_url=target.openai_base_url, api_key=target.api_key or "none", max_retries=0, timeout=timeout,
        default_headers=target.headers if target.user else None, http_client=http,
    )  # fmt: skip


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Read the certificate authorities once a process: it takes 25 ms, more than most requests to this machine."""
    return httpx2.create_ssl_context()


def _made(target: Target, kind: Callable[..., T], **arguments: Any) -> T:
    """Make a client. With a proxy that it cannot use, or a malformed NO_PROXY, its constructor raises whatever it likes."""
    try:
        return kind(**arguments)
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise TargetError(
            f"cannot use the proxy in the environment: {redact(str(error))} Set http_proxy, https_proxy and ALL_PROXY to "
            f"http://HOST:PORT, or add the host of {target.endpoint} to NO_PROXY"
        ) from None
