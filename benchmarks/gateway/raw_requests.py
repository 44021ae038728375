"""About 280 raw requests, at and beyond the limits of RFC 9112, for the differential run against nginx."""

from __future__ import annotations

import gzip
import json

from fakes.fake_engine import MODEL

BODY = json.dumps({"model": MODEL, "prompt": "Hi"}).encode()
PATH = "/v1/completions"
JSON = "content-type: application/json\r\n"
HOST = "host: x\r\n"


def post(
    headers: str = "", body: bytes = BODY, *, length: str | None = None, line: str = "", host: str = HOST
) -> bytes:
    """A completion request; `length` is the header that frames its body."""
    framing = f"content-length: {len(body)}\r\n" if length is None else length
    return f"{line or f'POST {PATH} HTTP/1.1'}\r\n{host}{JSON}{headers}{framing}\r\n".encode("latin-1") + body


def get(line: str = "GET /health HTTP/1.1", headers: str = HOST) -> bytes:
    """A request without a body."""
    return f"{line}\r\n{headers}\r\n".encode("latin-1")


def chunked(chunks: bytes, coding: str = "chunked", headers: str = "") -> bytes:
    """A completion request with a chunked body."""
    return post(headers, chunks, length=f"transfer-encoding: {coding}\r\n")


WHOLE = b"%x\r\n%b\r\n" % (len(BODY), BODY)
LAST = b"0\r\n\r\n"
GOOD = WHOLE + LAST
LENGTH = len(BODY)


def _request_lines() -> dict[str, bytes]:
    lines = [
        "GET /health HTTP/1.1", "HEAD /health HTTP/1.1", "GET /health HTTP/1.0", "GET /health HTTP/0.9", "GET /health",
        "GET /health HTTP/1.2", "GET /health HTTP/2.0", "GET /health HTTP/9.9", "GET /health HTTP/1", "GET /health HTTP/1.10",
        "GET /health HTTP/01.1", "GET /health http/1.1", "GET /health HTTPS/1.1", "GET /health ICE/1.0",
        "OPTIONS /health RTSP/1.0", "GET  /health HTTP/1.1", "GET /health  HTTP/1.1", "GET /health HTTP/1.1 ",
        " GET /health HTTP/1.1", "GET\t/health HTTP/1.1", "GET /health HTTP/1.1 x", "get /health HTTP/1.1", "G@T /health HTTP/1.1",
        "BREW /health HTTP/1.1", "DELETE /health HTTP/1.1", "PUT /health HTTP/1.1", "PATCH /health HTTP/1.1",
        "TRACE /health HTTP/1.1", "OPTIONS /health HTTP/1.1", "PROPFIND /health HTTP/1.1", "CONNECT x:80 HTTP/1.1",
        "CONNECT /health HTTP/1.1", "OPTIONS * HTTP/1.1", "GET * HTTP/1.1", "GET http://x/health HTTP/1.1",
        "GET HTTP://x/health HTTP/1.1", "GET https://x/health HTTP/1.1", "GET http://x:80/health HTTP/1.1",
        "GET http://x HTTP/1.1", "GET http://x?y HTTP/1.1", "GET http:///health HTTP/1.1", "GET http://a@x/health HTTP/1.1",
        "GET ftp://x/health HTTP/1.1", "GET x:80 HTTP/1.1", "GET health HTTP/1.1", "GET /health?a=b HTTP/1.1",
        "GET /health? HTTP/1.1", "GET /health#a HTTP/1.1", "GET /health?a#b HTTP/1.1", "GET /he%61lth HTTP/1.1",
        "GET /he%6 HTTP/1.1", "GET /health%00 HTTP/1.1", "GET /health\x00 HTTP/1.1", "GET /health\xe9 HTTP/1.1",
        "GET /health\x7f HTTP/1.1", "GET /health\x01 HTTP/1.1", "GET /a/../health HTTP/1.1", "GET /./health HTTP/1.1",
        "GET //health HTTP/1.1", "GET /health|\"<> HTTP/1.1", "", "\r\n", "GET", "GET / / HTTP/1.1",
    ]  # fmt: skip
    return {f"line: {line!r}": get(line) for line in lines} | {
        "before: an empty line": b"\r\n" + get(),
        "before: three empty lines": b"\r\n\r\n\r\n" + get(),
        "before: a bare LF": b"\n" + get(),
        "before: a bare CR": b"\r" + get(),
        "before: a NUL": b"\0" + get(),
        "before: a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + get(),
        "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        "a line of 9,000 bytes": get("GET /health?" + "a" * 9000 + " HTTP/1.1"),
    }


def _headers() -> dict[str, bytes]:
    headers = [
        "a: b", "a:b", "a:  b  ", "a:\tb\t", "a:", "a: ", "a : b", "a\t: b", " a: b", "a b: c", "a", ": b", "\x00: b", "a\x00: b",
        "a: \x00", "a: b\x01", "a: b\x7f", "a: \xe9", "a: \xc3\xa9", "a\xe9: b", "a(: b", "a,: b", "a/: b", "a_: b", "a.: b", "a!: b",
        "a: b\r\n c", "a: b\r\n\tc", "a: b\nc: d", "a: b\rc: d", "a: b\r\r\nc: d", 'a: "b', "a: b: c",
    ]  # fmt: skip
    hosts = [
        "", "host: x\r\nhost: x", "host: x\r\nhost: y", "host:", "host: x:80", "host: x:", "host: x:y", "host: x:99999999", "host: [::1]",
        "host: [::1]:80", "host: [::1", "host: x y", "host: x, y", "host: x/y", "host: a@x", "host: x\\y", "host: x_y", "host: x.", "host: -x",
        "host: *", "host: x%41", "host: \xe9", "host: http://x", "host: x?y", "HOST: x", "host : x", "host: \x01",
    ]  # fmt: skip
    found = {f"header: {header!r}": get(headers=f"{HOST}{header}\r\n") for header in headers}
    found |= {f"host: {host!r}": get(headers=f"{host}\r\n" if host else "") for host in hosts}
    return found | {
        "host: none in HTTP/1.0": get("GET /health HTTP/1.0", ""),
        "host: two in HTTP/1.0": get("GET /health HTTP/1.0", "host: x\r\nhost: y\r\n"),
        "host: none, absolute target": get("GET http://x/health HTTP/1.1", ""),
        "host: another than the target's": get("GET http://y/health HTTP/1.1"),
        "LF alone throughout": get().replace(b"\r\n", b"\n"),
        "LF alone at the end": get()[:-2] + b"\n",
        "100 headers": get(headers=HOST + "a: b\r\n" * 100),
        "connection: close": get(headers=HOST + "connection: close\r\n"),
        "connection: keep-alive in HTTP/1.0": get("GET /health HTTP/1.0", HOST + "connection: keep-alive\r\n"),
        "connection: close, keep-alive": get(headers=HOST + "connection: keep-alive, close\r\n"),
    }


def _lengths() -> dict[str, bytes]:
    values = [
        f"{LENGTH}", f"0{LENGTH}", f"+{LENGTH}", f"-{LENGTH}", "-1", "", " ", f"{LENGTH} ", f"{LENGTH},", f"{LENGTH}, {LENGTH}",
        f"{LENGTH} {LENGTH}", f"0x{LENGTH:x}", f"{LENGTH}.0", f"{LENGTH}e0", "a", "99999999999999999999999", "18446744073709551616",
        f"{LENGTH}\x0b", f'"{LENGTH}"', f"{LENGTH};",
    ]  # fmt: skip
    found = {f"content-length: {value!r}": post(length=f"content-length: {value}\r\n") for value in values}
    twice = f"content-length: {LENGTH}\r\n"
    return found | {
        "content-length twice, the same": post(length=twice * 2),
        "content-length twice, unlike": post(length=twice + "content-length: 5\r\n"),
        "content-length with a space before the colon": post(length=f"content-length : {LENGTH}\r\n"),
        "content-length in upper case": post(length=f"CONTENT-LENGTH: {LENGTH}\r\n"),
        "content-length: short by one": post(length=f"content-length: {LENGTH - 1}\r\n"),
        "content-length: over by one": post(length=f"content-length: {LENGTH + 1}\r\n"),
        "content-length: 0, body follows": post(length="content-length: 0\r\n"),
        "no framing, body follows": post(length=""),
        "GET with a body": get("GET /health HTTP/1.1", HOST + "content-length: 5\r\n") + b"abcde",
        "GET with a body, then another": get("GET /health HTTP/1.1", HOST + "content-length: 5\r\n") + b"abcde" + get(),
    }


def _codings() -> dict[str, bytes]:
    codings = [
        "chunked", "Chunked", "CHUNKED", " chunked", "chunked ", "\tchunked", "\x0bchunked", "chunked\x0b", "chunked,", ",chunked",
        "chunked, chunked", "identity", "identity, chunked", "chunked, identity", "gzip, chunked", "gzip", "xchunked", "chunkedx", '"chunked"',
        "", "chunked;a=b", "trailers",
    ]  # fmt: skip
    found = {f"transfer-encoding: {coding!r}": chunked(GOOD, coding) for coding in codings}
    return found | {
        "transfer-encoding twice": chunked(GOOD, headers="transfer-encoding: chunked\r\n"),
        "transfer-encoding: identity, then chunked": chunked(GOOD, headers="transfer-encoding: identity\r\n"),
        "transfer-encoding with a space before the colon": post("", GOOD, length="transfer-encoding : chunked\r\n"),
        "transfer_encoding": post("", GOOD, length="transfer_encoding: chunked\r\n"),
        "transfer-encoding, folded": post("", GOOD, length="transfer-encoding:\r\n chunked\r\n"),
        "length and chunks": chunked(GOOD, headers=f"content-length: {len(GOOD)}\r\n"),
        "chunks and a length of 0": chunked(GOOD, headers="content-length: 0\r\n"),
        "chunks in HTTP/1.0": post("", GOOD, length="transfer-encoding: chunked\r\n", line=f"POST {PATH} HTTP/1.0"),
        "te: trailers": post("te: trailers\r\nconnection: te\r\n"),
        "trailer: a": chunked(WHOLE + b"0\r\na: b\r\n\r\n", headers="trailer: a\r\n"),
    }


def _chunks() -> dict[str, bytes]:
    size = b"%x" % LENGTH
    bodies = {
        "one": GOOD,
        "a byte each": b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + LAST,
        "upper case": b"%X\r\n%b\r\n" % (LENGTH, BODY) + LAST,
        "leading zeros": b"0000%b\r\n%b\r\n" % (size, BODY) + LAST,
        "many leading zeros": b"0" * 40 + b"%b\r\n%b\r\n" % (size, BODY) + LAST,
        "many zeros last": WHOLE + b"000\r\n\r\n",
        "extension": b"%b;a=b\r\n%b\r\n" % (size, BODY) + LAST,
        "extension with quotes": b'%b;a="b;c"\r\n%b\r\n' % (size, BODY) + LAST,
        "space before an extension": b"%b ;a\r\n%b\r\n" % (size, BODY) + LAST,
        "space behind the size": b"%b \r\n%b\r\n" % (size, BODY) + LAST,
        "space before the size": b" %b\r\n%b\r\n" % (size, BODY) + LAST,
        "extension with LF": b"%b;\na\r\n%b\r\n" % (size, BODY) + LAST,
        "extension with CR": b"%b;\ra\r\n%b\r\n" % (size, BODY) + LAST,
        "extension with NUL": b"%b;\0\r\n%b\r\n" % (size, BODY) + LAST,
        "extension without a semicolon": b"%b a\r\n%b\r\n" % (size, BODY) + LAST,
        "size with a sign": b"+%b\r\n%b\r\n" % (size, BODY) + LAST,
        "negative size": b"-1\r\n%b\r\n" % BODY + LAST,
        "size with 0x": b"0x%b\r\n%b\r\n" % (size, BODY) + LAST,
        "size of nothing": b"\r\n%b\r\n" % BODY + LAST,
        "size with an underscore": b"1_0\r\n%b\r\n" % BODY + LAST,
        "size too large": b"ffffffffffffffffff\r\n%b\r\n" % BODY + LAST,
        "LF behind the size": b"%b\n%b\r\n" % (size, BODY) + LAST,
        "LF behind the data": b"%b\r\n%b\n" % (size, BODY) + LAST,
        "CR alone behind the size": b"%b\r%b\r\n" % (size, BODY) + LAST,
        "nothing behind the data": b"%b\r\n%b" % (size, BODY) + LAST,
        "data longer than its size": b"2\r\n%b\r\n" % BODY + LAST,
        "data shorter than its size": b"ff\r\n%b\r\n" % BODY + LAST,
        "LF behind the last": WHOLE + b"0\n\n",
        "end without an empty line": WHOLE + b"0\r\n",
        "trailers": WHOLE + b"0\r\na: b\r\nc: d\r\n\r\n",
        "trailer: content-length": WHOLE + b"0\r\ncontent-length: 5\r\n\r\n",
        "trailer: transfer-encoding": WHOLE + b"0\r\ntransfer-encoding: chunked\r\n\r\n",
        "trailer without a colon": WHOLE + b"0\r\nnonsense\r\n\r\n",
        "trailer with LF": WHOLE + b"0\r\na: b\n\r\n",
        "trailer, folded": WHOLE + b"0\r\na: b\r\n c\r\n\r\n",
        "trailer with NUL": WHOLE + b"0\r\na: \0\r\n\r\n",
    }
    return {f"chunks: {name}": chunked(body) for name, body in bodies.items()} | {
        "chunks: then another request": chunked(GOOD) + get(),
        "chunks: trailers, then another request": chunked(WHOLE + b"0\r\na: b\r\n\r\n") + get(),
    }


def _the_rest() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for upgrade in ("h2c", "websocket", "foo", "TLS/1.0"):
        headers = f"connection: upgrade\r\nupgrade: {upgrade}\r\n"
        found |= {
            f"upgrade: {upgrade}, no body": get(headers=HOST + headers),
            f"upgrade: {upgrade}, length": post(headers),
            f"upgrade: {upgrade}, chunks": chunked(GOOD, headers=headers),
            f"upgrade: {upgrade}, length, then another request": post(headers) + get(),
            f"upgrade: {upgrade}, a request as the body": post(headers, get()) + get(),
        }
    return found | {
        "upgrade without connection": post("upgrade: h2c\r\n"),
        "connection: upgrade without upgrade": post("connection: upgrade\r\n"),
        "http2-settings": post(
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
        ),
        "expect: 100-continue": post("expect: 100-continue\r\n"),
        "expect: 100-Continue": post("expect: 100-Continue\r\n"),
        "expect: 100-continue in HTTP/1.0": post("expect: 100-continue\r\n", line=f"POST {PATH} HTTP/1.0"),
        "expect: something else": post("expect: miracle\r\n"),
        "expect: without a body": get(headers=HOST + "expect: 100-continue\r\n"),
        "two requests": get() + get(),
        "two requests, empty line between": get() + b"\r\n" + get(),
        "twenty requests": get() * 20,
        "two completions": post() + post(),
        "a completion, then nonsense": post() + b"nonsense\r\n\r\n",
        "a completion that closes, then another": post("connection: close\r\n") + post(),
        "an unknown path, then another request": get("GET /nowhere HTTP/1.1") + get(),
        "half a head": get()[:-10],
        "half a body": post()[:-5],
        "content-type twice": post(JSON),
        "content-encoding: empty": post("content-encoding: \r\n"),
        "content-encoding: gzip": post("content-encoding: gzip\r\n", gzip.compress(BODY, mtime=0)),
        "proxy-connection: close": post("proxy-connection: close\r\n"),
        "keep-alive: timeout=5": post("keep-alive: timeout=5\r\n"),
        "a header in the connection's list": post("connection: close, content-length\r\n"),
    }


REQUESTS: dict[str, bytes] = _request_lines() | _headers() | _lengths() | _codings() | _chunks() | _the_rest()
