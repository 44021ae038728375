"""The reason for each difference between the gateway and nginx."""

from __future__ import annotations

from typing import NamedTuple

REFUSED = "400; closed"


class Reason(NamedTuple):
    """A group of differences: the heading, the justification, and the gateway's outcome for each request."""

    title: str
    why: str
    ours: dict[str, str]


def _refused(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, REFUSED)


def _all(prefix: str, ours: str, *names: str) -> dict[str, str]:
    return {f"{prefix}: {name!r}": ours for name in names}


REASONS = (
    Reason(
        "Rejected: bytes that RFC 9112 forbids and nginx tolerates",
        "Request smuggling requires two parsers that tolerate different bytes. No client sends these.",
        _all(
            "line",
            REFUSED,
            *("GET  /health HTTP/1.1", "GET /health  HTTP/1.1", "GET /health HTTP/1.1 ", "GET ftp://x/health HTTP/1.1"),
            *("GET /health#a HTTP/1.1", "GET /health?a#b HTTP/1.1", "GET /health\xe9 HTTP/1.1"),
        )
        | _all("header", REFUSED, "a", "a: b\x01", "a: b\x7f", "a\xe9: b", "a(: b", "a,: b", "a/: b", "a: b\nc: d", "a: b\r\r\nc: d")
        | _all("host", REFUSED, "host: x:y", "host: x:99999999", "host: [::1", "host: a@x", "host: x\\y", "host: \xe9", "host: x?y")
        | _refused("LF alone throughout", "LF alone at the end", "content-type twice")
        | _refused(
            *("chunks: space behind the size", "chunks: extension with NUL", "chunks: extension without a semicolon"),
            *("chunks: LF behind the size", "chunks: LF behind the data", "chunks: LF behind the last"),
            *("chunks: trailer without a colon", "chunks: trailer with LF", "chunks: trailer, folded", "chunks: trailer with NUL"),
        ),
    ),
    Reason(
        "Rejected: unbounded numbers and versions",
        "RFC 9112 allows a bound on a chunk's size. HTTP/1.0 and HTTP/1.1 are the only versions served.",
        _refused("chunks: many leading zeros") | _all("line", REFUSED, "GET /health HTTP/1.2", "GET /health HTTP/1.10"),
    ),
    Reason(
        "The same rejection under another status",
        "The gateway responds with 400 and an error in OpenAI's format to everything that is not valid HTTP, and closes the connection. nginx uses 405, 501 and 505 for some of it.",
        _all("line", REFUSED, "GET /health HTTP/2.0", "GET /health HTTP/9.9", "BREW /health HTTP/1.1", "CONNECT /health HTTP/1.1")
        | _all(
            "transfer-encoding",
            REFUSED,
            *("\x0bchunked", "chunked\x0b", "chunked,", ",chunked", "chunked, chunked", "identity", "identity, chunked"),
            *("chunked, identity", "gzip, chunked", "gzip", "xchunked", "chunkedx", '"chunked"', "", "chunked;a=b", "trailers"),
        ),
    ),
    Reason(
        "A response where nginx only closes",
        "nginx closes the connection without a response to HTTP/0.9, and when a head or a body times out. The gateway returns the reason.",
        _all("line", REFUSED, "GET /health")
        | dict.fromkeys(
            (
                "content-length: over by one",
                "half a head",
                "half a body",
                "chunks: data shorter than its size",
                "chunks: end without an empty line",
            ),
            "408; closed",
        ),
    ),
    Reason(
        "An unknown path where nginx has its own rules",
        "The gateway serves a fixed list of paths. It decodes percent-encoding before comparing, but does not resolve dots. Every other path is a "
        "404, and the connection stays open. Request lines may be as long as all headers together, 64 KiB.",
        _all(
            "line",
            "404; open",
            *("OPTIONS * HTTP/1.1", "GET /he%6 HTTP/1.1", "GET /health%00 HTTP/1.1", "GET /a/../health HTTP/1.1", "GET /./health HTTP/1.1"),
        )
        | _all("line", "405; open", "TRACE /health HTTP/1.1")
        | {"a line of 9,000 bytes": "200; open"},
    ),
    Reason(
        "Doubled slashes",
        "Clients join a base URL that ends in a slash with a path that begins with one. The gateway serves the path; nginx does so only with "
        "`merge_slashes`, which is off here.",
        _all("line", "200; open", "GET //health HTTP/1.1"),
    ),
    Reason(
        "A tab is white space",
        "RFC 9110 allows a tab before a value. llhttp removes it, which leaves `chunked`. nginx rejects the request, so the two cannot disagree.",
        {"transfer-encoding: '\\tchunked'": "200; engine 41 B 8d512b; open"},
    ),
    Reason(
        "The gateway reads the body before an engine does",
        "The gateway rejects a body that is not JSON. nginx forwards it to the engine; the fake engine of this run accepts any body. Both agree on "
        "where the body ends.",
        {
            "content-length: short by one": "400, 400; closed",
            "content-length: 0, body follows": "400, 400; closed",
            "no framing, body follows": "400, 400; closed",
            "transfer_encoding": "400, 400; closed",
            "content-encoding: gzip": "200; engine 41 B 8d512b; open",
        }
        | {f"upgrade: {upgrade}, a request as the body": "400, 200; open" for upgrade in ("h2c", "websocket", "foo", "TLS/1.0")},
    ),
    Reason(
        "HTTP/1.0 without keep-alive",
        "`Connection: keep-alive` is an extension of HTTP/1.0 that a server may ignore.",
        {"connection: keep-alive in HTTP/1.0": "200; closed"},
    ),
)  # fmt: skip


def reason_of(name: str, ours: str) -> Reason | None:
    """The reason for a difference, or None."""
    for reason in REASONS:
        if reason.ours.get(name) == ours:
            return reason
    return None
