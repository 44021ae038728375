"""Ask the endpoint whether its model supports a feature; a refusal explains why not."""

from typing import Any

import httpx2

from smoke_tests.expectations import assert_openai_error


def why_not(http: httpx2.Client, model: str, body: dict[str, Any]) -> str | None:
    """Return why the endpoint refuses a chat request of one token, or None if it answers.

    A model may lack a feature, but the refusal must be well-formed: anything except an answer or a 400 in OpenAI's
    error format raises AssertionError.
    """
    request = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1} | body
    response = http.post("/v1/chat/completions", json=request)
    if response.status_code == 200:
        return None
    assert_openai_error(response, 400)
    return str(response.json()["error"]["message"]).strip().splitlines()[0]


def why_no_text(http: httpx2.Client, model: str) -> str | None:
    """Return why an embedding model does not generate text; None for every other model.

    Only a model that answers `/v1/embeddings` may refuse chat, so that a broken chat is never taken for an embedding model.
    """
    request = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    response = http.post("/v1/chat/completions", json=request)
    if response.status_code not in (400, 404, 501):
        return None
    if http.post("/v1/embeddings", json={"model": model, "input": "Hi"}).status_code != httpx2.codes.OK:
        return None
    assert_openai_error(response, response.status_code)
    return str(response.json()["error"]["message"]).strip().splitlines()[0]
