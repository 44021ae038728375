"""Addresses in a request that the engine would fetch: public hosts, and no others, however they are spelt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from image.gateway import media
from image.gateway.errors import ApiError
from tests.image.gateway.conftest import StartEngine, StartGateway

PUBLIC = [
    "https://images.example.com/a.png?size=2#x",
    "http://example.co.uk:8080/a.png",
    "HTTPS://EXAMPLE.COM",
    "https://bucket.s3.eu-west-1.amazonaws.com/key",
    "https://xn--bcher-kva.example/a.png",
    "http://8.8.8.8/a.png",
    "http://[2606:4700::1111]/a.png",
    "data:image/png;base64,AAAA",
    "DATA:video/mp4;base64,AAAA",
]
PRIVATE = [
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://[fd00:ec2::254]/latest",
    "http://[::ffff:169.254.169.254]/",
    "http://[2002:a9fe:a9fe::]/",
    "http://[::1]/",
    "http://127.0.0.1:8000/metrics",
    "http://10.0.0.7/",
    "http://100.64.0.1/",
    "http://0.0.0.0/",
    "http://127.1/",
    "http://2852039166/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0251.0376.0251.0376/",
    "http://localhost/",
    "http://localhost./",
    "http://engine:8000/",
    "http://engine.vllm-dev.internal/",
    "http://gateway.vllm.svc.cluster.local/",
    "http://printer.local/",
    "http://user@127.0.0.1/",
    "http://example.com@127.0.0.1/",
    "http://example.com\\@127.0.0.1/",
    "http://example.com /@127.0.0.1/",
    "http://１２７.0.0.1/",
    "http://example.com。evil/",
    "//example.com/a.png",
    "file:///etc/passwd",
    "ftp://example.com/a.png",
    "gopher://example.com/",
    "http://",
    " http://127.0.0.1/",
    "",
]


def chat(address: Any, kind: str = "image_url") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": kind, kind: {"url": address}}]}]}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_hosts_are_let_through(address: str) -> None:
    media.check(chat(address), ())


@pytest.mark.parametrize("address", PRIVATE)
def test_whatever_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(ApiError) as refused:
        media.check(chat(address), ())
    assert (refused.value.status, refused.value.param) == (400, "image_url")


@pytest.mark.parametrize(
    "document",
    [
        chat("http://127.0.0.1/", "video_url"),
        chat("http://127.0.0.1/", "audio_url"),
        {"messages": [{"role": "user", "content": [{"image_url": "http://127.0.0.1/"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://127.0.0.1/"}]}]},
        {"input": [{"type": "input_file", "file_url": "http://127.0.0.1/"}]},
        {"documents": {"content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]}},
    ],
)
def test_an_address_is_found_wherever_it_stands(document: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        media.check(document, ())


def test_a_tools_parameters_are_no_addresses() -> None:
    properties = {"image_url": {"type": "string"}, "url": {"type": "string"}}
    media.check({"tools": [{"type": "function", "function": {"parameters": {"properties": properties}}}]}, ())


def test_hosts_that_are_named_are_let_through() -> None:
    media.check(chat("http://127.0.0.1:9000/a.png"), ("127.0.0.1", "media.internal"))
    media.check(chat("http://media.internal/a.png"), ("127.0.0.1", "media.internal"))
    with pytest.raises(ApiError):
        media.check(chat("http://127.0.0.2:9000/a.png"), ("127.0.0.1",))


async def test_the_engine_never_hears_of_it(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    # Escaped, so that no search of the bytes finds it.
    escaped = json.dumps(chat("http://169.254.169.254/")).replace("image_url", "image\\u005furl")
    for body in (chat("http://169.254.169.254/"), json.loads(escaped)):
        response = await gateway.chat(**body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "image_url")
    assert (await gateway.chat(**chat("https://example.com/a.png"))).status_code == 200
    assert media.may_hold_addresses(escaped.encode())
    assert len(engine.requests) == 1
