"""CORS: the headers that browsers receive, and a real browser that streams a chat by fetch."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Error, async_playwright

from fakes import fake_engine
from fakes.fake_engine import MODEL, Line, Request
from image.gateway.backends import InlineKeys
from image.gateway.settings import Settings, SettingsError
from tests import browsers
from tests.image.gateway.conftest import KEY, Gateway, StartEngine, StartGateway
from tests.image.gateway.test_gateway_settings import LEAST

APP = "https://app.example.com"
ASKED = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


def cors(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("access-control-") or name == "vary"}


async def test_a_browser_is_told_what_a_page_may_send_before_there_is_a_key(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, allowed_origins=(APP, "http://localhost:5173"))
    for path in ("/v1/chat/completions", "/v1/models", "/v1/messages", "/nowhere"):
        for origin in (APP, "http://localhost:5173"):
            response = await gateway.client.options(path, headers={"authorization": "", "origin": origin, **ASKED})
            assert (response.status_code, response.content) == (204, b"")
            assert cors(response.headers) == {
                "access-control-allow-origin": origin,
                "access-control-expose-headers": "x-request-id, retry-after",
                "access-control-allow-methods": "GET, HEAD, POST",
                "access-control-allow-headers": ASKED["access-control-request-headers"],
                "access-control-max-age": "7200",
                "vary": "Access-Control-Request-Method, Access-Control-Request-Headers, Origin",
            }
            assert "content-length" not in response.headers
    assert engine.requests == []


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", APP + ".evil.com", APP.upper(), APP + ":8443"])
async def test_no_other_page_is(start_gateway: StartGateway, origin: str) -> None:
    for origins in ((APP,), ()):
        gateway = await start_gateway(allowed_origins=origins)
        response = await gateway.client.options("/v1/models", headers={"origin": origin, **ASKED})
        assert response.status_code == 403
        assert "allowedOrigins" in response.json()["error"]["message"]
        assert "access-control-allow-origin" not in response.headers
        response = await gateway.client.get("/v1/models", headers={"origin": origin})
        assert response.status_code == 200, (
            "a browser keeps the answer from the page; other clients may send what they like"
        )
        assert "access-control-allow-origin" not in response.headers


async def test_every_answer_can_be_read_errors_and_streams_included(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    document = {"tester": {"key": KEY, "limits": {"requests_per_minute": 2}}}
    gateway = await start_gateway(engine, allowed_origins=(APP,), keys=InlineKeys(json.dumps(document)))
    page = {"origin": APP}
    seen = {}
    for what, request in {
        "answer": gateway.chat(headers=page),
        "stream": gateway.chat(headers=page, stream=True),
        "limit": gateway.chat(headers=page),
        "key": gateway.chat(headers=page | {"authorization": "Bearer wrong"}),
        "path": gateway.client.get("/nowhere", headers=page),
        "method": gateway.client.options("/v1/models", headers=page),
        "health": gateway.client.get("/health", headers=page),
        "models": gateway.client.get("/v1/models", headers=page),
    }.items():
        response = await request
        seen[what] = response.status_code
        assert response.headers["access-control-allow-origin"] == APP, what
        assert response.headers["access-control-expose-headers"] == "x-request-id, retry-after", what
        assert response.headers["vary"] == "Origin", what
        assert "access-control-allow-credentials" not in response.headers
    assert seen == {
        "answer": 200, "stream": 200, "limit": 429, "key": 401, "path": 404, "method": 405, "health": 200, "models": 200,
    }  # fmt: skip
    response = await gateway.client.get("/v1/models")
    assert cors(response.headers) == {"vary": "Origin"}, "a cache must not give this to a page"
    assert all("origin" not in request.headers for request in engine.requests)


async def test_what_vllm_says_about_origins_does_not_come_through(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """vLLM allows every page by default."""

    async def allow_all(request: Request, line: Line) -> None:
        body = json.dumps(fake_engine.COMPLETION).encode()
        line.write(
            b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\nvary: Origin\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )

    gateway = await start_gateway(await start_engine(allow_all))
    assert cors((await gateway.chat(headers={"origin": "https://evil.example.com"})).headers) == {}


async def test_every_page_may_where_the_setting_says_so(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(allowed_origins=("*",))
    for origin in (APP, "null"):
        response = await gateway.client.options("/v1/models", headers={"origin": origin, **ASKED})
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (204, "*")
    odd = {"origin": APP, "access-control-request-method": "POST", "access-control-request-headers": "a b"}
    assert "access-control-allow-headers" not in (await gateway.client.options("/v1/models", headers=odd)).headers


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("*", "GATEWAY_ALLOWED_ORIGINS is \\* without keys"),
        ("null", "sandboxed frame"),
        ("*,https://a.example.com", "\\* alone"),
        ("https://a.example.com/", "without a path"),
        ("a.example.com", "SCHEME://HOST"),
        ("https://*.example.com", "SCHEME://HOST"),
        ("https://A.example.com", "lower case"),
        ("https://a.example.com,", "''"),
    ],
)
def test_each_bad_origin_says_what_to_set(value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Settings.from_environment({**LEAST, "GATEWAY_ALLOWED_ORIGINS": value})


def test_every_page_may_use_an_endpoint_with_keys_and_named_ones_one_without() -> None:
    keys = {"GATEWAY_KEYS": "file:/run/keys"}
    assert Settings.from_environment({**LEAST, **keys, "GATEWAY_ALLOWED_ORIGINS": "*"}).allowed_origins == ("*",)
    named = Settings.from_environment({**LEAST, "GATEWAY_ALLOWED_ORIGINS": f"{APP}, http://[::1]:3000"})
    assert named.allowed_origins == (APP, "http://[::1]:3000")


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    program = browsers.installed()
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=browsers.OPTIONS)
        yield started
        await started.close()


# What a page does: stream a chat, and read an error's headers.
PAGE = """async ([url, key, model]) => {
  const headers = {'authorization': 'Bearer ' + key, 'content-type': 'application/json'};
  const ask = body => fetch(url + '/v1/chat/completions', {method: 'POST', headers, body: JSON.stringify(body)});
  const answer = await ask({model, stream: true, messages: [{role: 'user', content: 'Hi'}]});
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '', first = '';
  for (let part; !(part = await reader.read()).done;) { text += part.value; first ||= part.value; if (first === text) go(); }
  const wrong = await ask({model: 'other', messages: []});
  return {status: answer.status, text, first, id: answer.headers.get('x-request-id'),
          hidden: answer.headers.get('x-engine'), wrong: wrong.status, code: (await wrong.json()).error.code};
}"""


async def serve_page() -> tuple[asyncio.Server, str]:
    """An empty page on a free port, and its origin."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 14\r\nconnection: close\r\n\r\n<!doctype html"
            )
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def in_a_page(gateway: Gateway, engine: fake_engine.FakeEngine, origin: str) -> dict[str, Any]:
    async with asyncio.timeout(50), browser() as started:
        page = await started.new_page()
        await page.goto(origin + "/")
        await page.expose_function("go", engine.go_on.set)
        result: dict[str, Any] = await page.evaluate(PAGE, [gateway.url, KEY, MODEL])
        return result


async def test_a_page_in_a_real_browser_streams_a_chat(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(fake_engine.answer_when_told)  # the rest comes once the page has read the first event
    server, origin = await serve_page()
    async with server:
        gateway = await start_gateway(engine, allowed_origins=(origin,))
        seen = await in_a_page(gateway, engine, origin)
    assert seen["text"].encode() == b"".join(fake_engine.EVENTS)
    assert seen["first"].encode() == fake_engine.EVENTS[0]
    assert (seen["status"], seen["wrong"], seen["code"]) == (200, 404, "model_not_found")
    assert seen["id"], "x-request-id is for the page to read"
    assert seen["hidden"] is None


async def test_a_page_of_another_origin_gets_nothing(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    server, origin = await serve_page()
    async with server:
        gateway = await start_gateway(engine, allowed_origins=(APP,))
        with pytest.raises(Error, match="Failed to fetch"):
            await in_a_page(gateway, engine, origin)
    assert engine.requests == []
    assert await gateway.metric('gateway_refusals_total{reason="origin"}') == 1
