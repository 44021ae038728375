"""Tool calls: the right tool, arguments that match its schema, and chunks that clients can assemble."""

from typing import Any

import httpx2
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from smoke_tests.asking import ask, stream, user
from smoke_tests.expectations import assert_openai_error
from smoke_tests.schemas import ENOUGH_TOKENS, NAMED, QUESTION, TOOLS, assert_fits
from smoke_tests.wire import CHAT, Document, Wire, assert_is, choices_of

REQUIRED: dict[str, Any] = {"tools": TOOLS[:1], "tool_choice": "required"}
BY_NAME: dict[str, Any] = {"tools": TOOLS, "tool_choice": NAMED}
# OpenAI and vLLM end a call of a named tool with "stop", other servers with "tool_calls".
REASONS = {"required": ("tool_calls",), "named": ("tool_calls", "stop")}
BOTH = pytest.mark.parametrize(
    ("choice", "request_fields"), [("required", REQUIRED), ("named", BY_NAME)], ids=["required", "named"]
)
WRONG_TOOLS: dict[str, dict[str, Any]] = {
    "another_name": {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "no_such_tool"}}},
    "no_tools": {"tool_choice": "required"},
    "no_such_choice": {"tools": TOOLS, "tool_choice": "sometimes"},
    "no_function": {"tools": [{"type": "function"}]},
}


pytestmark = pytest.mark.usefixtures("text", "tools")


def test_a_named_tool_is_called(client: OpenAI, model: str) -> None:
    """A tool named in tool_choice is called with arguments that match its schema."""
    answer = ask(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, tools=TOOLS, tool_choice=NAMED)
    calls = answer.choices[0].message.tool_calls
    assert calls, "no tool was called"
    assert [call.function.name for call in calls if call.type == "function"] == ["find_restaurant"]
    assert calls[0].type == "function"
    assert_fits(calls[0].function.arguments)


def test_a_tool_is_called_where_one_must_be(client: OpenAI, model: str) -> None:
    """With tool_choice "required", a tool is called with arguments that match its schema."""
    answer = ask(client, model, QUESTION, max_tokens=ENOUGH_TOKENS, tools=TOOLS[:1], tool_choice="required")
    calls = answer.choices[0].message.tool_calls
    assert calls, "no tool was called"
    assert calls[0].type == "function"
    assert calls[0].function.name == "find_hotel"
    assert_fits(calls[0].function.arguments)


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


@BOTH
def test_a_tool_call_has_openais_format(wire: Wire, choice: str, request_fields: dict[str, Any]) -> None:
    """A tool call has a unique id, the type function, and its arguments as a JSON string; the content is text or null."""
    ids = []
    for _ in range(2):
        answer = wire.answer(CHAT, messages=[QUESTION], max_tokens=ENOUGH_TOKENS, **request_fields)
        assert_is(ChatCompletion, answer)
        message = answer["choices"][0]["message"]
        assert not message.get("content"), f"the message of a tool call has content: {message['content'][:80]!r}"
        assert message.get("tool_calls"), "no tool was called"
        for call in message["tool_calls"]:
            assert call["id"], "a tool call has an empty id"
            assert "index" not in call or call["index"] is not None
            assert_fits(call["function"]["arguments"])
            ids.append(call["id"])
    assert len(set(ids)) == len(ids), f"two tool calls share an id: {ids}"


@BOTH
def test_a_tool_call_ends_with_its_finish_reason(wire: Wire, choice: str, request_fields: dict[str, Any]) -> None:
    """An answer with a required tool call has finish_reason "tool_calls"; with a named tool, "stop" is also accepted."""
    body = {"messages": [QUESTION], "max_tokens": ENOUGH_TOKENS} | request_fields
    whole = wire.answer(CHAT, **body)["choices"][0]["finish_reason"]
    assert whole in REASONS[choice], f"finish_reason is {whole!r}"
    reasons = [each["finish_reason"] for each in choices_of(wire.stream(CHAT, **body))]
    assert reasons[-1] in REASONS[choice], f"the streamed finish_reason is {reasons[-1]!r}"
    assert not any(reasons[:-1]), "a chunk before the last has a finish_reason"


@BOTH
def test_streamed_tool_calls_can_be_assembled(wire: Wire, choice: str, request_fields: dict[str, Any]) -> None:
    """Each chunk of a tool call has its index; the first has id, type and name, and the others only arguments."""
    events = wire.stream(CHAT, messages=[QUESTION], max_tokens=ENOUGH_TOKENS, **request_fields)
    for event in events:
        assert_is(ChatCompletionChunk, event)
    calls = assembled(events)
    assert list(calls) == [0], f"the indices of one call are {list(calls)}"
    assert len(calls[0]) >= 2, "the call arrived in one chunk"
    roles = [each["delta"].get("role") for each in choices_of(events)]
    assert roles[0] == "assistant", f"the first chunk has the role {roles[0]!r}"
    assert not any(roles[1:]), "a later chunk repeats the role"
    assert not any(each["delta"].get("content") for each in choices_of(events)), "a tool call is streamed with content"


def assembled(events: list[Document]) -> dict[int, list[Document]]:
    """Return the chunks of each streamed tool call by index, after asserting that they form a call."""
    calls: dict[int, list[Document]] = {}
    for choice in choices_of(events):
        for piece in choice["delta"].get("tool_calls") or ():
            assert type(piece.get("index")) is int, f"a chunk of a tool call has the index {piece.get('index')!r}"
            calls.setdefault(piece["index"], []).append(piece)
    assert sorted(calls) == list(range(len(calls))), f"the indices of the calls are {sorted(calls)}"
    for index, (first, *rest) in calls.items():
        assert first.get("id"), f"the first chunk of call {index} has no id"
        assert first.get("type") == "function", f"the first chunk of call {index} has the type {first.get('type')!r}"
        assert first["function"].get("name"), f"the first chunk of call {index} has no name"
        for piece in rest:
            assert piece.get("id") in (None, "", first["id"]), f"the id of call {index} changes"
            assert not (piece["function"].get("name")), f"call {index} repeats its name"
        for piece in (first, *rest):
            arguments = piece["function"].get("arguments")
            assert arguments is None or isinstance(arguments, str), f"arguments are {type(arguments).__name__}"
        assert_fits("".join(piece["function"].get("arguments") or "" for piece in (first, *rest)))
    return calls


def test_parallel_tool_calls_are_told_apart(wire: Wire) -> None:
    """Several calls in one answer have distinct ids, and in a stream consecutive indices."""
    body = {"messages": [QUESTION], "max_tokens": 2 * ENOUGH_TOKENS, "tools": TOOLS, "tool_choice": "required"}
    calls = wire.answer(CHAT, **body)["choices"][0]["message"]["tool_calls"]
    assert len({call["id"] for call in calls}) == len(calls), "two calls share an id"
    for call in calls:
        assert_fits(call["function"]["arguments"])
    names = [call["function"]["name"] for call in calls]
    assert set(names) <= {each["function"]["name"] for each in TOOLS}, f"the calls are of {names}"
    streamed = assembled(wire.stream(CHAT, **body))
    assert streamed, "no tool call was streamed"
    ids = {pieces[0]["id"] for pieces in streamed.values()}
    assert len(ids) == len(streamed), "two streamed calls share an id"


def test_parallel_tool_calls_can_be_switched_off(wire: Wire) -> None:
    """With parallel_tool_calls false an answer has exactly one tool call."""
    body = {"messages": [QUESTION], "max_tokens": ENOUGH_TOKENS, "tools": TOOLS, "tool_choice": "required"}
    body["parallel_tool_calls"] = False
    assert len(wire.answer(CHAT, **body)["choices"][0]["message"]["tool_calls"]) == 1
    assert list(assembled(wire.stream(CHAT, **body))) == [0]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_tool_choice_none_calls_no_tool(wire: Wire, streamed: bool) -> None:
    """With tool_choice "none" the answer is text, although tools are given."""
    question = user("Call find_hotel for Rome.")
    body: dict[str, Any] = {"messages": [question], "max_tokens": 32, "tools": TOOLS, "tool_choice": "none"}
    if streamed:
        choices = choices_of(wire.stream(CHAT, **body))
        answers = [choice["delta"] for choice in choices]
    else:
        choices = wire.answer(CHAT, **body)["choices"]
        answers = [choice["message"] for choice in choices]
    assert not any(answer.get("tool_calls") for answer in answers), "a tool was called"
    assert any(answer.get("content") or answer.get("reasoning") for answer in answers), "the answer is empty"
    assert choices[-1]["finish_reason"] in ("stop", "length"), f"finish_reason is {choices[-1]['finish_reason']!r}"


def test_tool_choice_none_needs_no_tools(wire: Wire) -> None:
    """tool_choice "none" is accepted without tools: some frameworks always send it."""
    message = wire.answer(CHAT, messages=[QUESTION], max_tokens=8, tool_choice="none")["choices"][0]["message"]
    assert not message.get("tool_calls"), "a tool was called"


@pytest.mark.parametrize("content", ["unchanged", "null", "empty", "absent"])
def test_a_tool_call_can_be_sent_back(wire: Wire, content: str) -> None:
    """The message of a tool call is accepted as a turn before the result, whatever its empty content is."""
    body = {"max_tokens": ENOUGH_TOKENS} | REQUIRED
    message = wire.answer(CHAT, messages=[QUESTION], **body)["choices"][0]["message"]
    call = message["tool_calls"][0]
    if content != "unchanged":
        empty: dict[str, Document] = {"null": {"content": None}, "empty": {"content": ""}, "absent": {}}
        message = {"role": "assistant", "tool_calls": [call], **empty[content]}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "The Ritz"}
    answer = wire.answer(CHAT, messages=[QUESTION, message, result], tools=TOOLS, max_tokens=8)
    assert answer["choices"][0]["finish_reason"], "the answer has no finish_reason"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_with_tool_choice_auto_the_finish_reason_tells_of_calls(wire: Wire, streamed: bool) -> None:
    """If the model may choose, finish_reason is "tool_calls" exactly if a tool is called and the answer is complete."""
    # Most models call the tool; one that answers with text passes, too.
    question = user("Call find_hotel for Rome.")
    body: dict[str, Any] = {"messages": [question], "max_tokens": 256, "tools": TOOLS}
    if streamed:
        events = wire.stream(CHAT, **body)
        choice = choices_of(events)[-1]
        called = any(each["delta"].get("tool_calls") for each in choices_of(events))
        if called and choice["finish_reason"] != "length":
            assembled_with_any_arguments = [
                piece for each in choices_of(events) for piece in each["delta"].get("tool_calls") or ()
            ]
            assert all(type(piece.get("index")) is int for piece in assembled_with_any_arguments), (
                "a chunk has no index"
            )
    else:
        choice = wire.answer(CHAT, **body)["choices"][0]
        called = bool(choice["message"].get("tool_calls"))
    expected = ("tool_calls", "length") if called else ("stop", "length")
    assert choice["finish_reason"] in expected, f"finish_reason is {choice['finish_reason']!r}"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_truncated_tool_call_ends_with_length(wire: Wire, streamed: bool) -> None:
    """A tool call that max_tokens truncates has finish_reason "length", so that no client runs half a call."""
    body = {"messages": [QUESTION], "max_tokens": 3} | REQUIRED
    choices = choices_of(wire.stream(CHAT, **body)) if streamed else wire.answer(CHAT, **body)["choices"]
    assert choices[-1]["finish_reason"] == "length", f"finish_reason is {choices[-1]['finish_reason']!r}"


@pytest.mark.parametrize("wrong", WRONG_TOOLS)
def test_wrong_tools_are_400(http: httpx2.Client, model: str, wrong: str) -> None:
    """A malformed tool, an unknown tool_choice and a choice that names no given tool are rejected with 400."""
    body = {"model": model, "messages": [QUESTION], "max_tokens": 1} | WRONG_TOOLS[wrong]
    assert_openai_error(http.post(CHAT, json=body), 400)


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
