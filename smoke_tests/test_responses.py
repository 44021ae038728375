"""OpenAI's Responses API, /v1/responses."""

from typing import Any

import httpx2
import pytest
from openai import OpenAI
from openai.types.responses import Response, ResponseStreamEvent

from smoke_tests.expectations import assert_openai_error
from smoke_tests.schemas import ENOUGH_TOKENS, SCHEMA, TOOLS, assert_fits
from smoke_tests.wire import RESPONSES, Document, Wire, assert_is

pytestmark = pytest.mark.usefixtures("text")

QUESTION = "Say hello."
LONGEST = 16
TOOL = {"type": "function"} | TOOLS[0]["function"]
# OpenAI ends a truncated response with response.incomplete, vLLM with response.completed and the status incomplete.
LAST = ("response.completed", "response.incomplete")


def test_a_response_is_made(client: OpenAI, model: str) -> None:
    """/v1/responses answers in the format of the Responses API, with usage."""
    answer = client.responses.create(model=model, input=QUESTION, max_output_tokens=LONGEST, temperature=0)
    assert answer.object == "response"
    assert answer.model == model
    assert answer.status in ("completed", "incomplete")
    assert answer.output, "the output is empty"
    assert answer.usage is not None
    assert 0 < answer.usage.output_tokens <= LONGEST
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_instructions_and_turns_are_read(client: OpenAI, model: str) -> None:
    """The model reads the instructions and every turn of the input."""
    turns: Any = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Nice to meet you."},
        {"role": "user", "content": QUESTION},
    ]
    whole = client.responses.create(
        model=model, input=turns, instructions="You are brief.", max_output_tokens=LONGEST, temperature=0
    )
    alone = client.responses.create(model=model, input=QUESTION, max_output_tokens=LONGEST, temperature=0)
    assert whole.usage is not None
    assert alone.usage is not None
    assert whole.usage.input_tokens >= alone.usage.input_tokens + 8


def test_a_response_is_streamed(client: OpenAI, model: str) -> None:
    """The events of a streamed response begin with response.created, are numbered in order, and end with the response."""
    stream = client.responses.create(model=model, input=QUESTION, max_output_tokens=LONGEST, temperature=0, stream=True)
    events = list(stream)
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] in LAST, f"the last event is {kinds[-1]}"
    assert any(kind.endswith(".delta") for kind in kinds), "no text was streamed"
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers)), f"the events are out of order: {numbers}"


def text_of(response: Document) -> str:
    """Return the text of a response's messages, without reasoning."""
    contents = [item["content"] for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for content in contents for part in content if part["type"] == "output_text")


def test_a_response_has_openais_format(wire: Wire) -> None:
    """A response has every required field, and its message is of the assistant, with text and annotations."""
    answer = wire.answer(RESPONSES, input=QUESTION, max_output_tokens=LONGEST)
    assert_is(Response, answer)
    assert answer["id"], "the id is empty"
    assert answer["model"] == wire.model
    assert 1_600_000_000 < answer["created_at"] < 100_000_000_000, f"created_at is {answer['created_at']}"
    assert answer.get("error") is None, f"the response has an error: {answer['error']}"
    messages = [item for item in answer["output"] if item["type"] == "message"]
    assert messages or any(item["type"] == "reasoning" for item in answer["output"]), "the output has no message"
    for item in messages:
        assert item["id"], "a message has an empty id"
        assert item["role"] == "assistant", f"the role is {item['role']!r}"
        assert item["content"], "a message has no content"
        assert all(part["type"] == "output_text" for part in item["content"])
    assert text_of(answer) or not messages, "the text is empty"
    assert wire.answer(RESPONSES, input=QUESTION, max_output_tokens=1)["id"] != answer["id"], (
        "two responses share an id"
    )


def test_a_truncated_response_is_incomplete(wire: Wire) -> None:
    """A response that max_output_tokens truncates has the status incomplete and says why."""
    incomplete = 0
    for limit in (3, 5):
        answer = wire.answer(RESPONSES, input=QUESTION, max_output_tokens=limit)
        if answer["status"] == "incomplete":
            assert (answer["incomplete_details"] or {}).get("reason") == "max_output_tokens"
            assert answer["usage"]["output_tokens"] == limit
            incomplete += 1
        else:
            assert answer["incomplete_details"] is None
            incomplete += answer["usage"]["output_tokens"] < limit
    assert incomplete, "truncated responses have the status completed"


def test_streamed_events_have_openais_format(wire: Wire) -> None:
    """Each event has the fields of its type, the type in its event: line, and the next sequence_number from 0."""
    events = wire.event_names(RESPONSES, input=QUESTION, max_output_tokens=LONGEST)
    for name, event in events:
        assert_is(ResponseStreamEvent, event)
        assert name == event["type"], f"the event line of {event['type']} is {name!r}"
    numbers = [event["sequence_number"] for _, event in events]
    assert numbers == list(range(len(numbers))), f"the sequence numbers are {numbers}"


def test_streamed_events_are_nested(wire: Wire) -> None:
    """Items and parts are added before their deltas and done after them, and all have the item's id."""
    events = wire.stream(RESPONSES, input=QUESTION, max_output_tokens=LONGEST)
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"], f"the first events are {kinds[:2]}"
    deltas = [index for index, kind in enumerate(kinds) if kind == "response.output_text.delta"]
    if not deltas:
        pytest.skip("the answer is only reasoning")
    item = events[deltas[0]]["item_id"]
    before = [("output_item.added", "item"), ("content_part.added", "item_id")]
    after = [("output_text.done", "item_id"), ("content_part.done", "item_id"), ("output_item.done", "item")]
    positions = []
    for kind, field in before + after:
        found = [
            index
            for index, event in enumerate(events)
            if event["type"] == f"response.{kind}"
            and (event["item"]["id"] if field == "item" else event["item_id"]) == item
        ]
        assert len(found) == 1, f"{len(found)} events response.{kind} for the message"
        positions.append(found[0])
    assert positions[: len(before)] == sorted(positions[: len(before)])
    assert positions[len(before) - 1] < deltas[0], "a delta is sent before its part is added"
    assert deltas[-1] < positions[len(before)], "a delta is sent after its text is done"
    assert positions[len(before) :] == sorted(positions[len(before) :]), "the events of the end are out of order"
    assert {events[index]["item_id"] for index in deltas} == {item}, "the deltas have several item ids"


def test_a_streamed_response_is_the_whole_response(wire: Wire) -> None:
    """The deltas, the done events and the final response have the same text, and the ids do not change."""
    events = wire.stream(RESPONSES, input=QUESTION, max_output_tokens=LONGEST)
    deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    done = "".join(event["text"] for event in events if event["type"] == "response.output_text.done")
    final = events[-1]["response"]
    assert deltas == done == text_of(final), f"deltas {deltas!r}, done {done!r}, response {text_of(final)!r}"
    assert {event["response"]["id"] for event in events if "response" in event} == {final["id"]}, "the id changes"
    assert events[0]["response"]["status"] == "in_progress", f"the first status is {events[0]['response']['status']}"
    assert final["status"] in ("completed", "incomplete"), f"the final status is {final['status']}"
    usage = final["usage"]
    assert usage, "the final response has no usage"
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], f"usage is {usage}"


def test_a_response_may_have_a_json_schema(wire: Wire) -> None:
    """With text.format json_schema the text of a response matches the schema."""
    form = {"type": "json_schema", "name": "hotel", "schema": SCHEMA, "strict": True}
    answer = wire.answer(RESPONSES, input="Recommend a hotel.", max_output_tokens=ENOUGH_TOKENS, text={"format": form})
    assert_fits(text_of(answer))


@pytest.mark.usefixtures("tools")
def test_a_response_may_call_a_tool(wire: Wire) -> None:
    """With tool_choice "required" a response has a function_call item, with a call_id and arguments of the schema."""
    answer = wire.answer(
        RESPONSES, input="Recommend a hotel.", max_output_tokens=ENOUGH_TOKENS, tools=[TOOL], tool_choice="required"
    )
    assert_is(Response, answer)
    calls = [item for item in answer["output"] if item["type"] == "function_call"]
    assert calls, "no tool was called"
    assert calls[0]["call_id"], "the call has no call_id"
    assert calls[0]["name"] == "find_hotel"
    assert_fits(calls[0]["arguments"])


def test_an_unknown_previous_response_is_refused(http: httpx2.Client, model: str) -> None:
    """A previous_response_id that is not known is rejected with 400 or 404, not ignored."""
    body = {"model": model, "input": QUESTION, "previous_response_id": "resp_unknown", "max_output_tokens": 1}
    response = http.post(RESPONSES, json=body)
    assert_openai_error(response, 400 if response.status_code == 400 else 404)


def test_input_may_have_parts_and_a_developer(wire: Wire) -> None:
    """The input may have a developer message and content as a list of input_text parts, and all of them are read."""

    def tokens(given: Any) -> int:
        return int(wire.answer(RESPONSES, input=given, max_output_tokens=1)["usage"]["input_tokens"])

    parts = [
        {"type": "input_text", "text": "My name is Ada and I live in London."},
        {"type": "input_text", "text": QUESTION},
    ]
    developer = {"role": "developer", "content": "You are the captain of a ship and answer in verse."}
    alone, in_parts = tokens(QUESTION), tokens([{"role": "user", "content": parts}])
    assert in_parts >= alone + 8, f"{alone} tokens without the first part, {in_parts} with it"
    instructed = tokens([developer, {"role": "user", "content": QUESTION}])
    assert instructed >= alone + 8, f"{alone} tokens without the developer's message, {instructed} with it"


@pytest.mark.usefixtures("tools")
def test_a_response_reads_the_result_of_a_tool(wire: Wire) -> None:
    """A function_call item and its function_call_output are accepted as input, and the output is read."""

    def tokens(output: str) -> int:
        call = {"type": "function_call", "call_id": "call_1", "name": "find_hotel", "arguments": "{}"}
        result = {"type": "function_call_output", "call_id": "call_1", "output": output}
        given = [{"role": "user", "content": QUESTION}, call, result]
        answer = wire.answer(RESPONSES, input=given, tools=[TOOL], max_output_tokens=LONGEST)
        assert answer["output"], "the output is empty"
        return int(answer["usage"]["input_tokens"])

    assert tokens("The Ritz, five stars, open all the year round") > tokens("None")


@pytest.mark.usefixtures("tools")
def test_a_tool_call_of_a_response_is_streamed(wire: Wire) -> None:
    """The argument deltas of a streamed function call, its done event and its item have the same arguments and id."""
    body = {"input": "Recommend a hotel.", "tools": [TOOL], "tool_choice": "required"}
    events = wire.stream(RESPONSES, max_output_tokens=ENOUGH_TOKENS, **body)
    for event in events:
        assert_is(ResponseStreamEvent, event)
    kind = "response.function_call_arguments"
    deltas = [event for event in events if event["type"] == f"{kind}.delta"]
    done = [event for event in events if event["type"] == f"{kind}.done"]
    calls = [item for item in events[-1]["response"]["output"] if item["type"] == "function_call"]
    assert len(calls) == len(done) == 1, f"{len(calls)} calls and {len(done)} done events"
    arguments = "".join(event["delta"] for event in deltas)
    assert arguments == done[0]["arguments"] == calls[0]["arguments"], (
        f"deltas {arguments!r}, done {done[0]['arguments']!r}"
    )
    assert_fits(arguments)
    assert {event["item_id"] for event in (*deltas, *done)} == {calls[0]["id"]}, "the item id changes"
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert [item["name"] for item in added if item["type"] == "function_call"] == ["find_hotel"]
