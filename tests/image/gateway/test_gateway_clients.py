"""Other clients than OpenAI's: Anthropic's and Azure's paths, keys and errors, and models with several names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import AsyncAzureOpenAI

from fakes import fake_engine
from fakes.fake_engine import MODEL, Line, Request
from image.gateway.backends import InlineKeys
from image.gateway.settings import Settings, SettingsError
from tests.image.gateway.conftest import KEY, Cloud, StartEngine, StartGateway
from tests.image.gateway.test_gateway_app import FORM, form
from tests.image.gateway.test_gateway_settings import LEAST

MESSAGE = {"model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]}
# As vLLM 0.33 writes it.
EVENTS = [
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","content":[],"usage":{"input_tokens":7,"output_tokens":0}}}\n\n',
    b'event: content_block_start\ndata: {"index":0,"type":"content_block_start","content_block":{"type":"text","text":""}}\n\n',
    b'event: content_block_delta\ndata: {"index":0,"type":"content_block_delta","delta":{"type":"text_delta","text":"Hello"}}\n\n',
    b'event: content_block_stop\ndata: {"index":0,"type":"content_block_stop"}\n\n',
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":7,"output_tokens":2}}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
]


async def speak_anthropic(request: Request, line: Line) -> None:
    line.head(content_type="text/event-stream; charset=utf-8")
    for event in EVENTS:
        line.chunk(event)
    line.end()


def anthropic_error(document: Any, kind: str) -> str:
    assert document["type"] == "error"
    assert document["request_id"]
    assert set(document["error"]) == {"type", "message"}
    assert document["error"]["type"] == kind
    return str(document["error"]["message"])


@pytest.mark.parametrize("name", ["x-api-key", "api-key"])
async def test_a_key_is_taken_from_each_sdks_header_and_goes_no_further(
    start_engine: StartEngine, start_gateway: StartGateway, name: str
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    assert (await gateway.chat(headers={"authorization": "", name: KEY})).status_code == 200
    assert (await gateway.chat(headers={"authorization": "", name: KEY + "x"})).status_code == 401
    # Claude Code's two variables may hold keys of two services.
    assert (await gateway.chat(headers={name: "sk-another"})).status_code == 200
    assert (await gateway.chat(headers={"authorization": "Bearer sk-another", name: KEY})).status_code == 200
    assert (await gateway.chat(headers={"authorization": "Bearer sk-another", name: "sk-a-third"})).status_code == 401
    models = await gateway.client.get("/v1/models", headers={"authorization": "", name: KEY})
    assert models.status_code == 200
    assert len(engine.requests) == 3
    for request in engine.requests:
        assert not {"authorization", "x-api-key", "api-key"} & set(request.headers)
        assert KEY not in str(request.headers)
    assert (await gateway.client.get(f"/v1/models?{name}={KEY}", headers={"authorization": ""})).status_code == 401


async def test_a_key_that_has_expired_is_told_so(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    document = {
        "alice": [{"key": KEY, "expires": "2026-01-31T12:00:00Z"}, {"key": "sk-new", "expires": "2999-01-01T00:00:00Z"}]
    }
    gateway = await start_gateway(await start_engine(), keys=InlineKeys(json.dumps(document)))
    response = await gateway.chat()
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "expired_api_key"
    assert "expired on 2026-01-31T12:00:00Z" in response.json()["error"]["message"]
    assert KEY not in response.text + gateway.log_text()
    assert (await gateway.chat(headers={"authorization": "Bearer sk-new"})).status_code == 200
    assert await gateway.metric('gateway_refusals_total{reason="key_expired"}') == 1


async def test_a_stream_of_anthropics_comes_back_byte_for_byte_and_is_counted(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(speak_anthropic)
    gateway = await start_gateway(engine)
    response = await gateway.client.post("/v1/messages?beta=true", json=MESSAGE | {"stream": True})
    assert response.content == b"".join(EVENTS)
    assert engine.requests[0].path == "/v1/messages?beta=true"
    assert [gateway.log()[-1][name] for name in ("stream", "tokens_in", "tokens_out")] == [True, 7, 2]


async def test_the_gateways_own_errors_are_in_anthropics_shape_there(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    document = {"tester": {"key": KEY, "limits": {"requests_per_minute": 3}}}
    gateway = await start_gateway(await start_engine(), keys=InlineKeys(json.dumps(document)), max_tokens=10)
    post = gateway.client.post
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        response = await post(path, json=MESSAGE, headers={"authorization": "", "x-api-key": "wrong"})
        assert response.status_code == 401
        anthropic_error(response.json(), "authentication_error")
        assert response.json()["request_id"] == response.headers["x-request-id"]
    response = await post("/v1/messages", json=MESSAGE | {"model": "other"})
    assert response.status_code == 404
    assert "other" in anthropic_error(response.json(), "not_found_error")
    response = await post("/v1/messages", json=MESSAGE | {"max_tokens": 11})
    assert response.status_code == 400
    assert "at most 10" in anthropic_error(response.json(), "invalid_request_error")
    assert (await post("/v1/messages", json=MESSAGE)).status_code == 200
    response = await post("/v1/messages", json=MESSAGE)
    assert (response.status_code, int(response.headers["retry-after"]) > 0) == (429, True)
    anthropic_error(response.json(), "rate_limit_error")
    response = await gateway.client.get("/v1/messages")
    assert response.status_code == 405
    anthropic_error(response.json(), "invalid_request_error")
    gateway.service.app.start_refusing()
    response = await post("/v1/messages", json=MESSAGE)
    assert response.status_code == 503
    anthropic_error(response.json(), "overloaded_error")
    # And nowhere else.
    response = await post("/v1/chat/completions", json=MESSAGE, headers={"authorization": "Bearer wrong"})
    assert set(response.json()) == {"error"}


async def test_an_error_in_a_stream_is_an_event_that_anthropics_sdk_looks_for(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(fake_engine.reset_within_a_stream)
    engine.go_on.set()
    gateway = await start_gateway(engine)
    response = await gateway.client.post("/v1/messages", json=MESSAGE | {"stream": True})
    assert response.status_code == 200
    name, data = response.text.rstrip("\n").rpartition("\n\n")[2].split("\n")
    assert name == "event: error"
    anthropic_error(json.loads(data.removeprefix("data: ")), "api_error")


@pytest.mark.parametrize("refusal", [fake_engine.refuse, fake_engine.fail])
async def test_a_refusal_after_comments_is_such_an_event_too(
    start_engine: StartEngine, start_gateway: StartGateway, refusal: fake_engine.Behaviour
) -> None:
    engine = await start_engine(refusal)
    cloud = Cloud(engine)
    gateway = await start_gateway(discovery=cloud, capacity=cloud, sse_comment_seconds=0.02, ready=0)
    async with gateway.client.stream("POST", "/v1/messages", json=MESSAGE | {"stream": True}) as response:
        parts = response.aiter_raw()
        assert (await anext(parts)).startswith(b":")
        cloud.arrive()
        rest = b"".join([part async for part in parts])
    name, data = [line for line in rest.decode().splitlines() if line and not line.startswith(":")]
    assert name == "event: error"
    kind = "invalid_request_error" if refusal is fake_engine.refuse else "api_error"
    anthropic_error(json.loads(data.removeprefix("data: ")), kind)


@pytest.mark.parametrize(
    ("document", "kind", "says"),
    [
        (
            {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}},
            "invalid_request_error",
            "too long",
        ),
        ({"type": "error", "error": {"type": "BadRequestError", "message": "too long"}}, "BadRequestError", "too long"),
        ({"detail": "odd"}, None, None),
    ],
)
async def test_what_vllm_refuses_in_openais_shape_there_is_told_in_anthropics(
    start_engine: StartEngine, start_gateway: StartGateway, document: dict[str, Any], kind: str | None, says: str | None
) -> None:
    async def refuse(request: Request, line: Line) -> None:
        line.reply(document, 400)

    gateway = await start_gateway(await start_engine(refuse))
    response = await gateway.client.post("/v1/messages", json=MESSAGE)
    assert response.status_code == 400
    if kind is None or "type" in document:
        assert response.json() == document, "what is right already, or cannot be read, stays as it came"
    else:
        assert anthropic_error(response.json(), kind) == says
    assert (await gateway.chat()).json() == document, "and nowhere else"


async def test_counting_tokens_uses_none_of_a_keys_tokens(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    document = {"tester": {"key": KEY, "limits": {"tokens_per_minute": 10}}}
    gateway = await start_gateway(await start_engine(), keys=InlineKeys(json.dumps(document)))
    for path in ("/v1/messages/count_tokens", "/tokenize", "/detokenize") * 2:
        assert (await gateway.client.post(path, json=MESSAGE | {"pad": "x" * 99})).status_code == 200
    assert (await gateway.chat()).status_code == 200  # 9 tokens
    assert (await gateway.chat()).status_code == 200
    assert (await gateway.chat()).status_code == 429


async def test_models_are_listed_as_anthropics_sdk_reads_them(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(aliases=("chat",), info={"max_model_len": 8192})
    version = {"anthropic-version": "2023-06-01"}
    listed = (await gateway.client.get("/v1/models?limit=20", headers=version)).json()
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, MODEL, "chat")
    assert [(card["type"], card["id"], card["display_name"]) for card in listed["data"]] == [
        ("model", MODEL, MODEL),
        ("model", "chat", "chat"),
    ]
    assert (await gateway.client.get("/v1/models/chat", headers=version)).json() == listed["data"][1]
    response = await gateway.client.get("/v1/models/other", headers=version)
    anthropic_error(response.json(), "not_found_error")


PRIVATE = "http://169.254.169.254/latest/meta-data"
IMAGE = {"type": "image", "source": {"type": "url", "url": PRIVATE}}
PART = {"type": "image_url", "image_url": {"url": PRIVATE}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"messages": [{"role": "user", "content": [IMAGE]}]}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": [{"type": "text"}, IMAGE]}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [IMAGE]}]}]}),
        ("/tokenize", {"messages": [{"role": "user", "content": [PART]}]}),
        ("/pooling", {"messages": [{"role": "user", "content": [PART]}]}),
        ("/pooling", {"data": {"data": PRIVATE, "data_format": "url"}}),
        ("/classify", {"messages": [{"role": "user", "content": [PART]}]}),
        ("/score", {"queries": {"content": [PART]}, "documents": "x"}),
        ("/v1/score", {"data_1": "x", "data_2": [{"content": [PART]}]}),
        ("/v1/score", {"text_1": "x", "text_2": {"content": [PART]}}),
        ("/score", {"queries": "x", "items": [{"content": [PART]}]}),
        ("/rerank", {"query": {"content": [PART]}, "documents": ["x"]}),
        ("/v2/rerank", {"query": "x", "documents": ["x", {"content": [PART]}]}),
        ("/v1/embeddings", {"messages": [{"role": "user", "content": [PART]}]}),
    ],
)
async def test_no_path_makes_the_engine_fetch_from_a_private_network(
    start_engine: StartEngine, start_gateway: StartGateway, path: str, body: dict[str, Any]
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    assert (await gateway.client.post(path, json=body)).status_code == 400
    assert engine.requests == []
    public = json.loads(json.dumps(body).replace(PRIVATE, "https://images.example.com/a.png"))
    assert (await gateway.client.post(path, json=public)).status_code == (400 if "data" in body else 200)


async def test_image_as_base64_and_a_system_prompt_go_through(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    source = {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}
    content = [
        {"type": "image", "source": source},
        {"type": "text", "text": "?"},
        {"type": "tool_result", "content": "x"},
    ]
    body = MESSAGE | {
        "system": [{"type": "text", "text": "Be brief"}],
        "messages": [{"role": "user", "content": content}],
    }
    assert (await gateway.client.post("/v1/messages", json=body)).status_code == 200
    assert engine.requests[0].json == body
    assert gateway.log()[-1]["modalities"] == ["text", "image"]


# Azure


@pytest.mark.parametrize(
    ("path", "reached"),
    [
        ("/openai/deployments/sql/chat/completions", "/v1/chat/completions"),
        ("/openai/deployments/sql/completions", "/v1/completions"),
        ("/openai/deployments/sql/embeddings", "/v1/embeddings"),
        (f"/openai/deployments/{MODEL}/chat/completions", "/v1/chat/completions"),
        ("/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/v1/responses", "/v1/responses"),
    ],
)
async def test_azures_paths_lead_where_openais_do(
    start_engine: StartEngine, start_gateway: StartGateway, path: str, reached: str
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, adapters=("sql",))
    for body in ({}, {"model": None}, {"model": "gpt-4o", "n": 1}, {"model": MODEL}):
        response = await gateway.client.post(path, json=body, headers={"authorization": "", "api-key": KEY})
        if "/deployments/" not in path and body.get("model") == "gpt-4o":
            assert response.status_code == 404
            continue
        assert response.status_code == 200
        request = engine.requests[-1]
        assert request.path.partition("?")[0] == reached
        if "/deployments/" in path:
            named = "sql" if "/sql/" in path else MODEL
            assert request.json["model"] == gateway.log()[-1]["model"] == named, (
                "the path says which, whatever the body says"
            )
    assert gateway.log()[-1]["path"] == path
    other = path.replace("/sql/", "/other/").replace(MODEL, "other/model")
    response = await gateway.client.post(other, json={"model": "gpt"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


async def test_a_form_names_its_deployment_itself(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, adapters=("sql",))
    path = f"/openai/deployments/{MODEL}/audio/transcriptions"
    assert (await gateway.client.post(path, content=form(MODEL), headers=FORM)).status_code == 200
    assert (await gateway.client.post(path, content=form("sql"), headers=FORM)).status_code == 400


async def test_azures_client_works_as_it_is(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    async with AsyncAzureOpenAI(
        azure_endpoint=gateway.url, api_key=KEY, api_version="2024-10-21", max_retries=0
    ) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
        assert answer.choices[0].message.content == "Hello"
        stream = await client.chat.completions.create(model=MODEL, messages=[], stream=True)
        assert [chunk.choices[0].delta.content async for chunk in stream if chunk.choices] == [
            "Hello",
            ' wörld \\"usage\\":',
        ]
    assert "api-key" not in engine.requests[0].headers


# Several names


async def test_each_name_of_a_model_is_listed_and_accepted(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, aliases=("chat", "gpt-4o"), adapters=("sql",))
    listed = (await gateway.client.get("/v1/models")).json()["data"]
    assert [(card["id"], card.get("parent")) for card in listed] == [
        (MODEL, None), ("chat", None), ("gpt-4o", None), ("sql", MODEL),
    ]  # fmt: skip
    for name in (MODEL, "chat", "gpt-4o", "sql"):
        assert (await gateway.chat(model=name)).status_code == 200
        assert (await gateway.client.get(f"/v1/models/{name}")).json()["id"] == name
    assert [request.json["model"] for request in engine.requests] == [MODEL, "chat", "gpt-4o", "sql"]
    assert (await gateway.chat(model="gpt-4")).status_code == 404
    assert (await gateway.chat(model=None)).status_code == 200, "vLLM takes its own first name"


def test_no_name_is_given_twice() -> None:
    for variables in (
        {"GATEWAY_ALIASES": "org/model"},
        {"GATEWAY_ALIASES": "a,a"},
        {"GATEWAY_ALIASES": "a", "GATEWAY_ADAPTERS": "a"},
    ):
        with pytest.raises(SettingsError, match="twice; set each name once"):
            Settings.from_environment({**LEAST, **variables})
