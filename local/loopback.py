"""Requests to this machine. They bypass proxies, which would connect to their own loopback."""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse
from typing import cast

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def base_url(port: int) -> str:
    """The base URL of the local endpoint for an OpenAI client."""
    return f"http://127.0.0.1:{port}/v1"


def open_loopback(url: str | urllib.request.Request, timeout: float) -> HTTPResponse:
    """Send a request without a proxy; raises OSError like `urllib.request.urlopen`."""
    return cast(HTTPResponse, _opener.open(url, timeout=timeout))
