from __future__ import annotations

import json
from typing import Any

import pytest

from image.gateway import body
from image.gateway.errors import ApiError
from image.gateway.routes import UPSTREAM
from image.gateway.settings import FixedDiscovery, Settings

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
