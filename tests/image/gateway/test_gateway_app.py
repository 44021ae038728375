"""Paths, keys, models and bodies: which requests are accepted, and that rejected ones never reach the engine."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fakes.fake_engine import MODEL
from image.gateway.backends import InlineKeys, NoKeys
from image.gateway.routes import UPSTREAM
from tests.image.gateway.conftest import KEY, StartEngine, StartGateway, until

GOOD = {"model": MODEL, "messages": []}
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=XX"}


def form(model: str, name: str = "model") -> bytes:
    return (
        f'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00\x01 name="model"\r\n'
        f'--XX\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{model}\r\n--XX--\r\n'
    ).encode()


async def test_every_listed_path_goes_through(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    for path in UPSTREAM:
        audio = "audio" in path
        body = form(MODEL) if audio else json.dumps(GOOD).encode()
        response = await gateway.client.post(path, content=body, headers=FORM if audio else JSON)
        assert response.status_code == 200, path
    assert [request.path for request in engine.requests] == list(UPSTREAM)


async def test_adapters_are_models_of_their_own_names(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, adapters=("sql", "law"))
    listed = (await gateway.client.get("/v1/models")).json()["data"]
    assert [(card["id"], card.get("parent")) for card in listed] == [(MODEL, None), ("sql", MODEL), ("law", MODEL)]
    assert (await gateway.client.get("/v1/models/sql")).json()["id"] == "sql"
    for name, status in ((MODEL, 200), ("sql", 200), ("law", 200), ("other", 404)):
        body = json.dumps({**GOOD, "model": name})
        response = await gateway.client.post("/v1/chat/completions", content=body, headers=JSON)
        assert response.status_code == status, name
    assert [json.loads(request.body)["model"] for request in engine.requests] == [MODEL, "sql", "law"]


async def test_no_other_path_exists(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    others = (
        "/", "/metrics", "/load", "/version", "/ping", "/invocations", "/openapi.json", "/docs", "/tokenizer_info", "/v2/embed",
        "/v1", "/v1/", "/v1/chat/completions/render",
        "/v1/load_lora_adapter", "/v1/chat/../../metrics", "/v1/chat%2Fcompletions/x", "/sleep", "/v1/responses/abc",
        "/v1/images/generations", "/health/x", "/V1/MODELS", "/v1/messages/batches", "/openai/metrics",
        "/openai/deployments/x/load", "/openai/deployments//chat/completions", "/openai/v1/../metrics", "/inference/v1/generate",
    )  # fmt: skip
    for path in others:
        for method in ("GET", "POST"):
            # As a raw target: a client library would tidy it up.
            status, body = await raw(gateway.port, f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            assert status == 404, (method, path)
            error = json.loads(body)["error"]
            assert error["type" if path.startswith("/v1/messages") else "code"].startswith("not_found"), path
    assert engine.requests == []
    assert await gateway.metric('gateway_requests_total{path="other",status="404"}') == 2 * (len(others) - 1), (
        "/ is not counted"
    )


async def test_a_slash_too_many_makes_no_difference(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    for path in UPSTREAM:
        audio = "audio" in path
        body = form(MODEL) if audio else json.dumps(GOOD).encode()
        response = await gateway.client.post(f"{path}/", content=body, headers=FORM if audio else JSON)
        assert response.status_code == 200, path
    assert [request.path for request in engine.requests] == list(UPSTREAM)
    engine.requests.clear()
    for path in (
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions//",
        "//openai//v1/chat/completions",
    ):
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
        sent = json.dumps(GOOD)
        assert (await raw(gateway.port, f"{head}content-length: {len(sent)}\r\n\r\n{sent}"))[0] == 200, path
    assert [request.path for request in engine.requests] == ["/v1/chat/completions"] * 4
    for path in ("/health/", "/health/ready/", "/info/", "/v1/models/", f"/v1/models/{MODEL}/"):
        response = await gateway.client.get(path)
        assert response.status_code == 200, path
    assert (await gateway.client.get("/v1/models/")).json() == (await gateway.client.get("/v1/models")).json()
    assert (await gateway.client.get("/v1/models/", headers={"authorization": ""})).status_code == 401


async def raw(port: int, request: str) -> tuple[int, bytes]:
    """Status and body of an answer that has a length."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
    body = await reader.readexactly(length)
    writer.close()
    return int(head.split(" ")[1]), body


async def test_methods(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    for method, path, allowed in (
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/health", "GET"),
    ):
        response = await gateway.client.request(method, path)
        assert response.status_code == 405
        assert response.headers["allow"] == allowed
    assert (await gateway.client.head("/health")).status_code == 200
    assert engine.requests == []


async def test_what_needs_a_key(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    keys = InlineKeys(f'{{"alice": "{KEY}", "bob": "sk-bob"}}')
    gateway = await start_gateway(engine, keys=keys)
    for authorization in ("", "Bearer", "Bearer wrong", f"Basic {KEY}", f"bearer {KEY}x", KEY):
        for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", f"/v1/models/{MODEL}")):
            response = await gateway.client.request(
                method, path, json=GOOD if method == "POST" else None, headers={"authorization": authorization}
            )
            assert response.status_code == 401, authorization
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert response.headers["www-authenticate"] == "Bearer"
    assert engine.requests == []
    for path in ("/health", "/health/ready", "/info"):
        assert (await gateway.client.get(path, headers={"authorization": ""})).status_code == 200
    for name, key in (("alice", KEY), ("bob", "sk-bob")):
        assert (await gateway.chat(headers={"authorization": f"bearer {key}"})).status_code == 200
        assert gateway.log()[-1]["key"] == name
    assert KEY not in gateway.log_text()
    assert "sk-bob" not in gateway.log_text()


async def test_without_keys_everybody_is_let_in(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine(), keys=NoKeys())
    assert (await gateway.chat(headers={"authorization": ""})).status_code == 200


BAD_BODIES: list[tuple[bytes, Any, int, str]] = [
    (b"", JSON, 400, "not JSON"),
    (b"{", JSON, 400, "not JSON"),
    (b"[]", JSON, 400, "not a JSON object"),
    (b"null", JSON, 400, "not a JSON object"),
    (b'{"model": NaN}', JSON, 400, "column 11"),
    (b'{"model": 7}', JSON, 400, "'model' is not a string"),
    (b'{"stream": "yes"}', JSON, 400, "'stream'"),
    (b'{"model": "\xff"}', JSON, 400, "UTF-8"),
    (b'{"model": "' + MODEL.encode() + b'"} x', JSON, 400, "not JSON"),
    (b'{"a":' + b"[" * 100_000, JSON, 400, "nested too deeply"),
    (b"{}", {"content-type": "text/plain"}, 415, "application/json"),
    (b"{}", {}, 415, "application/json"),
    (b"{}", {**JSON, "content-encoding": "br"}, 415, "must be gzip"),
    (b"{}", {**JSON, "content-encoding": "gzip, gzip"}, 415, "must be gzip"),
    (b"{}", {**JSON, "content-encoding": "gzip"}, 400, "not valid gzip"),
    (json.dumps({"model": "other/model"}).encode(), JSON, 404, "other/model"),
    (b'{"model": ""}', JSON, 404, "does not exist"),
]


async def test_bad_bodies(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    for body, headers, status, says in BAD_BODIES:
        response = await gateway.client.post("/v1/chat/completions", content=body, headers=headers)
        assert response.status_code == status, body[:50]
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert says in error["message"]
    assert engine.requests == []
    assert gateway.service.admission.demand == 0


FORMS: list[tuple[bytes, Any, int]] = [
    (form("other/model"), FORM, 404),
    (form(MODEL)[:-40], FORM, 400),
    (b"--YY\r\n", FORM, 400),
    (form(MODEL), {"content-type": "multipart/form-data"}, 400),
    (form(MODEL), JSON, 415),
    (form(MODEL, "prompt"), FORM, 200),
]


async def test_forms(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    for body, headers, status in FORMS:
        engine.requests.clear()
        response = await gateway.client.post("/v1/audio/transcriptions", content=body, headers=headers)
        assert response.status_code == status, body
        assert len(engine.requests) == (status == 200)


async def test_a_body_beyond_the_cap(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, max_body_bytes=200_000)
    pad = "x" * 200_000
    assert (await gateway.chat(pad=pad)).status_code == 413

    async def unannounced() -> Any:
        for _ in range(100):
            yield b" " * 5000

    response = await gateway.client.post("/v1/completions", content=unannounced(), headers=JSON)
    assert response.status_code == 413
    assert (await gateway.chat(pad=pad[:150_000])).status_code == 200
    assert len(engine.requests) == 1
    assert gateway.service.admission.waiting_bytes == 0
    assert await gateway.metric('gateway_refusals_total{reason="body_too_large"}') == 2


async def test_a_body_that_costs_too_much_to_parse(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine())
    response = await gateway.client.post("/v1/completions", content=b"[" + b"{}," * 600_000 + b"{}]", headers=JSON)
    assert response.status_code == 413


async def test_a_client_that_waits_to_be_told_to_send_its_body(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    body = json.dumps(GOOD)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"{head}content-type: application/json\r\nauthorization: Bearer {KEY}\r\n\r\n".encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body.encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"{head}\r\n".encode())
    refusal = await reader.read()  # to its end: a body that nobody asked for cannot follow
    assert refusal.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in refusal
    writer.close()
    assert len(engine.requests) == 1


async def test_models_are_listed_cold_or_not(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(info={"max_model_len": 8192, "gpu": "A10G"})
    listed = (await gateway.client.get("/v1/models")).json()
    assert [card["id"] for card in listed["data"]] == [MODEL]
    assert listed["data"][0]["max_model_len"] == 8192
    one = await gateway.client.get("/v1/models/" + MODEL.replace("/", "%2F"))
    assert one.json() == listed["data"][0]
    response = await gateway.client.get("/v1/models/other")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


async def test_info_says_what_runs(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, info={"gpu": "A10G", "model": "not this"})
    info = await gateway.info()
    assert info["gpu"] == "A10G"
    assert info["model"] == MODEL
    assert info["state"] == "ready"
    assert info["engine_version"] == "0.32.0"
    assert info["replicas"] == {"ready": 1, "known": 1}
    await engine.stop()
    await gateway.ready(0)
    assert (await gateway.info())["state"] == "cold"


async def test_a_fault_of_our_own_is_a_500_that_names_nothing(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway(await start_engine())

    def broken(*arguments: object) -> None:
        raise KeyError("inner workings")

    monkeypatch.setattr("image.gateway.body.read", broken)
    response = await gateway.chat()
    assert response.status_code == 500
    assert "inner workings" not in response.text
    assert gateway.log("internal_error")[0]["request_id"] == response.headers["x-request-id"]
    monkeypatch.undo()
    assert (await gateway.chat()).status_code == 200


async def test_requests_follow_each_other_on_one_connection(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """Pipelined, and with a refused one in between."""
    engine = await start_engine()
    gateway = await start_gateway(engine)
    body = json.dumps(GOOD)
    head = f"host: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    paths = ("/v1/completions", "/nowhere", "/v1/chat/completions")
    writer.write("".join(f"POST {path} HTTP/1.1\r\n{head}{body}" for path in paths).encode())
    statuses = []
    for _ in paths:
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        statuses.append(int(answer.split(" ")[1]))
        await reader.readexactly(int(answer.partition("content-length: ")[2].partition("\r\n")[0]))
    assert statuses == [200, 404, 200]
    writer.close()
    await until(lambda: len(gateway.log()) == 3)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/models", "/v1/models"),
        ("/models/a/b", "/v1/models/a/b"),
        ("/messages", "/v1/messages"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/tokenize", "/tokenize"),
    ],
)
async def test_a_wrong_base_url_is_pointed_out(
    start_engine: StartEngine, start_gateway: StartGateway, path: str, meant: str
) -> None:
    """The most common mistake: a base URL without /v1, or with it for a client that adds /v1 itself."""
    engine = await start_engine()
    gateway = await start_gateway(engine)
    response = await gateway.client.post(path, json={"model": MODEL})
    assert response.status_code == 404
    assert f"asks for '{meant}'" in response.json()["error"]["message"]
    assert engine.requests == []
