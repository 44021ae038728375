"""Structured output: JSON schemas and tool calls."""

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
# Every value has a bounded length, so that even a random model finishes.
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
# JSON allows white space between tokens, and a random model produces much of it.
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
        raise AssertionError(f"the answer is not JSON: {text[:200]!r}") from None
    assert isinstance(value, dict), f"the answer is not a JSON object: {text[:200]!r}"
    assert set(value) == {"city", "stars", "open"}, f"the answer has the fields {sorted(value)}"
    assert value["city"] in CITIES
    assert type(value["stars"]) is int
    assert STARS["minimum"] <= value["stars"] <= STARS["maximum"]
    assert type(value["open"]) is bool


def test_a_json_schema_is_kept(client: OpenAI, model: str) -> None:
    """An answer with a JSON schema is JSON that matches the schema."""
    answer = ask(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, response_format=FORMAT)
    assert_fits(answer.choices[0].message.content)


def test_a_json_schema_is_kept_in_a_stream(client: OpenAI, model: str) -> None:
    """The concatenated chunks of a streamed answer match the JSON schema."""
    chunks = stream(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, response_format=FORMAT)
    assert_fits("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))


def test_a_wrong_schema_is_400(http: httpx2.Client, model: str) -> None:
    """An invalid JSON schema is rejected with 400 in OpenAI's error format."""
    wrong = {"type": "json_schema", "json_schema": {"name": "wrong", "schema": {"type": "nonsense"}}}
    body = {"model": model, "messages": [QUESTION], "max_tokens": 1, "response_format": wrong}
    assert_openai_error(http.post("/v1/chat/completions", json=body), 400)


@pytest.fixture(scope="session")
def _why_no_tools(http: httpx2.Client, model: str) -> str | None:
    return why_not(http, model, {"tools": TOOLS, "tool_choice": "auto"})


@pytest.fixture
def tools(_why_no_tools: str | None, needs: Callable[[str, str | None], None]) -> None:
    """The model supports tool calls."""
    needs("tools", _why_no_tools)


@pytest.mark.usefixtures("tools")
def test_a_named_tool_is_called(client: OpenAI, model: str) -> None:
    """A tool named in tool_choice is called with arguments that match its schema."""
    answer = ask(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, tools=TOOLS, tool_choice=NAMED)
    calls = answer.choices[0].message.tool_calls
    assert calls, "no tool was called"
    assert [call.function.name for call in calls if call.type == "function"] == ["find_restaurant"]
    assert calls[0].id
    assert calls[0].type == "function"
    assert_fits(calls[0].function.arguments)
    assert answer.choices[0].finish_reason in ("tool_calls", "stop")


@pytest.mark.usefixtures("tools")
def test_a_tool_is_called_where_one_must_be(client: OpenAI, model: str) -> None:
    """With tool_choice "required", a tool is called with arguments that match its schema."""
    answer = ask(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, tools=TOOLS[:1], tool_choice="required")
    calls = answer.choices[0].message.tool_calls
    assert calls, "no tool was called"
    assert calls[0].type == "function"
    assert calls[0].function.name == "find_hotel"
    assert_fits(calls[0].function.arguments)


@pytest.mark.usefixtures("tools")
def test_a_tool_call_is_streamed(client: OpenAI, model: str) -> None:
    """The concatenated chunks of a streamed tool call are a complete call."""
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
    """The model reads the result of a tool call."""

    def prompt_tokens(result: str) -> int:
        call = {"id": "call_1", "type": "function", "function": {"name": "find_hotel", "arguments": "{}"}}
        answer = ask(
            client, model, QUESTION, {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": result}, tools=TOOLS,
        )  # fmt: skip
        message = answer.choices[0].message
        assert message.content or message.tool_calls or getattr(message, "reasoning", None)
        assert answer.usage is not None
        return answer.usage.prompt_tokens

    assert prompt_tokens("The Ritz, five stars, open all the year round") > prompt_tokens("None")
