"""OpenAI's Responses API, /v1/responses."""

from typing import Any

from openai import OpenAI

QUESTION = "Say hello."
LONGEST = 16


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
    events = list(client.responses.create(model=model, input=QUESTION, max_output_tokens=LONGEST, stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete"), f"the last event is {kinds[-1]}"
    assert any(kind.endswith(".delta") for kind in kinds), "no text was streamed"
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers)), f"the events are out of order: {numbers}"
