"""Cross-origin requests: which web pages may use the endpoint from a browser (https://fetch.spec.whatwg.org/#http-cors-protocol).

Access is controlled by API keys; CORS only tells browsers which pages may send a request and read the answer. Cookies are
not used: no answer allows credentials.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from image.gateway import errors

if TYPE_CHECKING:
    from image.gateway.exchange import Exchange

EVERY_ORIGIN = "*"
_EXPOSED = (b"access-control-expose-headers", b"x-request-id, retry-after")
_METHODS = (b"access-control-allow-methods", b"GET, HEAD, POST")
_MAX_AGE = (b"access-control-max-age", b"7200")  # Chromium's maximum
_VARY = (b"vary", b"Origin")
_PREFLIGHT_VARY = (b"vary", b"Access-Control-Request-Method, Access-Control-Request-Headers")
# Header names separated by commas. They are echoed: SDKs add new ones with each release, and browsers reject forbidden
# names themselves.
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+( *, *[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
_ORIGIN = re.compile(r"https?://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")

Headers = tuple[tuple[bytes, bytes], ...]


def parse_origins(value: str) -> tuple[str, ...]:
    """Origins separated by commas, or `*`; raises ValueError."""
    origins = tuple(part.strip() for part in value.split(","))
    for origin in origins:
        if origin == EVERY_ORIGIN:
            if len(origins) > 1:
                raise ValueError("contains * and other origins; set * alone, or the origins without it")
        elif origin == "null":
            # Any page can have the origin null, in a sandboxed frame.
            raise ValueError("names null, the origin of every sandboxed frame; set the page's own origin, or * for all")
        elif not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is not an origin; set SCHEME://HOST[:PORT] in lower case, without a path, such as https://app.example.com"
            )
    return origins


class Cors:
    """The CORS headers for the configured origins. Without origins, no page of another origin can use the endpoint."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._every = EVERY_ORIGIN in origins
        self._origins = frozenset(origin.encode() for origin in origins)
        self._other: Headers = (_VARY,) if origins and not self._every else ()

    def headers(self, exchange: Exchange) -> Headers:
        """The CORS headers of every answer to this request, including errors and streams."""
        origin = exchange.headers.get(b"origin")
        if origin is None:
            return self._other  # `Vary`, so that a cache does not reuse it for a page
        if self._every:
            return ((b"access-control-allow-origin", b"*"), _EXPOSED)
        if origin in self._origins:
            return ((b"access-control-allow-origin", origin), _EXPOSED, _VARY)
        return self._other

    @staticmethod
    def is_preflight(exchange: Exchange) -> bool:
        """Whether this is a preflight request. Browsers send it without the page's API key."""
        headers = exchange.headers
        return exchange.method == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers

    def preflight(self, exchange: Exchange) -> Headers:
        """The headers of the answer to a preflight request; raises the 403."""
        headers = exchange.headers
        origin = headers[b"origin"]
        if not self._every and origin not in self._origins:
            raise errors.origin_not_allowed(origin.decode("latin-1"))
        asked = headers.get(b"access-control-request-headers", b"")
        allowed: Headers = ()
        if _HEADER_NAMES.fullmatch(asked):
            allowed = ((b"access-control-allow-headers", asked),)
        return (_METHODS, *allowed, _MAX_AGE, _PREFLIGHT_VARY)
