"""Which headers are forwarded, and the headers of a request to a replica."""

from __future__ import annotations

from image.gateway.exchange import Exchange

# Hop-by-hop headers (RFC 9110, 7.6.1), and headers that the gateway sets itself.
_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
KEY_HEADERS = frozenset((b"authorization", b"x-api-key", b"api-key"))
"""The headers in which clients of OpenAI, Anthropic and Azure send their key."""

# The gateway itself checks the client's key and the page's origin. Tokens of a compressed answer could not be counted. The
# body is already decompressed. The others are set below.
_NOT_UPSTREAM = (
    _HOP_BY_HOP
    | KEY_HEADERS
    | {
        b"accept-encoding",
        b"content-encoding",
        b"content-length",
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        b"origin",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
    }
)
_TRACE_HEADERS = frozenset((b"traceparent", b"tracestate"))
# vLLM allows every origin to read its answers; the gateway sets its own CORS headers instead.
_CORS_HEADERS = frozenset(
    b"access-control-" + name
    for name in (
        b"allow-credentials",
        b"allow-headers",
        b"allow-methods",
        b"allow-origin",
        b"expose-headers",
        b"max-age",
    )
)
NOT_DOWNSTREAM = _HOP_BY_HOP | _CORS_HEADERS | {b"date", b"server", b"vary", b"x-request-id"}


def request_head(exchange: Exchange, host: bytes) -> bytes:
    """The request line and headers sent to a replica."""
    scope = exchange.scope
    query: bytes = scope["query_string"]
    # The path from the gateway's own list, never as the client sent it.
    target = exchange.label.encode() + (b"?" + query if query else b"")
    lines = [
        b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\nx-forwarded-for: %b"
        % (target, host, len(exchange.body), exchange.request_id.encode(), exchange.client.encode())
    ]
    dropped = _NOT_UPSTREAM
    if b"connection" in exchange.headers:
        dropped |= _named_by_connection(scope["headers"])
    if exchange.trace_headers:
        dropped |= _TRACE_HEADERS
        lines += [name + b": " + value for name, value in exchange.trace_headers]
    for name, value in scope["headers"]:
        if name not in dropped:
            lines.append(name + b": " + value)
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def _named_by_connection(headers: list[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Headers that the client's Connection header declares as hop-by-hop."""
    values = (value for name, value in headers if name == b"connection")
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))
