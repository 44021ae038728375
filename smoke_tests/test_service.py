"""The service around the model: health, info, models, and paths that must stay hidden."""

from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from openai import NotFoundError, OpenAI
from openai.types import Model

from smoke_tests.expectations import assert_openai_error
from smoke_tests.target import Target
from smoke_tests.wire import assert_is

# vLLM serves these paths beside /v1, and its --api-key protects few of them.
FORBIDDEN_PATHS = [
    "/tokenizer_info", "/metrics", "/invocations", "/ping", "/version", "/docs", "/redoc", "/openapi.json",
    "/load", "/server_info", "/sleep", "/wake_up", "/is_sleeping", "/reset_prefix_cache",
    "/collective_rpc", "/start_profile", "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
]  # fmt: skip
# Other spellings of a forbidden path, against matching by prefix or before decoding.
DISGUISED_PATHS = [
    "/v1/../metrics", "/v1/%2e%2e/metrics", "/v1/models/..%2f..%2fmetrics", "//metrics", "/metrics/", "/metrics?v1",
    "/v1/chat/completions/../../../metrics", "/METRICS", "/v1/metrics",
]  # fmt: skip
ORIGIN = "https://somebody.example"


def test_health(plain: httpx2.Client) -> None:
    """/health returns 200 without a key, as load balancers require."""
    assert plain.get("/health").status_code == 200


def test_info_names_the_model(http: httpx2.Client, info: dict[str, Any], target: Target, model: str) -> None:
    """/info names the model and contains no key."""
    response = http.get("/info")
    assert response.status_code == 200
    assert info["model"] == model
    assert target.api_key is None or target.api_key not in response.text


def test_models_lists_the_model(client: OpenAI, model: str) -> None:
    """/v1/models lists the model."""
    listed = client.models.list().data
    assert model in [entry.id for entry in listed]
    assert all(entry.object == "model" for entry in listed)


def test_models_have_openais_format(http: httpx2.Client, model: str) -> None:
    """/v1/models is a list of unique models with id, object, created and owned_by, each the same under its own path."""
    listed = http.get("/v1/models").json()
    assert listed["object"] == "list", f"the object is {listed['object']!r}"
    for card in listed["data"]:
        assert_is(Model, card)
    names = [card["id"] for card in listed["data"]]
    assert len(set(names)) == len(names), f"a model is listed twice: {names}"
    card = next(card for card in listed["data"] if card["id"] == model)
    assert 0 < card["created"] < 100_000_000_000, f"created is not in seconds: {card['created']}"
    alone = http.get(f"/v1/models/{model}").json()
    assert_is(Model, alone)
    assert [alone[field] for field in ("id", "owned_by")] == [card[field] for field in ("id", "owned_by")]


def test_a_model_is_found_by_its_name(client: OpenAI, model: str) -> None:
    """/v1/models/NAME returns the model, and 404 for any other name."""
    assert client.models.retrieve(model).id == model
    with pytest.raises(NotFoundError):
        client.models.retrieve("no-such/model")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", FORBIDDEN_PATHS)
def test_forbidden_path_is_404(http: httpx2.Client, method: str, path: str) -> None:
    """The other paths of vLLM return 404 in OpenAI's error format, even with a key."""
    assert_openai_error(http.request(method, path, json={} if method == "POST" else None), 404)


@pytest.mark.parametrize("path", DISGUISED_PATHS)
def test_forbidden_path_stays_hidden(target: Target, path: str) -> None:
    """No other spelling of a forbidden path reaches the engine."""
    base = urlsplit(target.endpoint)
    kind = HTTPSConnection if base.scheme == "https" else HTTPConnection
    connection = kind(base.netloc, timeout=60)
    try:
        # Other clients normalize the path; this one sends it unchanged.
        connection.request("GET", base.path + path, headers=target.headers)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    finally:
        connection.close()
    assert 400 <= response.status < 500, f"HTTP {response.status}: {text[:80]}"
    assert "vllm:" not in text


def test_wrong_method_is_405(http: httpx2.Client) -> None:
    """A wrong method returns 405 in OpenAI's error format."""
    assert_openai_error(http.get("/v1/chat/completions"), 405)


def test_no_other_site_is_let_in(http: httpx2.Client) -> None:
    """CORS is off: a page of another site cannot use a visitor's key."""
    preflight = http.options(
        "/v1/chat/completions",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    answer = http.get("/v1/models", headers={"Origin": ORIGIN})
    for response in (preflight, answer):
        allowed = [name for name in response.headers if name.lower().startswith("access-control-allow")]
        assert not allowed, f"{response.request.method} answers with {', '.join(allowed)}"
