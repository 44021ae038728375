"""Structured output: JSON schemas and JSON mode."""

import json

import httpx2
import pytest
from openai import OpenAI

from smoke_tests.asking import ask, stream
from smoke_tests.expectations import assert_openai_error
from smoke_tests.schemas import ENOUGH_TOKENS, FORMAT, NESTED_FORMAT, QUESTION, assert_fits, assert_matches
from smoke_tests.wire import CHAT, Wire, choices_of, text_of

pytestmark = pytest.mark.usefixtures("text")


def test_a_json_schema_is_kept(client: OpenAI, model: str) -> None:
    """An answer with a JSON schema is JSON that matches the schema."""
    answer = ask(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, response_format=FORMAT)
    assert_fits(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"


def test_a_json_schema_is_kept_in_a_stream(client: OpenAI, model: str) -> None:
    """The concatenated chunks of a streamed answer match the JSON schema."""
    chunks = stream(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, response_format=FORMAT)
    assert_fits("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))


def test_a_nested_json_schema_is_kept(client: OpenAI, model: str) -> None:
    """A JSON schema may use $ref, arrays with a fixed length, and anyOf."""
    answer = ask(client, model, QUESTION, max_tokens=2 * ENOUGH_TOKENS, response_format=NESTED_FORMAT)
    content = answer.choices[0].message.content
    assert content, "the answer is empty"
    value = json.loads(content)
    assert set(value) == {"hotels", "parking"}
    assert len(value["hotels"]) == 2
    for hotel in value["hotels"]:
        assert_matches(hotel)
    assert value["parking"] in (True, False, None)


def test_a_wrong_schema_is_400(http: httpx2.Client, model: str) -> None:
    """An invalid JSON schema is rejected with 400 in OpenAI's error format."""
    wrong = {"type": "json_schema", "json_schema": {"name": "wrong", "schema": {"type": "nonsense"}}}
    body = {"model": model, "messages": [QUESTION], "max_tokens": 1, "response_format": wrong}
    assert_openai_error(http.post("/v1/chat/completions", json=body), 400)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_json_mode_answers_a_json_object(wire: Wire, streamed: bool) -> None:
    """With response_format json_object the answer is one JSON object, without a code fence or other text."""
    body = {"messages": [QUESTION], "max_tokens": 128, "response_format": {"type": "json_object"}}
    if streamed:
        events = wire.stream(CHAT, **body)
        content, reason = text_of(events), choices_of(events)[-1]["finish_reason"]
    else:
        choice = wire.answer(CHAT, **body)["choices"][0]
        content, reason = choice["message"]["content"], choice["finish_reason"]
    assert isinstance(content, str), f"the content is {type(content).__name__}, not a string"
    assert content.lstrip().startswith("{"), f"not a JSON object: {content[:80]!r}"
    # A random model may not close the object within the limit: then it is only a beginning.
    if reason == "stop":
        assert isinstance(json.loads(content), dict)
