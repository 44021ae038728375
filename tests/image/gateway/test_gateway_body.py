from __future__ import annotations

import json
from typing import Any

import pytest

from image.gateway import body
from image.gateway.routes import BodyKind


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
    assert body.read(json.dumps(document).encode(), BodyKind.JSON, b"application/json").modalities == expected


def test_a_forms_fields_are_read_and_its_file_is_stepped_over() -> None:
    content = (
        b'--a b\r\nContent-Disposition: form-data; name="file"; filename="name=\\"model\\""\r\nContent-Type: audio/wav\r\n\r\n'
        b'RIFF\r\n--a c\r\nContent-Disposition: form-data; name="model"\r\n\r\nnot this\r\n\x00\r\n'
        b'--a b\r\ncontent-disposition: form-data; NAME="model"\r\n\r\norg/model\r\n'
        b'--a b\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n--a b--\r\n'
    )
    facts = body.read(content, BodyKind.FORM, b'Multipart/Form-Data; boundary="a b"')
    assert facts == body.BodyFacts("org/model", True, ["audio"])
