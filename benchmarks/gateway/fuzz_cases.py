"""Requests for the fuzzer: forty seed requests and their mutations. The same random seed generates the same cases."""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from fakes.fake_engine import MODEL

KEY, EXPIRED = "sk-fuzz-Good7", "sk-fuzz-Old7"
KEYS = json.dumps({"fuzz": {"key": KEY, "limits": {"concurrency": 10_000}}, "old": {"key": EXPIRED, "expires": "2020-01-01T00:00:00Z"}})  # fmt: skip
_BAD_KEYS = ("sk-fuzz-Good", "sk-fuzz-good7", "sk-fuzz-Goad7", EXPIRED, "", "\u00a0")


def seeds(key: str, case: str) -> list[bytes]:
    """Forty requests that are served, or nearly. `case` is in each body and identifies the request at the engine."""
    auth = f"authorization: Bearer {key}\r\n"
    body = json.dumps({"model": MODEL, "prompt": "Hi", "case": case}).encode()
    half = len(body) // 2
    chunks = b"%x\r\n%b\r\n" % (half, body[:half]) + b"%x\r\n%b\r\n" % (len(body) - half, body[half:])

    def post(headers: str = auth, sent: bytes = body, path: str = "/v1/completions", version: str = "1.1") -> bytes:
        framing = f"content-length: {len(sent)}\r\n"
        head = f"POST {path} HTTP/{version}\r\nhost: x\r\ncontent-type: application/json\r\n{headers}{framing}\r\n"
        return head.encode("latin-1", "replace") + sent

    def chunked(sent: bytes, headers: str = "", coding: str = "chunked") -> bytes:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{auth}{headers}Transfer-Encoding: {coding}\r\n\r\n"
        return head.encode("latin-1", "replace") + sent

    def get(path: str, headers: str = auth, method: str = "GET") -> bytes:
        return f"{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n".encode("latin-1", "replace")

    inner = get("/v1/models", "")
    form = (
        b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n%b\r\n--b\r\ncontent-disposition: form-data; '
        b'name="file"; filename="%b"\r\n\r\n\0\1\r\n--b--\r\n' % (MODEL.encode(), case.encode())
    )
    origin = "origin: http://page.example\r\n"
    return [
        post(),
        post(f"x-api-key: {key}\r\n"),
        post(f"api-key: {key}\r\n"),
        post(f"Authorization: bearer  {key} \r\n"),
        post(auth + f"x-api-key: {key}\r\n"),
        post(auth + "x-api-key: other\r\n"),
        post(f"authorization: Basic eA==\r\nauthorization: Bearer {key}\r\n"),
        post(auth + "connection: close\r\n"),
        post(auth + "connection: content-length, transfer-encoding, authorization, x-a\r\nx-a: b\r\n"),
        post(auth + "expect: 100-continue\r\n"),
        post(auth + "connection: upgrade\r\nupgrade: h2c\r\n"),
        post(auth + "x-request-id: abc%0d%0aX-Injected: 1\r\n"),
        post(auth + "x-forwarded-for: 1.2.3.4, ::1%x\r\nforwarded: for=1.2.3.4\r\n"),
        post(auth + origin),
        post(auth + "content-encoding: gzip\r\n", gzip.compress(body, mtime=0)),
        post(auth + "anthropic-version: 2023-06-01\r\n", path="/v1/messages"),
        post(version="1.0"),
        post(path="/v1/completions?api-version=1&x=%0d%0aX-Injected:%201"),
        post(path="http://x/v1/completions"),
        post(path="/v1%2Fcompletions"),
        post(path="/v1/../v1/completions"),
        post(path="/v1/completions;a=b"),
        post(path=f"/openai/deployments/{MODEL}/completions?api-version=1"),
        post(path="/openai/v1/completions"),
        post(auth + "content-type: multipart/form-data; boundary=b\r\n", form, "/v1/audio/transcriptions"),
        post("", form, "/v1/audio/transcriptions").replace(
            b"content-type: application/json\r\n", b"content-type: multipart/form-data; boundary=b\r\n" + auth.encode("latin-1", "replace")
        ),
        post(auth, b'{"model":"no\\r\\nX-Injected: 1","case":"%b"}' % case.encode()),
        post(auth, body + inner),
        post(auth, inner, "/nowhere"),
        post("", body),
        chunked(chunks + b"0\r\n\r\n"),
        chunked(chunks + b"0\r\nx-a: b\r\n\r\n", "trailer: x-a\r\n"),
        chunked(chunks.replace(b"\r\n", b";a=b\r\n", 1) + b"000\r\n\r\n"),
        chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"),
        chunked(b"0\r\n\r\n" + inner),
        chunked(chunks + b"0\r\n\r\n", f"content-length: {len(chunks)}\r\n"),
        chunked(chunks + b"0\r\n\r\n", coding="gzip, chunked"),
        get("/v1/models/" + MODEL, auth + origin),
        get("/v1/completions", origin + "access-control-request-method: POST\r\naccess-control-request-headers: a, b\r\n", "OPTIONS"),
        get("/health", "", "HEAD"),
    ]  # fmt: skip


_TOKENS = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b"\0", b"\t", b" ", b"\x0b", b"\x0c", b"\x85", b"\xa0", b"\xff", b":", b",", b";", b"%0d%0a",
    b"\r\n ", b"\r\n\t", b"\r\r\n", b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:\tchunked\r\n", b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding: xchunked\r\n", b"transfer-encoding: identity\r\n", b"content-length: 0\r\n", b"Content-Length: 5\r\n",
    b"content-length: +5\r\n", b"content_length: 7\r\n", b"0\r\n\r\n", b"0\r\n", b"1\r\nx\r\n", b"ffffffffffffffff\r\n", b"+", b"-", b"0x",
    b"HTTP/1.1", b" HTTP/1.0\r\n", b"X-Injected: 1\r\n", b"\r\nX-Injected: 1\r\n", b"connection: close\r\n", b"connection: keep-alive\r\n",
    b"expect: 100-continue\r\n", b"upgrade: websocket\r\nconnection: upgrade\r\n", b"host: y\r\n", b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n", b"..", b"/", b"%2e%2e%2f", b"%00", b"#", b"@", b"\\",
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one change."""
    at = rng.randrange(len(data) + 1)
    # Half of the mutations affect framing.
    if rng.random() < 0.5 and (end := data.find(b"\r\n\r\n")) > 0:
        at = rng.randrange(end + 4)
    match rng.randrange(9):
        case 0:
            return data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :]
        case 1:
            return data[:at] + data[at + rng.choice((1, 1, 2, 4, 20)) :]
        case 2 | 3:
            return data[:at] + rng.choice(_TOKENS) + data[at:]
        case 4:  # duplicate, move or remove a line
            lines = data.split(b"\r\n")
            line = rng.choice(lines)
            if rng.random() < 0.5:
                lines.remove(line)
            if rng.random() < 0.7:
                lines.insert(rng.randrange(len(lines) + 1), line)
            return b"\r\n".join(lines)
        case 5:  # change a number
            numbers = list(re.finditer(rb"[0-9a-f]{1,6}(?=\r\n)|\b[0-9]{1,6}\b", data))
            if not numbers:
                return data
            number = rng.choice(numbers)
            new = rng.choice(
                (
                    b"0",
                    b"%d" % rng.randrange(300),
                    b"%x" % rng.randrange(300),
                    b"0" + number[0],
                    number[0] + b" ",
                    b"-1",
                )
            )
            return data[: number.start()] + new + data[number.end() :]
        case 6:
            token = rng.choice((b"\r\n", b": ", b" ", b"chunked", b"content-length", b"HTTP/1.1", b"host"))
            return data.replace(
                token, rng.choice((b"\n", b":", b"\t", token.upper(), token[:-1], token * 2)), rng.choice((1, -1))
            )
        case 7:
            return data[: max(at, 1)]
        case _:  # repeat a part
            return data[:at] + data[rng.randrange(at + 1) : at] + data[at:]  # fmt: skip


@dataclass
class Case:
    """The bytes of one connection, in the parts in which they are sent."""

    name: str
    has_key: bool
    parts: list[bytes]

    @property
    def data(self) -> bytes:
        """All bytes of the connection."""
        return b"".join(self.parts)


def cases(count: int, seed: int) -> Iterator[Case]:
    """Generate so many cases. The same seed generates the same cases."""
    rng = random.Random(seed)  # noqa: S311 - reproducible
    for number in range(count):
        # A mutation cannot turn one name into that of another case.
        name = f"case-{seed}-{number}-{zlib.crc32(b'%d %d' % (seed, number)):08x}-"
        has_key = rng.random() < 0.6
        pool = seeds(KEY if has_key else rng.choice(_BAD_KEYS), name)
        requests = [rng.choice(pool) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            at = rng.randrange(len(requests))
            requests[at] = mutated(requests[at], rng)
        data = b"".join(requests)
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 2, 5))))
        parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
        yield Case(name, KEY.encode() in data, parts)
