"""Chat and text completions: right answers to right requests, clear refusals of wrong ones."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from smoke_tests.expectations import answer_text, assert_openai_error

AT_ONCE = 8
# More words than any model of today has context, where the endpoint does not say how much it has.
LARGEST_CONTEXT_TOKENS = 1_100_000


def ask(client: OpenAI, model: str, *messages: ChatCompletionMessageParam, max_tokens: int = 16) -> ChatCompletion:
    return client.chat.completions.create(model=model, messages=messages, max_tokens=max_tokens, temperature=0)


def assert_usage_adds_up(usage: Any) -> None:
    assert usage is not None, "no usage"
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_chat_answers(client: OpenAI, model: str) -> None:
    answer = ask(client, model, {"role": "user", "content": "Say hello."})
    assert answer.object == "chat.completion"
    assert answer.model == model
    assert answer.id
    assert len(answer.choices) == 1
    assert answer.choices[0].message.role == "assistant"
    assert answer_text(answer.choices[0].message)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert_usage_adds_up(answer.usage)


def test_chat_reads_the_whole_conversation(client: OpenAI, model: str) -> None:
    question: ChatCompletionMessageParam = {"role": "user", "content": "What is my name?"}
    alone = ask(client, model, question)
    conversation = ask(
        client, model,
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "My name is Ada and I live in London."},
        {"role": "assistant", "content": "Nice to meet you, Ada."},
        question,
    )  # fmt: skip
    assert answer_text(conversation.choices[0].message)
    assert alone.usage is not None
    assert conversation.usage is not None
    # The tokens read are the one thing that shows it whatever the model is worth.
    assert conversation.usage.prompt_tokens >= alone.usage.prompt_tokens + 15


def test_completions_answers(client: OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=16, temperature=0)
    assert answer.object == "text_completion"
    assert answer.model == model
    assert answer.choices[0].text
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert_usage_adds_up(answer.usage)


@pytest.mark.parametrize("limit", [1, 7])
def test_max_tokens_is_respected(client: OpenAI, model: str, limit: int) -> None:
    answer = ask(client, model, {"role": "user", "content": "Count from 1 to 100."}, max_tokens=limit)
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= limit
    # Less than the limit only where the model had nothing more to say.
    if answer.usage.completion_tokens < limit:
        assert answer.choices[0].finish_reason == "stop"
    # A token is at most a long word: a text far beyond the limit belies the usage.
    assert len(answer_text(answer.choices[0].message)) <= 32 * limit


def test_eight_at_once(client: OpenAI, model: str) -> None:
    def ask_with_words(count: int) -> ChatCompletion:
        return ask(client, model, {"role": "user", "content": "word " * count})

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(ask_with_words, [20 * (number + 1) for number in range(AT_ONCE)]))
    prompt_tokens = [answer.usage.prompt_tokens for answer in answers if answer.usage is not None]
    assert len(prompt_tokens) == AT_ONCE
    # Each prompt is longer than the one before: an answer handed to the wrong caller shows.
    assert prompt_tokens == sorted(set(prompt_tokens)), f"answers went to the wrong requests: {prompt_tokens}"
    assert len({answer.id for answer in answers}) == AT_ONCE, "two answers share an id"


def test_request_id_is_echoed(client: OpenAI, model: str) -> None:
    request_id = f"smoke-{uuid.uuid4().hex}"
    response = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=1,
        extra_headers={"X-Request-Id": request_id},
    )
    assert response.headers.get("x-request-id") == request_id


def test_request_id_is_made_where_none_is_sent(http: httpx2.Client) -> None:
    made = [http.get("/v1/models").headers.get("x-request-id") for _ in range(2)]
    assert all(made), "no X-Request-Id in the answer"
    assert made[0] != made[1], f"the same X-Request-Id twice: {made[0]}"


def test_wrong_model_is_404(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as refused:
        ask(client, "no-such/model", {"role": "user", "content": "Hi"})
    assert refused.value.status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"max_tokens": -5}, {"messages": "not a list"}, {"top_p": 7}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_bad_parameter_is_400(http: httpx2.Client, model: str, wrong: dict[str, Any]) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1} | wrong
    assert_openai_error(http.post("/v1/chat/completions", json=body), 400)


def test_malformed_json_is_400(http: httpx2.Client) -> None:
    response = http.post("/v1/chat/completions", content=b'{"model": ', headers={"Content-Type": "application/json"})
    assert_openai_error(response, 400)


def test_context_overflow_is_400(client: OpenAI, model: str) -> None:
    entry = next((listed for listed in client.models.list().data if listed.id == model), None)
    context_tokens = getattr(entry, "max_model_len", None) or LARGEST_CONTEXT_TOKENS
    with pytest.raises(BadRequestError) as refused:
        ask(client, model, {"role": "user", "content": "a " * context_tokens}, max_tokens=1)
    assert refused.value.status_code == 400
    # Whoever sent too much is not the only one served: the endpoint must live on.
    assert ask(client, model, {"role": "user", "content": "Hi"}, max_tokens=1).choices
