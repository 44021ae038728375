"""Which headers go through, and the head of a request to a replica."""

from __future__ import annotations

from image.gateway.exchange import Exchange

# Of one connection only (RFC 9110, 7.6.1), or said anew by this hop.
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
"""Where clients send their key: OpenAI's, Anthropic's and Azure's."""

# The client's key and the page's origin are the gateway's business; a compressed answer could not be counted, a
# compressed body has been inflated; the rest is set below.
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
# vLLM lets the pages of every origin read its answers; which may is said by this gateway.
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
    """The head of an exchange's request as a replica is sent it."""
    scope = exchange.scope
    query: bytes = scope["query_string"]
    # The path as this gateway has it in its list, never as the client spelt it.
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
    """Headers that a client's Connection header declares to be for this hop only."""
    values = (value for name, value in headers if name == b"connection")
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))
