"""The fake server's answers in OpenAI's formats: chat, text completions and responses, whole and streamed."""

import itertools
import time
import uuid
from collections.abc import Iterator
from typing import Any

from tests.smoke_tests.fake_model import MODEL, Body, Has, call_of, logprobs, prompt_tokens, says

Events = Iterator[tuple[Body, float]]


def usage_of(body: Body, has: Has, completion_tokens: int) -> dict[str, int]:
    """Return the usage of an answer."""
    read = prompt_tokens(body, has)
    if has("hides_how_much_it_says"):
        completion_tokens = min(completion_tokens, body.get("max_tokens", 16))
    total = read + completion_tokens + (1 if has("counts_wrong") else 0)
    return {"prompt_tokens": read, "completion_tokens": completion_tokens, "total_tokens": total}


def _frame(body: Body, has: Has, suffix: str = "") -> Body:
    kind = f"chat.completion{suffix}" if "messages" in body else "text_completion"
    number = "1" if has("reuses_answer_ids") else uuid.uuid4().hex
    name = "other/model" if has("answers_as_another_model") else MODEL
    return {"id": f"chatcmpl-{number}", "object": kind, "created": int(time.time()), "model": name}


def _number_of_answers(body: Body, has: Has) -> int:
    prompts = body.get("prompt")
    several = isinstance(prompts, list) and not has("answers_the_first_prompt_alone")
    return (1 if has("ignores_n") else int(body.get("n") or 1)) * (len(prompts) if several and prompts else 1)


def chat_document(body: Body, has: Has) -> Body:
    """Return a whole answer to a chat or a text completion."""
    choices: list[Body] = []
    completion_tokens = 0
    for index in range(_number_of_answers(body, has)):
        tokens, reason = says(body, has, 0 if has("says_one_answer_n_times") else index)
        if has("says_one_answer_n_times") and choices:
            choices.append(choices[0] | {"index": index})
            continue
        completion_tokens += len(tokens) - bool(body.get("echo"))
        choice: Body = {"index": index, "finish_reason": reason}
        call = call_of(body, has)
        if call is not None:
            choice |= {
                "message": {"role": "assistant", "content": None, "tool_calls": [call]},
                "finish_reason": "tool_calls",
            }
        elif "messages" in body:
            choice["message"] = {"role": "assistant", "content": "".join(tokens)}
            if body.get("logprobs") and not has("drops_logprobs"):
                count, upside_down = body.get("top_logprobs") or 0, has("sorts_logprobs_upside_down")
                choice["logprobs"] = {"content": [logprobs(token, count, upside_down) for token in tokens]}
        else:
            choice["text"] = "".join(tokens)
            if body.get("logprobs") and not has("drops_logprobs"):
                told = [-0.5] * (len(tokens) - has("tells_fewer_logprobs_than_tokens"))
                choice["logprobs"] = {"tokens": tokens, "token_logprobs": told, "top_logprobs": [], "text_offset": []}
        choices.append(choice)
    return _frame(body, has) | {"choices": choices, "usage": usage_of(body, has, completion_tokens)}


def chat_chunks(body: Body, has: Has, gap: float) -> Events:
    """Yield every event of a streamed chat or text completion except [DONE], with the seconds that generating it takes."""
    frame = _frame(body, has, ".chunk")
    for event, seconds in _chunks(body, has, gap):
        if has("changes_ids_within_a_stream"):
            frame["id"] = uuid.uuid4().hex
        if has("streams_every_answer_as_the_first"):
            event["choices"] = [choice | {"index": 0} for choice in event["choices"]]
        yield frame | event, seconds


def _chunks(body: Body, has: Has, gap: float) -> Events:
    is_chat = "messages" in body
    completion_tokens = 0
    for index in range(_number_of_answers(body, has)):
        tokens, reason = says(body, has, index)
        if has("reorders_the_stream"):
            tokens = [*tokens[:2], *reversed(tokens[2:])]
        if has("loses_part_of_the_stream"):
            tokens = tokens[: len(tokens) // 2]
        completion_tokens += len(tokens)
        usage = usage_of(body, has, completion_tokens)

        def told(delta: Any, end: str | None = None, index: int = index) -> Body:
            return {"choices": [{"index": index, **delta, "finish_reason": end}]}

        if is_chat and not has("streams_no_role"):
            yield told({"delta": {"role": "assistant", "content": ""}}), 0.0
        if call := call_of(body, has):
            yield from _streamed_call(call, has, told)
            continue
        breaks_off = has("breaks_off_streams_about_images") and "image_url" in str(body)
        for position, token in enumerate(tokens):
            is_last = position == len(tokens) - 1 and not has("drops_the_finish_reason") and not breaks_off
            event = told({"delta": {"content": token}} if is_chat else {"text": token}, reason if is_last else None)
            yield event | ({"usage": usage} if has("repeats_usage") else {}), gap
    without = has("drops_usage") or (not is_chat and has("completions_stream_without_usage"))
    if (body.get("stream_options") or {}).get("include_usage") and not without:
        yield {"choices": [], "usage": usage_of(body, has, completion_tokens)}, 0.0


def _streamed_call(call: Body, has: Has, told: Any) -> Events:
    arguments = call["function"]["arguments"]
    pieces = [arguments[at : at + 5] for at in range(0, len(arguments), 5)]
    first = call | {"index": 0, "function": {"name": call["function"]["name"], "arguments": ""}}
    yield told({"delta": {"tool_calls": [first]}}), 0.0
    for piece in pieces[: len(pieces) // 2] if has("streams_half_a_call") else pieces:
        yield told({"delta": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}}), 0.0
    yield told({"delta": {}}, "tool_calls"), 0.0


def response_document(body: Body, has: Has) -> Body:
    """Return a whole answer of /v1/responses."""
    tokens, _ = says(body, has)
    usage = usage_of(body, has, len(tokens))
    text = {"type": "output_text", "text": "".join(tokens), "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    return {
        "id": "resp_1", "object": "response", "created_at": int(time.time()), "model": MODEL, "status": "incomplete",
        "output": [message], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": {
            "input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"] + has("counts_responses_wrong"),
        },
    }  # fmt: skip


def response_events(body: Body, has: Has, gap: float) -> Events:
    """Yield the events of a streamed response, with the seconds that generating each takes."""
    whole = response_document(body, has)
    numbers = itertools.count()
    events: list[Body] = [{"type": "response.created", "response": whole | {"output": [], "status": "in_progress"}}]
    tokens, _ = says(body, has)
    events += [
        {
            "type": "response.output_text.delta",
            "delta": token,
            "item_id": "msg_1",
            "output_index": 0,
            "content_index": 0,
        }
        for token in tokens
    ]
    events = [event | {"sequence_number": next(numbers)} for event in events]
    if has("reorders_streamed_responses"):
        events[2], events[3] = events[3], events[2]
    for event in events:
        yield event, gap
    yield {"type": "response.incomplete", "response": whole, "sequence_number": next(numbers)}, 0.0
