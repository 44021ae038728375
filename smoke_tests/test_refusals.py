"""Invalid requests are rejected with a clear error, and the endpoint keeps serving."""

from typing import Any

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from smoke_tests.asking import ask, user
from smoke_tests.expectations import assert_openai_error

# Longer than the context of any current model, if the endpoint does not report its context length.
LARGEST_CONTEXT_TOKENS = 1_100_000
BAD_PARAMETERS: list[dict[str, Any]] = [
    {"temperature": -1}, {"max_tokens": -5}, {"messages": "not a list"}, {"top_p": 7}, {"n": 0}, {"stop": 5},
    {"seed": "seven"}, {"presence_penalty": 9}, {"logit_bias": {"a word": 1}}, {"response_format": {"type": "nonsense"}},
    {"stream": "yes"}, {"frequency_penalty": -9}, {"max_completion_tokens": 0}, {"top_logprobs": 3},
    {"stream_options": {"include_usage": True}},
]  # fmt: skip
OTHER_APIS = {"/v1/completions": {"prompt": "Hi"}, "/v1/responses": {"input": "Hi"}}
MALFORMED = {
    "truncated": b'{"model": ', "empty": b"", "a_list": b"[]", "a_number": b"1", "not_utf_8": b'{"model": "\xff"}',
}  # fmt: skip


@pytest.mark.parametrize("wrong", BAD_PARAMETERS, ids=lambda wrong: next(iter(wrong)))
@pytest.mark.usefixtures("text")
def test_bad_parameter_is_400(http: httpx2.Client, model: str, wrong: dict[str, Any]) -> None:
    """A parameter that is out of range or has the wrong type is rejected with 400 in OpenAI's error format."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1} | wrong
    assert_openai_error(http.post("/v1/chat/completions", json=body), 400)


@pytest.mark.usefixtures("text")
def test_missing_messages_is_400(http: httpx2.Client, model: str) -> None:
    """A request without messages is rejected with 400 in OpenAI's error format."""
    assert_openai_error(http.post("/v1/chat/completions", json={"model": model}), 400)


@pytest.mark.parametrize("body", MALFORMED)
def test_malformed_json_is_400(http: httpx2.Client, body: str) -> None:
    """A body that is not a JSON object is rejected with 400 in OpenAI's error format."""
    response = http.post("/v1/chat/completions", content=MALFORMED[body], headers={"Content-Type": "application/json"})
    assert_openai_error(response, 400)


@pytest.mark.usefixtures("text")
def test_no_messages_are_400(http: httpx2.Client, model: str) -> None:
    """An empty list of messages is rejected with 400 in OpenAI's error format."""
    assert_openai_error(http.post("/v1/chat/completions", json={"model": model, "messages": []}), 400)


@pytest.mark.parametrize("path", OTHER_APIS)
@pytest.mark.usefixtures("text")
def test_other_apis_refuse_in_the_same_way(http: httpx2.Client, model: str, path: str) -> None:
    """Text completions and responses reject bad parameters with 400 and unknown models with 404, as chat does."""
    body = {"model": model} | OTHER_APIS[path]
    assert_openai_error(http.post(path, json=body | {"temperature": -1}), 400)
    assert_openai_error(http.post(path, json=body | {"temperature": "hot"}), 400)
    assert_openai_error(http.post(path, json=body | {"temperature": -1, "stream": True}), 400)
    assert_openai_error(http.post(path, json=body | {"model": "no-such/model"}), 404)


@pytest.mark.usefixtures("text")
def test_a_refused_stream_is_no_stream(http: httpx2.Client, model: str) -> None:
    """An invalid request for a stream is rejected by its status, not by an event within a stream with status 200."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "temperature": -1, "stream": True}
    response = http.post("/v1/chat/completions", json=body)
    assert_openai_error(response, 400)
    assert response.headers["content-type"].startswith("application/json")


def test_wrong_model_is_404(client: OpenAI) -> None:
    """A request for a model that is not served returns 404."""
    with pytest.raises(NotFoundError) as refused:
        ask(client, "no-such/model", user("Hi"))
    assert refused.value.status_code == 404


def test_wrong_model_is_404_in_openais_format(http: httpx2.Client) -> None:
    """A 404 for an unknown model is in OpenAI's error format, and its message names the model."""
    body = {"model": "no-such/model", "messages": [user("Hi")], "max_tokens": 1}
    for stream in (False, True):
        response = http.post("/v1/chat/completions", json=body | {"stream": stream})
        assert_openai_error(response, 404)
        assert "no-such/model" in response.json()["error"]["message"], "the message does not name the model"


@pytest.mark.usefixtures("text")
def test_context_overflow_is_400(client: OpenAI, model: str, context_tokens: int | None) -> None:
    """A prompt longer than the context is rejected with 400, not truncated, and the endpoint keeps serving."""
    with pytest.raises(BadRequestError) as refused:
        ask(client, model, user("a " * (context_tokens or LARGEST_CONTEXT_TOKENS)), max_tokens=1)
    assert refused.value.status_code == 400
    # The engine must survive it and serve other requests.
    assert ask(client, model, user("Hi"), max_tokens=1).choices


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/v1/score"])
def test_what_the_model_is_not_for_is_refused(http: httpx2.Client, model: str, path: str) -> None:
    """Embeddings, reranking and scoring are rejected by a chat model in OpenAI's error format, not with a server error."""
    fields = {"input": "Hi", "query": "Hi", "documents": ["Hi"], "text_1": "Hi", "text_2": "Hi"}
    response = http.post(path, json={"model": model} | fields)
    if response.status_code == 200:
        pytest.skip(f"the model supports {path}")
    assert_openai_error(response, response.status_code if response.status_code in (400, 404, 501) else 404)
