"""The fake server's answers in OpenAI's formats: chat and text completions, whole and streamed."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from tests.smoke_tests.fake_model import MODEL, Body, Has, calls_of, cut, logprobs, prompt_tokens, says

Events = Iterator[tuple[Body, float]]


def usage_of(body: Body, has: Has, completion_tokens: int) -> Body:
    """Return the usage of an answer."""
    read = prompt_tokens(body, has)
    if has("hides_how_much_it_says"):
        completion_tokens = min(completion_tokens, body.get("max_tokens", 16))
    total = read + completion_tokens + (1 if has("counts_wrong") else 0)
    return {"prompt_tokens": read, "completion_tokens": completion_tokens, "total_tokens": total}


def _frame(body: Body, has: Has, suffix: str = "") -> Body:
    is_chat = "messages" in body
    number = "1" if has("reuses_answer_ids") else uuid.uuid4().hex
    return {
        "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{number}",
        "object": f"chat.completion{suffix}" if is_chat else "text_completion",
        "created": int(time.time()),
        "model": "other/model" if has("answers_as_another_model") else MODEL,
    }


def _asked(body: Body, has: Has) -> list[tuple[Body, int]]:
    """Return the request of each answer, with one prompt, and the answer's number among those of its prompt."""
    number = 1 if has("ignores_n") else int(body.get("n") or 1)
    prompt = body.get("prompt")
    prompts: list[Any] = [prompt]
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        prompts = prompt[:1] if has("answers_the_first_prompt_alone") else prompt
    each = [body | {"prompt": one} for one in prompts] if "prompt" in body and "messages" not in body else [body]
    return [(one, index) for one in each for index in range(number)]


def _pieces(call: Body) -> list[str]:
    arguments = call["function"]["arguments"]
    return [arguments[at : at + 5] for at in range(0, len(arguments), 5)]


def _cut_calls(body: Body, has: Has) -> tuple[list[tuple[Body, list[str]]], bool]:
    """Return the tool calls that answer a request, with the pieces that max_tokens allows, and whether it cuts them."""
    calls, is_cut, left = [], False, dict(body)
    for call in calls_of(body, has):
        if not is_cut:
            pieces, is_cut = cut(_pieces(call), left)
            left["max_tokens"] = (left.get("max_tokens") or 10_000) - len(pieces)
            is_cut = is_cut or not left["max_tokens"]
            calls.append((call, pieces))
    return calls, is_cut


def _chat_logprobs(body: Body, has: Has, tokens: list[str]) -> Body | None:
    if not body.get("logprobs") or has("drops_logprobs"):
        return None
    count, upside_down = body.get("top_logprobs") or 0, has("sorts_logprobs_upside_down")
    return {"content": [logprobs(token, count, upside_down) for token in tokens], "refusal": None}


def _text_logprobs(body: Body, has: Has, tokens: list[str], offset: int = 0) -> Body | None:
    if not body.get("logprobs") or has("drops_logprobs"):
        return None
    offsets = [offset + len("".join(tokens[:position])) for position in range(len(tokens))]
    top = [{f"{token}{number or ''}": -0.5 - 2 * number for number in range(body["logprobs"])} for token in tokens]
    values = [-0.5] * (len(tokens) - has("tells_fewer_logprobs_than_tokens"))
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets}


def chat_document(body: Body, has: Has) -> Body:
    """Return a whole answer to a chat or a text completion."""
    choices: list[Body] = []
    completion_tokens = 0
    for index, (asked, number) in enumerate(_asked(body, has)):
        tokens, reason = says(asked, has, 0 if has("says_one_answer_n_times") else number)
        if has("says_one_answer_n_times") and choices:
            choices.append(choices[0] | {"index": index})
            continue
        calls, is_cut = _cut_calls(body, has)
        message: Body = {"role": "assistant", "content": "".join(tokens), "refusal": None}
        choice: Body = {"index": index, "finish_reason": reason, "logprobs": None}
        if calls:
            completion_tokens += sum(len(pieces) for _, pieces in calls)
            message |= {
                "content": None,
                "tool_calls": [
                    call | {"function": call["function"] | {"arguments": "".join(pieces)}} for call, pieces in calls
                ],
            }
            choice |= {"message": message, "finish_reason": "length" if is_cut else "tool_calls"}
        else:
            completion_tokens += len(tokens) - bool(body.get("echo"))
            if "messages" in body:
                choice |= {"message": message, "logprobs": _chat_logprobs(body, has, tokens)}
            else:
                choice |= {"text": "".join(tokens), "logprobs": _text_logprobs(body, has, tokens)}
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
    for index, (asked, number) in enumerate(_asked(body, has)):
        tokens, reason = says(asked, has, number)
        if has("reorders_the_stream"):
            tokens = [*tokens[:2], *reversed(tokens[2:])]
        if has("loses_part_of_the_stream"):
            tokens = tokens[: len(tokens) // 2]

        def chunk(content: Body, end: str | None = None, logprobs: Any = None, index: int = index) -> Body:
            return {"choices": [{"index": index, **content, "logprobs": logprobs, "finish_reason": end}]}

        if is_chat and not has("streams_no_role"):
            yield chunk({"delta": {"role": "assistant", "content": ""}}), 0.0
        calls, is_cut = _cut_calls(body, has)
        if calls:
            completion_tokens += sum(len(pieces) for _, pieces in calls)
            for position, (call, pieces) in enumerate(calls):
                half = has("streams_half_a_call")
                yield from _streamed_call(call, position, pieces[: len(pieces) // 2] if half else pieces, chunk)
            yield chunk({"delta": {}}, "length" if is_cut else "tool_calls"), 0.0
            continue
        completion_tokens += len(tokens) - bool(body.get("echo"))
        usage = usage_of(body, has, completion_tokens)
        breaks_off = has("breaks_off_streams_about_images") and "image_url" in str(body)
        offset = 0
        for position, token in enumerate(tokens):
            is_last = position == len(tokens) - 1 and not has("drops_the_finish_reason") and not breaks_off
            content: Body = {"delta": {"content": token}} if is_chat else {"text": token}
            values = _chat_logprobs(body, has, [token]) if is_chat else _text_logprobs(body, has, [token], offset)
            offset += len(token)
            event = chunk(content, reason if is_last else None, values)
            yield event | ({"usage": usage} if has("repeats_usage") else {}), gap
    without = has("drops_usage") or (not is_chat and has("completions_stream_without_usage"))
    if (body.get("stream_options") or {}).get("include_usage") and not without:
        yield {"choices": [], "usage": usage_of(body, has, completion_tokens)}, 0.0


def _streamed_call(call: Body, position: int, pieces: list[str], chunk: Any) -> Events:
    first = {"index": position, **call, "function": {"name": call["function"]["name"], "arguments": ""}}
    yield chunk({"delta": {"tool_calls": [first]}}), 0.0
    for piece in pieces:
        yield chunk({"delta": {"tool_calls": [{"index": position, "function": {"arguments": piece}}]}}), 0.0
