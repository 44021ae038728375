"""The parsing cost of one body, during which no other request or health check is answered."""

from __future__ import annotations

import json
from time import process_time

import pytest

from image.gateway import body
from image.gateway.backends import FixedDiscovery
from image.gateway.errors import ApiError
from image.gateway.routes import UPSTREAM
from image.gateway.settings import Settings

SETTINGS = Settings(model="m", discovery=FixedDiscovery(()), max_tokens=100)
JSON = "application/json"
FORM = "multipart/form-data; boundary=a"
CHAT, SPEECH = "/v1/chat/completions", "/v1/audio/transcriptions"
# Of CPU time. Each of these took 0.9 to 16 s on the machine whose slowest is now 0.3 s.
MOST_SECONDS = 1.0

PARTS = b'{"messages":[{"content":[%b{"url":1}]}]}'
HOSTILE = {
    "empty parts": (CHAT, JSON, PARTS % (b"{}," * 499_000)),
    "parts": (CHAT, JSON, PARTS % (b'{"type":"text"},' * 330_000)),
    "bare parts": (CHAT, JSON, b'{"input":[' + b"{}," * 499_000 + b'{"url":1}]}'),
    "lists": (CHAT, JSON, b'{"messages":[' + b"[[]]," * 300_000 + b"1]}"),
    "fields": (CHAT, JSON, b"{" + b",".join(b'"%x":1' % number for number in range(999_000)) + b"}"),
    "addresses": (CHAT, JSON, PARTS % (b'{"image_url":"http://a.bc/"},' * 66_000)),
    "addresses in other scripts": (CHAT, JSON, PARTS % ('{"image_url":"http://é.a.bc/"},'.encode() * 66_000)),
    "strings that do not end": (CHAT, JSON, b'{"prompt":"' + b'\\"{' * 5_000_000),
    "parts of a form": (SPEECH, FORM, b"--a\r\n\r\n" + b"\r\n--a\r\n\r\n" * 2_000_000 + b"\r\n--a--"),
    "long heads in a form": (SPEECH, FORM, b"--a\r\n\r\n" + (b"\r\n--a\r\n" + b" " * 8000 + b"\r\n\r\n") * 2400),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_refused_before_it_costs_much(name: str) -> None:
    path, content_type, document = HOSTILE[name]
    assert len(document) <= SETTINGS.max_body_bytes
    began = process_time()
    with pytest.raises(ApiError) as refused:
        body.read(document, UPSTREAM[path], content_type.encode(), SETTINGS)
    assert process_time() - began < MOST_SECONDS
    assert refused.value.status in (400, 413)


@pytest.mark.parametrize(
    "document",
    [
        {"prompt": "{[:," * 220_000},  # text is text, whatever it holds
        {"prompt": '\\"{' * 300_000},
        {"prompt": list(range(200_000))},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}] * 20_000},
        {"messages": [{"content": [{"image_url": {"url": "data:image/png;base64,AA"}}] * 2000}]},
        {"messages": [{"content": [{"image_url": {"url": "https://example.com/a.png"}}] * 1000}]},
    ],
)
def test_a_large_body_of_a_client_is_read(document: dict[str, object]) -> None:
    text = json.dumps(document, separators=(",", ":")).encode()
    body.read(text, UPSTREAM[CHAT], JSON.encode(), SETTINGS)


@pytest.mark.parametrize("asked", ["101", " 101 ", "1_01", "101.0", 101.0, 101, 10**400, "1" + "0" * 400])
def test_the_cap_of_tokens_holds_for_every_spelling_that_vllm_reads_as_a_number(asked: object) -> None:
    """pydantic takes "101" and 101.0 for 101."""
    document = json.dumps({"max_tokens": asked})
    with pytest.raises(ApiError) as refused:
        body.read(document.encode(), UPSTREAM[CHAT], JSON.encode(), SETTINGS)
    assert refused.value.status == 400


@pytest.mark.parametrize("asked", ["100", 100.0, "many", [101], {"a": 101}, True])
def test_what_is_below_the_cap_or_no_number_is_the_engines_to_judge(asked: object) -> None:
    facts = body.read(json.dumps({"max_tokens": asked}).encode(), UPSTREAM[CHAT], JSON.encode(), SETTINGS)
    assert facts.addition == b""
