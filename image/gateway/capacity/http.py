"""JSON requests to the platform's API, in a thread: at most a few per minute."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any

from image.gateway.backends import Address
from image.gateway.capacity.base import NO_ANSWER, ScalingError

_TIMEOUT_SECONDS = 15
_LONGEST_ANSWER_BYTES = 4 << 20


async def ask(
    address: Address,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> tuple[int, Any]:
    """Send a request; returns the status and the JSON document (None if empty). Raises ScalingError without an answer."""
    return await asyncio.to_thread(_ask, address, method, path, body, headers or {}, tls)


def _ask(
    address: Address, method: str, path: str, body: Any, headers: Mapping[str, str], tls: ssl.SSLContext | None
) -> tuple[int, Any]:
    connection = (
        http.client.HTTPConnection(*address, timeout=_TIMEOUT_SECONDS)
        if tls is None
        else http.client.HTTPSConnection(*address, timeout=_TIMEOUT_SECONDS, context=tls)
    )
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        text = response.read(_LONGEST_ANSWER_BYTES)
        return response.status, json.loads(text) if text.strip() else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        where = f"{address[0]}:{address[1]}{path.partition('?')[0]}"
        raise ScalingError(NO_ANSWER, f"{method} {where}: {error or type(error).__name__}") from None
    finally:
        connection.close()
