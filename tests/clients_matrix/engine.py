"""What the fake engine answers the matrix's clients: vLLM's shapes of each API, chosen by the path and the prompt."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import Iterator
from typing import Any

from fakes.fake_engine import Line, Request

HELLO = "Say hello."
FOR_EVER = "Count for ever."
BREAK = "Break."
PIECES = ("Hello", ", ", "wörld", " 🌍")
TEXT = "".join(PIECES)
CITY = '{"city": "Paris"}'
EMBEDDING = (0.5, -0.25, 1.0)
LARGEST_MAX_TOKENS = 40_960
PIECE_SECONDS = 0.1

_USAGE = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
_ANTHROPIC_USAGE = {"input_tokens": 7, "output_tokens": 4}
_RESPONSES_USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 11,
}
Event = tuple[str | None, Any]


async def answer(request: Request, line: Line) -> None:
    """As vLLM would, a stream's pieces a tenth of a second apart."""
    body = request.json
    path = request.path.partition("?")[0]
    most = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens") or 0
    if most > LARGEST_MAX_TOKENS:
        _refuse(path, line)
    elif path == "/v1/embeddings":
        line.reply(_embeddings(body))
    elif path == "/v1/messages/count_tokens":
        line.reply({"input_tokens": 7})
    elif path == "/tokenize":
        line.reply({"count": 2, "max_model_len": 40_960, "tokens": [1, 2], "token_strs": None})
    elif body.get("stream"):
        await _stream(path, body, line)
    else:
        line.reply(_whole(path, body))


async def _stream(path: str, body: dict[str, Any], line: Line) -> None:
    line.head(content_type="text/event-stream; charset=utf-8")
    if FOR_EVER in json.dumps(body):
        await _for_ever(path, body, line)
        return
    breaks = BREAK in json.dumps(body)
    for name, data in _events(path, body):
        _send(line, name, data)
        await line.writer.drain()
        if breaks and PIECES[1] in json.dumps(data):
            line.reset()
            return
        await asyncio.sleep(PIECE_SECONDS)
    line.end()


async def _for_ever(path: str, body: dict[str, Any], line: Line) -> None:
    """A piece every so often until the gateway closes the connection, or the test lets go."""
    events = list(_events(path, body))
    first = next(number for number, (_, data) in enumerate(events) if PIECES[0] in json.dumps(data))
    for name, data in events[: first + 1]:
        _send(line, name, data)
    line.engine.reached.set()
    gone = asyncio.ensure_future(line.gone())
    released = asyncio.ensure_future(line.engine.go_on.wait())
    try:
        while not gone.done() and not released.done():
            with contextlib.suppress(OSError):
                _send(line, *events[first])
            await asyncio.wait({gone, released}, timeout=PIECE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            line.engine.abandoned.set()
            return
        for name, data in events[first + 1 :]:
            _send(line, name, data)
        line.end()
    finally:
        gone.cancel()
        released.cancel()
        line.writer.close()


def _send(line: Line, name: str | None, data: Any) -> None:
    text = data if isinstance(data, str) else json.dumps(data)
    line.chunk(f"{f'event: {name}{chr(10)}' if name else ''}data: {text}\n\n".encode())


def _refuse(path: str, line: Line) -> None:
    message = "max_tokens is too large"
    if path == "/v1/messages":
        line.reply({"type": "error", "error": {"type": "BadRequestError", "message": message}}, 400)
    else:
        error = {"message": message, "type": "BadRequestError", "param": "max_tokens", "code": 400}
        line.reply({"error": error}, 400)


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vector: Any = list(EMBEDDING)
    if body.get("encoding_format") == "base64":  # what OpenAI's SDKs ask for unless they are told otherwise
        vector = base64.b64encode(struct.pack(f"<{len(EMBEDDING)}f", *EMBEDDING)).decode()
    data = [{"object": "embedding", "index": number, "embedding": vector} for number in range(len(inputs))]
    return {"id": "embd-1", "object": "list", "created": 1, "model": body["model"], "data": data, "usage": _USAGE}


def _whole(path: str, body: dict[str, Any]) -> dict[str, Any]:
    tools = body.get("tools")
    common = {"id": "cmpl-1", "created": 1, "model": body["model"], "usage": _USAGE}
    if path == "/v1/responses":
        return _response(body, "completed")
    if path == "/v1/messages":
        block = _tool_use(tools) if tools else {"type": "text", "text": TEXT}
        return _message(body, [block], "tool_use" if tools else "end_turn")
    if path == "/v1/completions":
        choice = {"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}
        return {**common, "object": "text_completion", "choices": [choice]}
    content = CITY if "response_format" in body else TEXT
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "tool_calls": []}
    if tools:
        message |= {"content": None, "tool_calls": [_tool_call(tools)]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if tools else "stop"}
    return {**common, "object": "chat.completion", "choices": [choice]}


def _tool_call(tools: list[dict[str, Any]]) -> dict[str, Any]:
    function = {"name": tools[0]["function"]["name"], "arguments": CITY}
    return {"id": "chatcmpl-tool-1", "type": "function", "function": function}


def _tool_use(tools: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu-1", "name": tools[0]["name"], "input": json.loads(CITY)}


def _events(path: str, body: dict[str, Any]) -> Iterator[Event]:
    if path == "/v1/responses":
        yield from _response_events(body)
    elif path == "/v1/messages":
        yield from _message_events(body)
    else:
        yield from _chunks(path, body)


def _chunks(path: str, body: dict[str, Any]) -> Iterator[Event]:
    is_chat = path == "/v1/chat/completions"
    common = {"id": "cmpl-1", "created": 1, "model": body["model"]}
    common["object"] = "chat.completion.chunk" if is_chat else "text_completion"

    def chunk(finish_reason: str | None = None, **what: Any) -> Event:
        choice = {"index": 0, "logprobs": None, "finish_reason": finish_reason, **what}
        return None, {**common, "choices": [choice]}

    if not is_chat:
        for piece in PIECES:
            yield chunk(text=piece)
        yield chunk("stop", text="")
    elif tools := body.get("tools"):
        call = {"index": 0, **_tool_call(tools)}
        name = call["function"]["name"]
        yield chunk(delta={"role": "assistant", "content": ""})
        yield chunk(delta={"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
        for part in (CITY[:5], CITY[5:]):
            yield chunk(delta={"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
        yield chunk("tool_calls", delta={})
    else:
        yield chunk(delta={"role": "assistant", "content": ""})
        for piece in PIECES:
            yield chunk(delta={"content": piece})
        yield chunk("stop", delta={"content": ""})
    if (body.get("stream_options") or {}).get("include_usage"):
        yield None, {**common, "choices": [], "usage": _USAGE}
    yield None, "[DONE]"


def _response(body: dict[str, Any], status: str) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": None}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    done = status == "completed"
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": status,
        "output": [item] if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": _RESPONSES_USAGE if done else None,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": None,
        "temperature": 1.0,
        "top_p": 1.0,
    }


def _response_events(body: dict[str, Any]) -> Iterator[Event]:
    at = {"item_id": "msg_1", "output_index": 0}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    whole = {**part, "text": TEXT}
    events: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": _response(body, "in_progress")}),
        ("response.output_item.added", {"output_index": 0, "item": item}),
        ("response.content_part.added", {**at, "content_index": 0, "part": part}),
        *(
            ("response.output_text.delta", {**at, "content_index": 0, "delta": piece, "logprobs": []})
            for piece in PIECES
        ),
        ("response.output_text.done", {**at, "content_index": 0, "text": TEXT, "logprobs": []}),
        ("response.content_part.done", {**at, "content_index": 0, "part": whole}),
        (
            "response.output_item.done",
            {"output_index": 0, "item": {**item, "status": "completed", "content": [whole]}},
        ),
        ("response.completed", {"response": _response(body, "completed")}),
    ]
    for number, (kind, more) in enumerate(events):
        yield kind, {"type": kind, "sequence_number": number, **more}


def _message(body: dict[str, Any], content: list[dict[str, Any]], stop_reason: str | None) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": _ANTHROPIC_USAGE,
    }


def _message_events(body: dict[str, Any]) -> Iterator[Event]:
    tools = body.get("tools")
    if tools:
        block = {**_tool_use(tools), "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in (CITY[:5], CITY[5:])]
    else:
        block = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in PIECES]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": _message(body, [], None)},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use" if tools else "end_turn", "stop_sequence": None},
            "usage": _ANTHROPIC_USAGE,
        },
        {"type": "message_stop"},
    ]
    for event in events:
        yield event["type"], event
    yield None, "[DONE]"  # vLLM ends this stream as all others
