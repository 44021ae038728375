from __future__ import annotations

import gzip
import json
import random
import re
from typing import Any

import pytest

from fakes.fake_engine import MODEL
from image.gateway import body
from image.gateway.backends import FixedDiscovery
from image.gateway.errors import ApiError
from image.gateway.routes import UPSTREAM
from image.gateway.settings import Settings
from tests.image.gateway.conftest import StartEngine, StartGateway

SETTINGS = Settings(model="m", discovery=FixedDiscovery(()), max_json_depth=8, max_tokens=100)
CHAT = UPSTREAM["/v1/chat/completions"]


def part(kind: str) -> dict[str, str]:
    return {"type": kind}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}]}, ["text"]),
        ({"messages": [{"role": "user", "content": [part("text"), part("image_url")]}]}, ["text", "image"]),
        (
            {"messages": [{"content": [part("video_url")]}, {"content": [part("audio_url"), part("image_url")]}]},
            ["text", "image", "video", "audio"],
        ),
        ({"input": [{"role": "user", "content": [part("input_image")]}]}, ["text", "image"]),
        ({"input": ["a", "b"]}, ["text"]),
        ({"input": [[1, 2], [3]]}, ["text"]),
        ({"messages": [None, 7, {"content": [None, {"type": []}]}]}, ["text"]),
        ({"messages": {}}, ["text"]),
    ],
)
def test_modalities(document: Any, expected: list[str]) -> None:
    assert body.read(json.dumps(document).encode(), CHAT, b"application/json", SETTINGS).modalities == expected


def test_a_forms_fields_are_read_and_its_file_is_stepped_over() -> None:
    content = (
        b'--a b\r\nContent-Disposition: form-data; name="file"; filename="name=\\"model\\""\r\nContent-Type: audio/wav\r\n\r\n'
        b'RIFF\r\n--a c\r\nContent-Disposition: form-data; name="model"\r\n\r\nnot this\r\n\x00\r\n'
        b'--a b\r\ncontent-disposition: form-data; NAME="model"\r\n\r\norg/model\r\n'
        b'--a b\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n--a b--\r\n'
    )
    facts = body.read(content, UPSTREAM["/v1/audio/transcriptions"], b'Multipart/Form-Data; boundary="a b"', SETTINGS)
    assert facts == body.BodyFacts("org/model", True, ["audio"])


def nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b'"]["' + b"]" * (levels - 1) + b"}"


def test_depth() -> None:
    body.read(nested(8), CHAT, b"application/json", SETTINGS)
    body.read(b'{"a": [[1],[1],[1],[1],[1],[1],[1],[1],[1]]}', CHAT, b"application/json", SETTINGS)
    for levels in (9, 400, 100_000):
        with pytest.raises(ApiError, match="nested too deeply: over 8 levels"):
            body.read(nested(levels), CHAT, b"application/json", SETTINGS)


@pytest.mark.parametrize(
    ("path", "document", "sent"),
    [
        ("/v1/chat/completions", b"{}", b'{"max_tokens":100}'),
        ("/v1/chat/completions", b'{"a": "}" } \r\n', b'{"a": "}" ,"max_tokens":100}'),
        ("/v1/chat/completions", b'{"max_tokens": null}', b'{"max_tokens": null,"max_tokens":100}'),
        ("/v1/chat/completions", b'{"max_completion_tokens": 100}', None),
        ("/v1/completions", b'{"max_tokens": 7}', None),
        ("/v1/completions", b'{"max_tokens": "many"}', None),  # the engine's to refuse
        ("/v1/responses", b'{"max_tokens": 700}', b'{"max_tokens": 700,"max_output_tokens":100}'),
        ("/v1/embeddings", b'{"input": "x"}', None),
    ],
)
def test_answers_are_capped(path: str, document: bytes, sent: bytes | None) -> None:
    facts = body.read(document, UPSTREAM[path], b"application/json", SETTINGS)
    assert (document.rstrip()[:-1] + facts.addition if facts.addition else None) == sent


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_asking_for_more_than_the_cap_is_refused(field: str) -> None:
    with pytest.raises(ApiError, match=f"'{field}' is 101; at most 100"):
        body.read(json.dumps({field: 101}).encode(), CHAT, b"application/json", SETTINGS)


NOT_JSON: list[tuple[bytes, str | None, str]] = [
    (rb'{"messages":[{"role":"user","content":"a\ud800b"}]}', "messages[0].content", r"unpaired surrogate, \ud800, "),
    (rb'{"messages":[{"content":[{"type":"text","text":"\udfff"}]}]}', "messages[0].content[0].text", r"\udfff"),
    (rb'{"prompt":["a","\ud83d\u0041"]}', "prompt[1]", r"\ud83d"),
    (b'{"prompt":"\xed\xa0\x80"}', "prompt", r"\ud800"),
    (rb'{"metadata":{"\udc00":1}}', "metadata", "a name in 'metadata' contains an unpaired surrogate"),
    (rb'{"\udc00":1}', None, "a name in the document contains an unpaired surrogate"),
    (b'{"temperature":1e400}', "temperature", "not a finite number"),
    (b'{"stop":[1,NaN]}', "stop[1]", "not a finite number"),
    (b'{"seed":' + b"9" * 400 + b"}", "seed", "too large for a double"),
    (b'{"seed":' + b"9" * 5000 + b"}", None, "infinity"),
    (b'{"prompt":"\xff"}', None, "it is not UTF-8 at byte 11"),
    (b'{"a":[' + b"1," * 200_000 + rb'"\ud800"]}', None, "surrogate"),
    (b"{'a': 1}", None, "line 1 column 2"),
]


@pytest.mark.parametrize(("document", "field", "says"), NOT_JSON)
def test_what_is_not_json_names_its_field_and_the_reason(document: bytes, field: str | None, says: str) -> None:
    with pytest.raises(ApiError, match="The body is not JSON: .*" + re.escape(says)) as refused:
        body.read(document, CHAT, b"application/json", SETTINGS)
    assert refused.value.param == field
    assert field is None or repr(field) in refused.value.message
    refused.value.body().decode()


async def test_a_gzip_body_is_inflated(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    noise = random.Random(1).randbytes(3 << 20).hex()  # noqa: S311 - of a size that is inflated in parts
    small, large = (json.dumps({"model": MODEL, "prompt": text}).encode() for text in ("Hi", noise))
    for sent, coding, inflated in (
        (gzip.compress(small), "gzip", small),
        (gzip.compress(large, 1), "GZIP", large),
        (gzip.compress(small[:5]) + gzip.compress(b"") + gzip.compress(small[5:]), "x-gzip", small),
        (gzip.compress(small), "identity, gzip", small),
        (small, "", small),
        (small, "identity", small),
    ):
        engine.requests.clear()
        headers = {"content-type": "application/json", "content-encoding": coding}
        response = await gateway.client.post("/v1/completions", content=sent, headers=headers)
        assert response.status_code == 200, coding
        assert [request.body for request in engine.requests] == [inflated]
        assert "content-encoding" not in engine.requests[0].headers
    assert gateway.service.admission.waiting_bytes == 0


async def test_what_inflates_beyond_a_limit_is_refused(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, max_body_bytes=4 << 20, max_queued_bytes=3 << 20)
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    for size, status in ((5 << 20, 413), (4 << 20, 429), (1 << 20, 400)):
        response = await gateway.client.post("/v1/completions", content=gzip.compress(b" " * size), headers=headers)
        assert response.status_code == status, size
    # A gzip file may be several in a row, and each costs as much as a small body.
    document = json.dumps({"model": MODEL, "prompt": "Hi"}).encode()
    many = gzip.compress(document) + gzip.compress(b"") * 64
    response = await gateway.client.post("/v1/completions", content=many, headers=headers)
    assert (response.status_code, "more than 64 members" in response.text) == (400, True)
    response = await gateway.client.post("/v1/completions", content=b"", headers=headers | {"content-encoding": "br"})
    assert (response.status_code, response.headers["accept-encoding"]) == (415, "gzip")
    assert engine.requests == []
    assert gateway.service.admission.waiting_bytes == 0
