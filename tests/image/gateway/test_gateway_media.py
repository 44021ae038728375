"""URLs in a request that the engine would fetch: only public hosts are allowed, in any spelling."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.fake_engine import MODEL
from image.gateway import media
from image.gateway.errors import ApiError
from tests.image.gateway.conftest import StartEngine, StartGateway

PUBLIC = [
    "https://images.example.com/a.png?size=2#x",
    "http://example.co.uk:8080/a.png",
    "HTTPS://EXAMPLE.COM",
    "https://bucket.s3.eu-west-1.amazonaws.com/key",
    "https://xn--bcher-kva.example/a.png",
    "https://my_bucket.example.com/a.png",
    "https://_dmarc.example.com/a.png",
    "https://xn--80ak6aa92e.xn--p1ai/a.png",
    "https://пример.рф/a.png",
    "https://bücher.example/a.png",
    "https://BÜCHER.example/a.png",
    "https://bu\u0308cher.example/a.png",
    "https://例え.テスト/画像.png",
    "https://مثال.إختبار/",
    "https://example.com./a.png",
    "https://пример.рф./a.png",
    "https://example.com/ä/画像.png?q=ü#é",
    "https://example.com?size=1",
    "https://example.com:65535",
    "https://1.example.com/a.png",
    "https://0x7f.example.com/a.png",
    "https://127.0.0.1.example.com/a.png",
    "https://internal.example.com/a.png",
    "https://local.example/a.png",
    "https://a-.example.com/a.png",
    "https://example.com/a@b:c\\d%20e",
    "http://[2002:808:808::1]/",
    "http://[64:ff9b::808:808]/",
    "http://[::ffff:8.8.8.8]/",
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
    "http://169.254.169.254./",
    "http://127.0.0.1./",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b:1::a9fe:a9fe]/",
    "http://[2001:0:a9fe:a9fe::1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0177.0.0.1/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://127.0.0.0x1/",
    "http://1.2.3.4.5/",
    "http://example.123/",
    "http://example.0x1/",
    "http://2852039166/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0251.0376.0251.0376/",
    "http://localhost/",
    "http://localhost./",
    "http://engine:8000/",
    "http://engine.vllm-dev.internal/",
    "http://gateway.vllm.svc.cluster.local/",
    "http://printer.local/",
    "http://printer.local./",
    "http://PRINTER.LOCAL/",
    "http://x.internal./",
    "http://x.intern\uff41l/",
    "http://x.internal\ufe0f/",
    "http://x.inter\u00adnal/",
    "http://x.\u200binternal/",
    "http://x.interna\u2113/",
    "http://metadata/",
    "http://metadata.google.internal/",
    "http://metadata.goog/",
    "http://a.metadata.goog/",
    "http://instance-data.ec2.internal/",
    "http://kubernetes.default.svc/",
    "http://localhost.localdomain/",
    "http://7.0.0.10.in-addr.arpa/",
    "http://user@127.0.0.1/",
    "http://example.com@127.0.0.1/",
    "http://example.com\\@127.0.0.1/",
    "http://example.com /@127.0.0.1/",
    "http://１２７.0.0.1/",
    "http://①②⑦.0.0.1/",
    "http://127.0.0.1\ufe0f/",
    "http://127\u30020\uff0e0\uff611/",
    "http://١٢٧.٠.٠.١/",
    "http://ⅼocalhost/",
    "http://exa%6dple.com/",
    "http://%31%32%37.0.0.1/",
    "http://127.0.0.1%00.example.com/",
    "http://exam\u0000ple.com/",
    "http://example.com:80:80/",
    "http://example.com:99999/",
    "http://example.com:8a/",
    "http://example.com:/",
    "http://example.com\t/",
    "http://example.com/a\nb",
    "http://example.com/a b",
    "http://exam\tple.com/",
    "http:\t//127.0.0.1/",
    "http://\n127.0.0.1/",
    "http://127.0.0.1\\.example.com/",
    "http:\\\\127.0.0.1\\",
    "http:/127.0.0.1/",
    "http:127.0.0.1/",
    "http:///127.0.0.1/",
    "http://example.com#@127.0.0.1:80\\@/ ",
    "http://a:b@example.com/",
    "http://@127.0.0.1/",
    "http://example..com/",
    "http://.example.com/",
    "http://example.com../",
    "http://exam ple.com/",
    "http://-/",
    "http://xn--/",
    "http://foo.xn--/",
    "http://foo.xn--internal-/",
    "http://💩/",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 127 + "com/",
    "blob:http://example.com/",
    "javascript:alert(1)",
    "view-source:http://127.0.0.1/",
    "\ufeffhttp://example.com/",
    "http://example.com/\ud800",
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


BAD = "http://127.0.0.1/"
IMAGE = {"type": "image_url", "image_url": {"url": BAD}}


@pytest.mark.parametrize(
    "document",
    [
        chat(BAD, "video_url"),
        chat(BAD, "audio_url"),
        {"messages": [{"role": "user", "content": [{"image_url": BAD}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "uuid": "u", "image_url": BAD}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_url": BAD}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"url": BAD}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"url": BAD}}]}]},
        {"messages": [{"role": "tool", "content": [IMAGE]}]},
        {"messages": [{"role": "user", "content": IMAGE}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": BAD}]}]},
        {"input": [{"type": "input_file", "file_url": BAD}]},
        {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": BAD}]}]},
        {"input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": BAD}}]},
        {"previous_input_messages": [{"role": "user", "content": [IMAGE]}]},
        {"documents": {"content": [IMAGE]}},
        {"documents": [{"content": [IMAGE]}]},
        {"query": {"content": [IMAGE]}},
        {"queries": [{"content": [IMAGE]}]},
        {"data_1": {"content": [IMAGE]}},
        {"data_2": [{"content": [IMAGE]}]},
        {"items": [{"content": [IMAGE]}]},
        {"system": [{"type": "text", "text": "x"}], "messages": [
            {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": BAD}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": BAD}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "content", "content": [
            {"type": "image", "source": {"type": "url", "url": BAD}}]}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [
            {"type": "image", "source": {"type": "url", "url": BAD}}]}]}]},
    ],
)  # fmt: skip
def test_an_address_is_found_wherever_the_engine_would_fetch_it(document: dict[str, Any]) -> None:
    assert media.may_hold_addresses(json.dumps(document).encode())
    with pytest.raises(ApiError):
        media.check(document, ())


@pytest.mark.parametrize(
    "document",
    [
        {"tools": [{"type": "function", "function": {"name": "show", "parameters": {
            "type": "object", "properties": {"image_url": {"type": "string"}, "file_url": "a link", "url": BAD},
            "examples": [{"image_url": BAD}]}}}]},
        {"tools": [{"name": "show", "input_schema": {"properties": {"content": [IMAGE]}}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"default": {"image_url": BAD}}}}},
        {"text": {"format": {"type": "json_schema", "schema": {"properties": {"image_url": "where"}}}}},
        {"structured_outputs": {"json": {"properties": {"image_url": {"const": BAD}}}}},
        {"metadata": {"image_url": "internal-17", "file_url": "s3://bucket/key"}},
        {"chat_template_kwargs": {"image_url": BAD}},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [
            {"type": "function", "function": {"name": "show", "arguments": '{"image_url": "http://127.0.0.1/"}'}}]}]},
        {"messages": [{"role": "assistant", "content": [
            {"type": "tool_use", "id": "t", "name": "show", "input": {"image_url": BAD, "url": BAD}}]}]},
        {"messages": [{"role": "user", "content": f'{{"image_url": "{BAD}"}}'}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": BAD}], "url": BAD}]},
        {"messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}]}]},
        {"input": [{"type": "function_call", "name": "show", "arguments": '{"image_url": "http://127.0.0.1/"}'}]},
        {"input": [{"type": "mcp_list_tools", "tools": [{"input_schema": {"properties": {"image_url": "x"}}}]}]},
        {"input": BAD},
        {"input": [BAD]},
        {"query": BAD, "documents": [BAD, {"text": BAD, "url": BAD, "image_url": "one that only a template reads"}]},
        {"prompt": BAD},
    ],
)  # fmt: skip
def test_what_nobody_fetches_is_not_looked_at(document: dict[str, Any]) -> None:
    media.check(document, ())


def test_no_more_addresses_are_looked_at_than_any_model_takes() -> None:
    """Each may take 50 us of the one thread that serves everybody."""

    def pictures(count: int, address: str) -> dict[str, Any]:
        part = {"type": "image_url", "image_url": {"url": address}}
        return {"messages": [{"role": "user", "content": [part] * count}]}

    media.check(pictures(1000, "https://example.com/a.png"), ())
    with pytest.raises(ApiError, match="more than 1000 addresses"):
        media.check(pictures(1001, "https://example.com/a.png"), ())
    media.check(pictures(5000, "data:image/png;base64,AAAA"), ())


def test_hosts_that_are_named_are_let_through() -> None:
    media.check(chat("http://127.0.0.1:9000/a.png"), ("127.0.0.1", "media.internal"))
    for address in ("http://media.internal/a.png", "http://media.internal./a.png", "http://MEDIA.internal:80"):
        media.check(chat(address), ("127.0.0.1", "media.internal"))
    with pytest.raises(ApiError):
        media.check(chat("http://127.0.0.2:9000/a.png"), ("127.0.0.1",))


async def test_the_engine_never_hears_of_it(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    # Escaped, so that no search of the bytes finds the word.
    plain = json.dumps(dict(chat("http://169.254.169.254/"), model=MODEL))
    escaped = plain.replace("url", "\\u0075rl")
    assert "url" not in escaped.replace("\\u0075rl", "")
    assert json.loads(escaped) == json.loads(plain)
    for body in (plain, escaped):
        response = await gateway.client.post(
            "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
        assert (response.status_code, response.json()["error"]["param"]) == (400, "image_url")
    assert (await gateway.chat(**chat("https://example.com/a.png"))).status_code == 200
    assert len(engine.requests) == 1
