"""The service around the model: health, info, models, and what must not be there."""

from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from openai import NotFoundError, OpenAI

from smoke_tests.expectations import assert_openai_error
from smoke_tests.target import Target

# The engine's own paths: vLLM serves them beside /v1, and its --api-key guards few of them.
FORBIDDEN_PATHS = [
    "/tokenizer_info", "/metrics", "/invocations", "/ping", "/version", "/docs", "/redoc", "/openapi.json",
    "/load", "/server_info", "/sleep", "/wake_up", "/is_sleeping", "/reset_prefix_cache",
    "/collective_rpc", "/start_profile", "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
]  # fmt: skip
# Other spellings of a forbidden path, for a list that is matched by its beginning or after decoding.
DISGUISED_PATHS = [
    "/v1/../metrics", "/v1/%2e%2e/metrics", "/v1/models/..%2f..%2fmetrics", "//metrics", "/metrics/", "/metrics?v1",
    "/v1/chat/completions/../../../metrics", "/METRICS", "/v1/metrics",
]  # fmt: skip
ORIGIN = "https://somebody.example"


def test_health(plain: httpx2.Client) -> None:
    """/health answers 200 without a key: load balancers have none."""
    assert plain.get("/health").status_code == 200


def test_info_names_the_model(http: httpx2.Client, info: dict[str, Any], target: Target, model: str) -> None:
    """/info names the model, and shows no key."""
    response = http.get("/info")
    assert response.status_code == 200
    assert info["model"] == model
    assert target.api_key is None or target.api_key not in response.text


def test_models_lists_the_model(client: OpenAI, model: str) -> None:
    """/v1/models lists the model."""
    listed = client.models.list().data
    assert model in [entry.id for entry in listed]
    assert all(entry.object == "model" for entry in listed)


def test_a_model_is_found_by_its_name(client: OpenAI, model: str) -> None:
    """/v1/models/NAME is the model, and a 404 under any other name."""
    assert client.models.retrieve(model).id == model
    with pytest.raises(NotFoundError):
        client.models.retrieve("no-such/model")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", FORBIDDEN_PATHS)
def test_forbidden_path_is_404(http: httpx2.Client, method: str, path: str) -> None:
    """What vLLM serves beside the API is a 404 in OpenAI's form, with a key, too."""
    assert_openai_error(http.request(method, path, json={} if method == "POST" else None), 404)


@pytest.mark.parametrize("path", DISGUISED_PATHS)
def test_forbidden_path_stays_hidden(target: Target, path: str) -> None:
    """No other spelling of a forbidden path gets through."""
    base = urlsplit(target.endpoint)
    kind = HTTPSConnection if base.scheme == "https" else HTTPConnection
    connection = kind(base.netloc, timeout=60)
    try:
        # Other clients would mend the path; this one sends it as it stands.
        connection.request("GET", base.path + path, headers=target.headers)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    finally:
        connection.close()
    assert 400 <= response.status < 500, f"HTTP {response.status}: {text[:80]}"
    assert "vllm:" not in text


def test_wrong_method_is_405(http: httpx2.Client) -> None:
    """A path asked with another method is a 405 in OpenAI's form."""
    assert_openai_error(http.get("/v1/chat/completions"), 405)


def test_no_other_site_is_let_in(http: httpx2.Client) -> None:
    """CORS is off: a page of another site cannot use the key of somebody who visits it."""
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
