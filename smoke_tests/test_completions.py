"""Chat and text completions: valid requests are answered correctly."""

import uuid

import httpx2
import pytest
from openai import OpenAI
from openai.types import Completion

from smoke_tests.asking import ask, assert_usage_adds_up, user
from smoke_tests.expectations import answer_text, assert_usage
from smoke_tests.wire import COMPLETIONS, FOREIGN_TEXT, Wire, assert_is

pytestmark = pytest.mark.usefixtures("text")


def test_chat_answers(client: OpenAI, model: str) -> None:
    """A question is answered in OpenAI's format, by the requested model, with usage."""
    answer = ask(client, model, user("Say hello."))
    assert answer.object == "chat.completion"
    assert answer.model == model
    assert answer.id
    assert len(answer.choices) == 1
    assert answer.choices[0].message.role == "assistant"
    assert answer_text(answer.choices[0].message)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert_usage_adds_up(answer.usage)


def test_chat_reads_the_whole_conversation(client: OpenAI, model: str) -> None:
    """The model reads every turn of a conversation, not only the last."""
    question = user("What is my name?")
    alone = ask(client, model, question)
    conversation = ask(
        client, model,
        {"role": "system", "content": "You are brief."},
        user("My name is Ada and I live in London."),
        {"role": "assistant", "content": "Nice to meet you, Ada."},
        question,
    )  # fmt: skip
    assert answer_text(conversation.choices[0].message)
    assert alone.usage is not None
    assert conversation.usage is not None
    # The prompt tokens show it, however good the model is.
    assert conversation.usage.prompt_tokens >= alone.usage.prompt_tokens + 15


def test_chat_reads_content_in_parts(client: OpenAI, model: str) -> None:
    """Content may be a list of text parts, and all of them are read."""
    first, second = "The parrot is called Ada.", "What is it called?"
    parts = [{"type": "text", "text": first}, {"type": "text", "text": second}]
    whole, alone = ask(client, model, {"role": "user", "content": parts}), ask(client, model, user(second))
    assert answer_text(whole.choices[0].message)
    assert whole.usage is not None
    assert alone.usage is not None
    assert whole.usage.prompt_tokens >= alone.usage.prompt_tokens + 4


def test_completions_answers(client: OpenAI, model: str) -> None:
    """A prompt is continued in OpenAI's text completion format, with usage."""
    answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=16, temperature=0)
    assert answer.object == "text_completion"
    assert answer.model == model
    assert answer.choices[0].text
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert_usage_adds_up(answer.usage)


def test_completions_answers_a_list_of_prompts(client: OpenAI, model: str) -> None:
    """Each prompt in a list is answered, and `index` names the prompt."""
    answer = client.completions.create(model=model, prompt=["Once upon a time", "The future of"], max_tokens=4)
    assert sorted(choice.index for choice in answer.choices) == [0, 1]
    assert all(choice.text for choice in answer.choices)


def test_text_comes_back_as_it_went(client: OpenAI, model: str) -> None:
    """Text in any script comes back unchanged."""
    answer = client.completions.create(model=model, prompt=FOREIGN_TEXT, max_tokens=1, echo=True, temperature=0)
    assert FOREIGN_TEXT in answer.choices[0].text


@pytest.mark.parametrize("limit", [1, 7])
def test_max_tokens_is_respected(client: OpenAI, model: str, limit: int) -> None:
    """An answer is never longer than max_tokens, and its usage reports the true length."""
    answer = ask(client, model, user("Count from 1 to 100."), max_tokens=limit)
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= limit
    # An answer below the limit ended by itself.
    if answer.usage.completion_tokens < limit:
        assert answer.choices[0].finish_reason == "stop"
    # A token is at most a long word: a text far beyond the limit contradicts the usage.
    assert len(answer_text(answer.choices[0].message)) <= 32 * limit


def test_request_id_is_echoed(client: OpenAI, model: str) -> None:
    """The X-Request-Id of a request is returned, so that its log line can be found."""
    request_id = f"smoke-{uuid.uuid4().hex}"
    response = client.chat.completions.with_raw_response.create(
        model=model, messages=[user("Hi")], max_tokens=1, extra_headers={"X-Request-Id": request_id}
    )
    assert response.headers.get("x-request-id") == request_id


def test_request_id_is_made_where_none_is_sent(http: httpx2.Client) -> None:
    """A response to a request without an X-Request-Id has a unique one."""
    made = [http.get("/v1/models").headers.get("x-request-id") for _ in range(2)]
    assert all(made), "no X-Request-Id in the answer"
    assert made[0] != made[1], f"the same X-Request-Id twice: {made[0]}"


def test_a_text_completion_has_openais_format(wire: Wire) -> None:
    """A text completion has every required field of OpenAI's format, and finish_reason "length" if it is truncated."""
    answer = wire.answer(COMPLETIONS, prompt="Once upon a time", max_tokens=8)
    assert_is(Completion, answer)
    assert answer["id"], "the id is empty"
    assert answer["model"] == wire.model
    assert 1_600_000_000 < answer["created"] < 100_000_000_000, f"created is not in seconds: {answer['created']}"
    assert [choice["index"] for choice in answer["choices"]] == [0]
    assert answer["choices"][0]["text"], "the text is empty"
    assert_usage(answer.get("usage"))
    ended = {"length": answer["usage"]["completion_tokens"] == 8, "stop": True}
    assert ended.get(answer["choices"][0]["finish_reason"]), (
        f"finish_reason is {answer['choices'][0]['finish_reason']!r}"
    )
    for limit in (3, 5):
        shorter = wire.answer(COMPLETIONS, prompt="Once upon a time", max_tokens=limit)
        if shorter["choices"][0]["finish_reason"] == "length":
            break
        assert shorter["usage"]["completion_tokens"] < limit, "a truncated answer has finish_reason stop"


def test_prompts_are_answered_in_order(wire: Wire) -> None:
    """With a list of prompts and n, answer i belongs to prompt i // n, and the usage counts all of them."""
    prompts = ["Once upon a time", "The future of"]
    answer = wire.answer(COMPLETIONS, prompt=prompts, max_tokens=2, echo=True, n=2, temperature=1)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    for choice in answer["choices"]:
        prompt = prompts[choice["index"] // 2]
        assert choice["text"].startswith(prompt), f"answer {choice['index']} begins with {choice['text'][:40]!r}"
    alone = [wire.answer(COMPLETIONS, prompt=prompt, max_tokens=2)["usage"]["prompt_tokens"] for prompt in prompts]
    assert answer["usage"]["prompt_tokens"] == sum(alone), "the usage does not count every prompt once"


def test_a_prompt_may_be_tokens(wire: Wire) -> None:
    """A prompt may be a list of token ids, which are the prompt tokens of the usage."""
    answer = wire.answer(COMPLETIONS, prompt=[11, 12, 13, 14, 15], max_tokens=1)
    assert answer["usage"]["prompt_tokens"] == 5, f"5 tokens are counted as {answer['usage']['prompt_tokens']}"
    assert len(answer["choices"]) == 1, f"one prompt has {len(answer['choices'])} answers"
