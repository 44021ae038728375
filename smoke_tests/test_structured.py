"""Answers of a given form: JSON schemas, and calls of tools where the model makes them."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from smoke_tests.abilities import why_not
from smoke_tests.asking import ask, stream, user
from smoke_tests.expectations import assert_openai_error

CITIES, STARS = ["Paris", "Rome", "Tokyo"], {"minimum": 1, "maximum": 5}
# Nothing in it may be of any length: a model that rambles must come to an end.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": CITIES},
        "stars": {"type": "integer", **STARS},
        "open": {"type": "boolean"},
    },
    "required": ["city", "stars", "open"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "hotel", "schema": SCHEMA, "strict": True}}
QUESTION = user("Recommend a hotel.")
# White space between tokens is free, and a random model likes it.
ENOUGH_TOKENS = 600


def tool(name: str) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, "description": "Looks it up.", "strict": True, "parameters": SCHEMA},
    }


TOOLS = [tool("find_hotel"), tool("find_restaurant")]
NAMED = {"type": "function", "function": {"name": "find_restaurant"}}


def assert_fits(text: str | None) -> None:
    assert text, "the answer is empty"
    try:
        value = json.loads(text)
    except ValueError:
        raise AssertionError(f"the answer is no JSON: {text[:200]!r}") from None
    assert isinstance(value, dict), f"the answer is no object: {text[:200]!r}"
    assert set(value) == {"city", "stars", "open"}, f"the answer has the fields {sorted(value)}"
    assert value["city"] in CITIES
    assert type(value["stars"]) is int
    assert STARS["minimum"] <= value["stars"] <= STARS["maximum"]
    assert type(value["open"]) is bool


def test_a_json_schema_is_kept(client: OpenAI, model: str) -> None:
    """An answer under a JSON schema is JSON of that schema."""
    answer = ask(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, response_format=FORMAT)
    assert_fits(answer.choices[0].message.content)


def test_a_json_schema_is_kept_in_a_stream(client: OpenAI, model: str) -> None:
    """A streamed answer under a JSON schema is the same once it is put together."""
    chunks = stream(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, response_format=FORMAT)
    assert_fits("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))


def test_a_wrong_schema_is_400(http: httpx2.Client, model: str) -> None:
    """A JSON schema that is none is a 400 in OpenAI's form."""
    wrong = {"type": "json_schema", "json_schema": {"name": "wrong", "schema": {"type": "nonsense"}}}
    body = {"model": model, "messages": [QUESTION], "max_tokens": 1, "response_format": wrong}
    assert_openai_error(http.post("/v1/chat/completions", json=body), 400)


@pytest.fixture(scope="session")
def _why_no_tools(http: httpx2.Client, model: str) -> str | None:
    return why_not(http, model, {"tools": TOOLS, "tool_choice": "auto"})


@pytest.fixture
def tools(_why_no_tools: str | None, needs: Callable[[str, str | None], None]) -> None:
    """The model calls tools."""
    needs("tools", _why_no_tools)


@pytest.mark.usefixtures("tools")
def test_a_named_tool_is_called(client: OpenAI, model: str) -> None:
    """A tool that is named is called, with arguments of its schema."""
    answer = ask(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, tools=TOOLS, tool_choice=NAMED)
    calls = answer.choices[0].message.tool_calls
    assert calls, "no tool is called"
    assert [call.function.name for call in calls if call.type == "function"] == ["find_restaurant"]
    assert calls[0].id
    assert calls[0].type == "function"
    assert_fits(calls[0].function.arguments)
    assert answer.choices[0].finish_reason in ("tool_calls", "stop")


@pytest.mark.usefixtures("tools")
def test_a_tool_is_called_where_one_must_be(client: OpenAI, model: str) -> None:
    """With tool_choice "required" one of the tools is called, with arguments of its schema."""
    answer = ask(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, tools=TOOLS[:1], tool_choice="required")
    calls = answer.choices[0].message.tool_calls
    assert calls, "no tool is called"
    assert calls[0].type == "function"
    assert calls[0].function.name == "find_hotel"
    assert_fits(calls[0].function.arguments)


@pytest.mark.usefixtures("tools")
def test_a_tool_call_is_streamed(client: OpenAI, model: str) -> None:
    """A streamed call of a tool is whole once its pieces are put together."""
    chunks = stream(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, tools=TOOLS, tool_choice=NAMED)
    pieces = [
        call.function
        for chunk in chunks
        for choice in chunk.choices
        for call in choice.delta.tool_calls or ()
        if call.function is not None
    ]
    assert "".join(piece.name or "" for piece in pieces) == "find_restaurant"
    assert_fits("".join(piece.arguments or "" for piece in pieces))


@pytest.mark.usefixtures("tools")
def test_a_tools_result_is_read(client: OpenAI, model: str) -> None:
    """A conversation with a call and its result is answered, and the result is read."""

    def told(result: str) -> int:
        call = {"id": "call_1", "type": "function", "function": {"name": "find_hotel", "arguments": "{}"}}
        answer = ask(
            client, model, QUESTION, {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": result}, tools=TOOLS,
        )  # fmt: skip
        message = answer.choices[0].message
        assert message.content or message.tool_calls or getattr(message, "reasoning", None)
        assert answer.usage is not None
        return answer.usage.prompt_tokens

    assert told("The Ritz, five stars, open all the year round") > told("None")
