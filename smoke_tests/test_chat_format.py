"""The format of chat answers that SDKs and frameworks rely on, and the fields that a request may have."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from smoke_tests.abilities import why_not
from smoke_tests.asking import user
from smoke_tests.expectations import answer_text_of, assert_usage
from smoke_tests.wire import CHAT, FOREIGN_TEXT, Document, Wire, assert_is, text_of

pytestmark = pytest.mark.usefixtures("text")

QUESTION = user("Tell me a story.")
# Longer than the default limits of servers that truncate an answer without max_tokens.
UNLIMITED_TOKENS = 120
# Sent by SDKs and frameworks; they do not change the answer.
COMMON_FIELDS: dict[str, Any] = {
    "user": "somebody", "store": False, "metadata": {"team": "a"}, "service_tier": "auto", "prompt_cache_key": "a",
    "safety_identifier": "b", "parallel_tool_calls": True, "frequency_penalty": 0, "presence_penalty": 0, "top_p": 1,
    "n": 1, "logit_bias": {}, "response_format": {"type": "text"}, "stream": False, "logprobs": False, "seed": 7,
}  # fmt: skip
NULL_FIELDS = (
    "temperature", "top_p", "n", "stop", "stream", "stream_options", "seed", "tools", "tool_choice", "logit_bias", "user",
    "logprobs", "top_logprobs", "response_format", "presence_penalty", "frequency_penalty", "max_completion_tokens",
)  # fmt: skip


def one(wire: Wire, **body: Any) -> Document:
    """Return an answer of at most eight tokens."""
    return wire.answer(CHAT, **({"messages": [QUESTION], "max_tokens": 8} | body))


def test_an_answer_has_openais_format(wire: Wire) -> None:
    """An answer has every required field of OpenAI's format, with the right JSON types and known values."""
    assert_format(one(wire), wire.model)


def assert_format(answer: Document, model: str) -> None:
    """Assert the format of a chat answer without tool calls."""
    assert_is(ChatCompletion, answer)
    assert answer["id"], "the id is empty"
    assert answer["model"] == model, f"the model is {answer['model']!r}"
    assert 1_600_000_000 < answer["created"] < 100_000_000_000, f"created is not in seconds: {answer['created']}"
    assert answer["choices"], "the answer has no choices"
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(answer["choices"])))
    for choice in answer["choices"]:
        message = choice["message"]
        assert "content" in message, "the message has no content field"
        # A sampled answer may end at once.
        assert answer_text_of(message) or choice["finish_reason"] == "stop", "the message is empty"
        for field in ("refusal", "tool_calls", "function_call", "audio"):
            assert not message.get(field), f"the message has {field}: {message[field]}"
        assert "delta" not in choice, "the choice has a delta"
        assert choice["finish_reason"] in ("stop", "length"), f"finish_reason is {choice['finish_reason']!r}"
    assert_usage(answer.get("usage"))


def test_each_answer_has_its_own_id(wire: Wire) -> None:
    """Two answers to the same request have different ids."""
    assert one(wire)["id"] != one(wire)["id"]


def test_nothing_is_returned_that_was_not_requested(wire: Wire) -> None:
    """An answer has no log probabilities and no tool calls unless they were requested."""
    choice = one(wire)["choices"][0]
    assert not choice.get("logprobs"), "log probabilities were not requested"
    assert not choice["message"].get("tool_calls"), "no tools were given"


def test_usage_counts_the_tokens(wire: Wire) -> None:
    """The usage of a repeated request is the same, and more text has more prompt tokens."""
    short, again = one(wire)["usage"], one(wire)["usage"]
    assert short["prompt_tokens"] == again["prompt_tokens"]
    words = 50
    longer = one(wire, messages=[user("Tell me a story. " + "word " * words)])["usage"]
    more = longer["prompt_tokens"] - short["prompt_tokens"]
    assert words <= more <= 6 * words, f"{words} more words are {more} more tokens"


def test_finish_reason_tells_a_truncated_answer(wire: Wire) -> None:
    """An answer that max_tokens truncates has finish_reason "length" and exactly max_tokens tokens."""
    truncated = 0
    for limit in (3, 5, 7):
        answer = one(wire, max_tokens=limit)
        tokens, reason = answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]
        if reason == "length":
            assert tokens == limit, f"the answer has {tokens} tokens, and max_tokens is {limit}"
            truncated += 1
        else:
            assert tokens <= limit
            # An answer may end by itself at the limit, but not at two of three limits.
            truncated += tokens < limit
    assert truncated >= 2, "answers with max_tokens tokens do not have finish_reason length"


def test_each_of_n_answers_has_openais_format(wire: Wire) -> None:
    """Each of n answers has its index, role, text and finish_reason, and the usage counts the tokens of all."""
    answer = one(wire, n=3, temperature=1)
    assert_format(answer, wire.model)
    assert len(answer["choices"]) == 3
    tokens = answer["usage"]["completion_tokens"]
    if all(choice["finish_reason"] == "length" for choice in answer["choices"]):
        assert tokens == 3 * 8, f"three answers of 8 tokens are counted as {tokens}"


def test_an_answer_is_not_truncated_without_max_tokens(wire: Wire) -> None:
    """Without max_tokens, an answer goes on until the model ends it or the context is full."""
    body = {"model": wire.model, "messages": [QUESTION], "temperature": 0, "stream": True, "ignore_eos": True}
    chunks = 0
    with wire.http.stream("POST", CHAT, json=body) as response:
        if response.status_code == 400:  # ignore_eos is vLLM's
            response.read()
            answer = wire.answer(CHAT, messages=[QUESTION])
            assert answer["choices"][0]["finish_reason"] == "stop" or answer["usage"]["completion_tokens"] > 120
            return
        assert response.status_code == 200, f"HTTP {response.status_code}"
        for line in response.iter_lines():
            assert '"finish_reason":"length"' not in line.replace(": ", ":"), f"truncated after {chunks} chunks"
            chunks += line.startswith("data: {")
            if chunks > UNLIMITED_TOKENS or line == "data: [DONE]":
                break
    assert chunks > 1, "the stream is empty"


def test_null_fields_mean_the_default(wire: Wire) -> None:
    """A field that is null is the same as a field that is absent."""
    given = dict.fromkeys(NULL_FIELDS)
    assert_format(wire.answer(CHAT, messages=[QUESTION], max_tokens=8, **given), wire.model)


def test_common_fields_are_accepted(wire: Wire) -> None:
    """Optional fields that SDKs and frameworks send are accepted."""
    assert_format(one(wire, **COMMON_FIELDS), wire.model)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_are_read(wire: Wire, role: str) -> None:
    """The system and developer roles are accepted, and the model reads their messages."""
    instructions = {"role": role, "content": "You are the captain of a ship and answer in verse."}
    if refused := why_not(wire.http, wire.model, {"messages": [instructions | {"role": "system"}, QUESTION]}):
        pytest.skip(f"the model's chat template has no system role: {refused}")
    alone, instructed = one(wire), one(wire, messages=[instructions, QUESTION])
    assert_format(instructed, wire.model)
    more = instructed["usage"]["prompt_tokens"] - alone["usage"]["prompt_tokens"]
    assert more >= 8, f"the {role} message adds {more} prompt tokens"


def test_messages_may_have_names(wire: Wire) -> None:
    """A message with the optional name of its author is accepted."""
    assert_format(one(wire, messages=[QUESTION | {"name": "ada"}]), wire.model)


def test_an_answer_can_be_sent_back(wire: Wire) -> None:
    """The message of an answer is accepted unchanged as a turn of the next request, with all its fields."""
    first = one(wire)
    message = first["choices"][0]["message"]
    second = one(wire, messages=[QUESTION, message, QUESTION])
    assert_format(second, wire.model)
    longer = one(wire, messages=[QUESTION, message | {"content": 5 * answer_text_of(message)}, QUESTION])
    assert longer["usage"]["prompt_tokens"] > second["usage"]["prompt_tokens"], "the earlier answer is not read"


def test_foreign_text_is_generated(wire: Wire) -> None:
    """Generated text in any script arrives whole, with and without streaming, although it is several tokens a character."""
    schema = {
        "type": "object", "properties": {"text": {"type": "string", "enum": [FOREIGN_TEXT]}}, "required": ["text"],
        "additionalProperties": False,
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "text", "schema": schema, "strict": True}}
    body = {"messages": [QUESTION], "max_tokens": 300, "response_format": form}
    whole = wire.answer(CHAT, **body)["choices"][0]["message"]["content"]
    assert json.loads(whole) == {"text": FOREIGN_TEXT}, f"the answer is {whole!r}"
    streamed = text_of(wire.stream(CHAT, **body))
    assert json.loads(streamed) == {"text": FOREIGN_TEXT}, f"the streamed answer is {streamed!r}"
