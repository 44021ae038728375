"""Requests to this machine. A proxy that the shell names is for the way out, and would be asked for its own loopback."""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse
from typing import cast

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def base_url(port: int) -> str:
    """Where an OpenAI client finds the endpoint of `make local`."""
    return f"http://127.0.0.1:{port}/v1"


def open_loopback(url: str | urllib.request.Request, timeout: float) -> HTTPResponse:
    """Ask, past any proxy; raises OSError as `urllib.request.urlopen` does."""
    return cast(HTTPResponse, _opener.open(url, timeout=timeout))
