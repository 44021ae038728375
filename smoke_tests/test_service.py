"""The service around the model: health, info, models, and what must not be there."""

import httpx2
import pytest
from openai import OpenAI

from smoke_tests.expectations import assert_openai_error
from smoke_tests.target import Target

# The engine's own paths: vLLM serves them beside /v1, and its --api-key guards none of them.
FORBIDDEN_PATHS = [
    "/tokenize", "/detokenize", "/metrics", "/invocations", "/docs", "/openapi.json", "/load",
    "/sleep", "/server_info", "/v1/load_lora_adapter",
]  # fmt: skip


def test_health(target: Target) -> None:
    # Without the key: load balancers and orchestrators have none.
    assert httpx2.get(f"{target.endpoint}/health", timeout=30).status_code == 200


def test_info_names_the_model(http: httpx2.Client, target: Target, model: str) -> None:
    response = http.get("/info")
    assert response.status_code == 200
    assert response.json()["model"] == model
    assert target.api_key is None or target.api_key not in response.text


def test_models_lists_the_model(client: OpenAI, model: str) -> None:
    listed = client.models.list().data
    assert model in [entry.id for entry in listed]
    assert all(entry.object == "model" for entry in listed)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", FORBIDDEN_PATHS)
def test_forbidden_path_is_404(http: httpx2.Client, method: str, path: str) -> None:
    assert_openai_error(http.request(method, path, json={} if method == "POST" else None), 404)
