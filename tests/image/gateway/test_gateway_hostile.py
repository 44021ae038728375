"""Malformed and hostile requests: each is answered with 4xx, none reaches the engine, and the gateway keeps serving."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib

import pytest

from fakes.fake_engine import MODEL
from tests.image.gateway.conftest import KEY, StartEngine, StartGateway

AUTH = f"host: x\r\nauthorization: Bearer {KEY}\r\n"
JSON = AUTH + "content-type: application/json\r\n"
GOOD = json.dumps({"model": MODEL, "prompt": "Hi"}).encode()


BOMB = gzip.compress(b" " * (30 << 20))


def post(
    body: bytes = GOOD, headers: str = JSON, path: str = "/v1/completions", length: str | None = None, line: str = ""
) -> bytes:
    framing = f"content-length: {len(body)}\r\n" if length is None else length
    return f"{line or f'POST {path} HTTP/1.1'}\r\n{headers}{framing}\r\n".encode("latin-1") + body


def chunked(body: bytes, extra: str = "") -> bytes:
    return post(body, length=f"transfer-encoding: chunked\r\n{extra}")


def get(path: str, headers: str = AUTH) -> bytes:
    return f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode("latin-1")


def model(text: str) -> bytes:
    return post(b'{"model":%b}' % text.encode("utf-8", "surrogatepass"))


FORM = AUTH + "content-type: multipart/form-data; boundary=XX\r\n"
TRANSCRIBE = "/v1/audio/transcriptions"
ROWS: dict[str, tuple[bytes, int]] = {
    # Not HTTP/1.1 (RFC 9112)
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500, 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "SSH": (b"SSH-2.0-OpenSSH_9.9\r\n", 400),
    "version 9.9": (b"GET / HTTP/9.9\r\n\r\n", 400),
    "version 0.9": (b"GET /health\r\n\r\n", 400),
    "version misspelt": (post(line="POST /v1/completions HTTQ/1.1"), 400),
    "no method": (post(line="/v1/completions HTTP/1.1"), 400),
    "unknown method": (post(line="BREW /v1/completions HTTP/1.1"), 400),
    "lower-case method": (post(line="post /v1/completions HTTP/1.1"), 400),
    "NUL in the path": (post(path="/v1/comple\x00tions"), 400),
    "LF alone": (post().replace(b"\r\n", b"\n"), 400),
    "LF alone in a header": (post(headers=JSON + "a: b\nc: d\r\n"), 400),
    "CR alone in a header": (post(headers=JSON + "a: b\rc: d\r\n"), 400),
    "space in a header's name": (post(headers=JSON + "ho st: x\r\n"), 400),
    "space before the colon": (post(headers=JSON + "a : x\r\n"), 400),
    "NUL in a header's name": (post(headers=JSON + "a\x00: x\r\n"), 400),
    "NUL in a header's value": (post(headers=JSON + "a: \x00\r\n"), 400),
    "control in a header's value": (post(headers=JSON + "a: \x01\r\n"), 400),
    "header without a colon": (post(headers=JSON + "nonsense\r\n"), 400),
    "header without a name": (post(headers=JSON + ": x\r\n"), 400),
    "folded header": (post(headers=JSON + "a: b\r\n c\r\n"), 400),
    "headers begin with a space": (post(headers=" a: b\r\n" + JSON), 400),
    # Whose length nobody can tell: request smuggling
    "length and chunks": (chunked(b"0\r\n\r\n", "content-length: 5\r\n"), 400),
    "two lengths": (post(length="content-length: 5\r\ncontent-length: 6\r\n"), 400),
    "two lengths in one": (post(length="content-length: 5, 6\r\n"), 400),
    "the same length twice": (post(length=f"content-length: {len(GOOD)}\r\ncontent-length: {len(GOOD)}\r\n"), 400),
    "negative length": (post(length="content-length: -1\r\n"), 400),
    "length with a sign": (post(length=f"content-length: +{len(GOOD)}\r\n"), 400),
    "length in hexadecimal": (post(length="content-length: 0x10\r\n"), 400),
    "length without an end": (post(length="content-length: 99999999999999999999999\r\n"), 400),
    "length of nothing": (post(length="content-length: \r\n"), 400),
    "chunks twice": (chunked(b"0\r\n\r\n", "transfer-encoding: chunked\r\n"), 400),
    "chunks not last": (post(b"0\r\n\r\n", length="transfer-encoding: chunked, gzip\r\n"), 400),
    "unknown transfer coding": (post(b"0\r\n\r\n", length="transfer-encoding: xchunked\r\n"), 400),
    "transfer coding in HTTP/1.0": (
        post(b"0\r\n\r\n", length="transfer-encoding: chunked\r\n", line="POST /v1/completions HTTP/1.0"),
        400,
    ),
    "chunk size that is none": (chunked(b"zz\r\n"), 400),
    "negative chunk size": (chunked(b"-1\r\n"), 400),
    "chunk size without an end": (chunked(b"fffffffffffffffffff\r\n"), 400),
    "chunk longer than its size": (chunked(b"2\r\nabcd\r\n0\r\n\r\n"), 400),
    "chunk ended by LF": (chunked(b"2\nab\n0\n\n"), 400),
    "chunk extension with a control": (chunked(b"2;\x00\r\nab\r\n0\r\n\r\n"), 400),
    "chunk extensions beyond their cap": (chunked(b"2;" + b"a" * 20_000 + b"\r\n{}\r\n0\r\n\r\n"), 431),
    "chunk extensions beyond their cap, in all": (chunked((b"1;" + b"a" * 2000 + b"\r\n \r\n") * 9), 431),
    "chunk size followed by a space": (chunked(b"2 \r\n{}\r\n0\r\n\r\n"), 400),
    "chunk size with a sign": (chunked(b"+2\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk size in hexadecimal": (chunked(b"0x2\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk size of nothing": (chunked(b"\r\n{}\r\n0\r\n\r\n"), 400),
    "trailers beyond their cap": (chunked(b"0\r\n" + b"a: b\r\n" * 4000), 431),
    "a trailer without an end": (chunked(b"0\r\na: " + b"b" * 20_000), 431),
    "a trailer without a colon": (chunked(b"2\r\n{}\r\n0\r\nnonsense\r\n\r\n"), 400),
    "a folded trailer": (chunked(b"2\r\n{}\r\n0\r\na: b\r\n c\r\n\r\n"), 400),
    "a trailer ended by LF": (chunked(b"2\r\n{}\r\n0\r\na: b\n\r\n"), 400),
    "identity before chunks": (chunked(b"0\r\n\r\n").replace(b": chunked", b": identity, chunked"), 400),
    "identity alone": (post(length="transfer-encoding: identity\r\n"), 400),
    "gzip before chunks": (chunked(b"0\r\n\r\n").replace(b": chunked", b": gzip, chunked"), 400),
    "chunks twice in one": (chunked(b"0\r\n\r\n").replace(b": chunked", b": chunked, chunked"), 400),
    "a comma before chunks": (chunked(b"0\r\n\r\n").replace(b": chunked", b": ,chunked"), 400),
    "chunks in quotes": (chunked(b"0\r\n\r\n").replace(b": chunked", b': "chunked"'), 400),
    "no transfer coding": (chunked(b"0\r\n\r\n").replace(b": chunked", b": "), 400),
    # Who is asked for (RFC 9112, 3.2)
    "no host": (get("/v1/models", AUTH.replace("host: x\r\n", "")), 400),
    "two hosts": (get("/v1/models", AUTH + "host: y\r\n"), 400),
    "the same host twice": (get("/v1/models", AUTH + "Host: x\r\n"), 400),
    "two hosts in HTTP/1.0": (post(line="POST /v1/completions HTTP/1.0", headers=JSON + "host: y\r\n"), 400),
    "two hosts in one": (get("/v1/models", AUTH.replace("host: x", "host: x, y")), 400),
    "an empty host": (get("/v1/models", AUTH.replace("host: x", "host: ")), 400),
    "a host with a path": (get("/v1/models", AUTH.replace("host: x", "host: x/y")), 400),
    "a host with a user": (get("/v1/models", AUTH.replace("host: x", "host: a@x")), 400),
    "a host with a space": (get("/v1/models", AUTH.replace("host: x", "host: x y")), 400),
    "a port that is none": (get("/v1/models", AUTH.replace("host: x", "host: x:http")), 400),
    "absolute target without a host": (get("http://x/v1/models", AUTH.replace("host: x\r\n", "")), 400),
    "absolute target with a user": (get("http://a@x/v1/models"), 400),
    "absolute target of nobody": (get("http:///v1/models"), 400),
    "target of another scheme": (get("ftp://x/v1/models"), 400),
    "authority as a target": (get("x:80"), 400),
    "asterisk for another method": (get("*"), 400),
    "relative target": (get("v1/models"), 400),
    "target with a fragment": (get("/v1/models#a"), 400),
    "target beyond ASCII": (get("/v1/models\xe9"), 400),
    "two spaces in the request line": (post(line="POST  /v1/completions HTTP/1.1"), 400),
    "a space behind the request line": (post(line="POST /v1/completions HTTP/1.1 "), 400),
    "RTSP": (b"OPTIONS /health RTSP/1.0\r\n\r\n", 400),
    "two content types": (post(headers=JSON + "content-type: multipart/form-data\r\n"), 400),
    # Too much
    "more headers than anybody sends": (post(headers=JSON + "a: b\r\n" * 300), 431),
    "headers beyond their cap": (post(headers=JSON + "a: " + "b" * 70_000 + "\r\n"), 431),
    "many headers": (post(headers=JSON + "".join(f"a{number}: b\r\n" for number in range(9000))), 431),
    "path beyond the cap": (get("/" + "a" * 70_000), 431),
    "body announced beyond its cap": (post(length="content-length: 999999999\r\n"), 413),
    "values without number": (post(b'{"a":[' + b"[]," * 700_000 + b"[]]}"), 413),
    # Paths
    "path outside": (get("/v1/../metrics"), 404),
    "path encoded twice": (get("/v1%252fmodels"), 404),
    "engine's own path": (post(path="/invocations"), 404),
    "absolute target": (get("http://169.254.169.254/latest/meta-data/"), 404),
    "CONNECT": (b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    "model with dots": (get("/v1/models/../../etc/passwd"), 404),
    "TRACE": (post(line="TRACE /v1/completions HTTP/1.1"), 405),
    "PUT": (post(line="PUT /v1/completions HTTP/1.1"), 405),
    "POST to health": (post(path="/health"), 405),
    # Keys
    "no key": (post(headers=JSON.replace("authorization", "x-other")), 401),
    "key cut off": (post(headers=JSON.replace(KEY, KEY[:-1])), 401),
    "key of another scheme": (post(headers=JSON.replace("Bearer", "Basic")), 401),
    "key beyond Latin-1": (post(headers=JSON.replace(KEY, "\xff\xfe")), 401),
    "empty key": (get("/v1/models", f"host: x\r\nauthorization: Bearer {''}\r\n"), 401),
    # Bodies
    "no content type": (post(headers=AUTH), 415),
    "form for JSON": (post(headers=FORM), 415),
    "gzip that is none": (post(headers=JSON + "content-encoding: gzip\r\n"), 400),
    "gzip cut off": (post(gzip.compress(GOOD)[:-1], JSON + "content-encoding: gzip\r\n"), 400),
    "gzip and more": (post(gzip.compress(GOOD) + b"x", JSON + "content-encoding: gzip\r\n"), 400),
    "gzip of gzip": (post(gzip.compress(gzip.compress(GOOD)), JSON + "content-encoding: gzip, gzip\r\n"), 415),
    "two codings in two headers": (
        post(gzip.compress(GOOD), JSON + "content-encoding: gzip\r\ncontent-encoding: br\r\n"),
        415,
    ),
    "gzip bomb": (post(BOMB, JSON + "content-encoding: gzip\r\n"), 413),
    "gzip of very many files": (post(gzip.compress(b"") * 1000, JSON + "content-encoding: gzip\r\n"), 400),
    "deflate": (post(zlib.compress(GOOD), JSON + "content-encoding: deflate\r\n"), 415),
    "empty": (post(b""), 400),
    "half of JSON": (post(GOOD[:-5]), 400),
    "JSON and more": (post(GOOD + b"{}"), 400),
    "a list": (post(b"[1]"), 400),
    "NaN": (post(b'{"temperature":NaN}'), 400),
    "Infinity": (post(b'{"temperature":-Infinity}'), 400),
    "a number of 5,000 digits": (post(b'{"seed":' + b"9" * 5000 + b"}"), 400),
    "not UTF-8": (post(b'{"prompt":"\xff\xfe"}'), 400),
    "UTF-16": (post(GOOD.decode().encode("utf-16")), 400),
    "two byte order marks": (post(b"\xef\xbb\xbf" * 2 + GOOD), 400),
    "nested 200 deep": (post(b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"), 400),
    "nested 100,000 deep": (post(b"[" * 100_000), 400),
    "control in a string": (post(b'{"prompt":"\x01"}'), 400),
    "model is a number": (model("7"), 400),
    "model is a list": (model('["a"]'), 400),
    "another model": (model('"other"'), 404),
    "model of a megabyte": (model(json.dumps("a" * 1_000_000)), 404),
    "model of a lone surrogate": (model('"\\ud800"'), 400),
    "stream is a word": (post(b'{"stream":"true"}'), 400),
    "form without a boundary": (post(path=TRANSCRIBE, headers=AUTH + "content-type: multipart/form-data\r\n"), 400),
    "form without an end": (post(b"--XX\r\nContent-Disposition: form-data\r\n", FORM, TRANSCRIBE), 400),
    "JSON for a form": (post(path=TRANSCRIBE), 415),
    "form of another model": (
        post(b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\nother\r\n--XX--\r\n', FORM, TRANSCRIBE),
        404,
    ),
}


def test_the_table_is_long_enough() -> None:
    assert len(ROWS) >= 60


@pytest.mark.parametrize("part", range(4))
async def test_each_is_refused(start_engine: StartEngine, start_gateway: StartGateway, part: int) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, header_timeout_seconds=1, body_timeout_seconds=1)
    wrong = {}
    for name, (request, status) in list(ROWS.items())[part::4]:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request)
        async with asyncio.timeout(5):
            try:
                line = await reader.readline()
            except ConnectionError:  # answered and closed before all was sent
                line = b"reset"
        writer.transport.abort()
        if not line.startswith(f"HTTP/1.1 {status} ".encode()):
            wrong[name] = (line, status)
    assert not wrong
    assert engine.requests == []
    assert not gateway.log("internal_error")
    assert (await gateway.chat()).status_code == 200
