"""The fake server's answers of the Responses API, whole and streamed, and its embeddings."""

import base64
import hashlib
import itertools
import json
import struct
import time
import uuid
from typing import Any

from tests.smoke_tests.fake_answers import Events, usage_of
from tests.smoke_tests.fake_model import MODEL, Body, Has, RefusalError, calls_of, says

DIMENSIONS = 8


def _chat_request(body: Body) -> Body:
    """Return the request as chat would have it: tools under `function`."""
    tools = [{"type": "function", "function": tool} for tool in body.get("tools") or ()]
    return body | {"tools": tools or None}


def response_document(body: Body, has: Has) -> Body:
    """Return a whole answer of /v1/responses."""
    tokens, reason = says(body, has)
    usage = usage_of(body, has, len(tokens))
    text = {"type": "output_text", "text": "".join(tokens), "annotations": []}
    item: Body = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "status": "completed"}
    output: list[Body] = [item | {"content": [text]}]
    if calls := calls_of(_chat_request(body), has):
        reason = "stop"
        output = [
            {"id": f"fc_{uuid.uuid4().hex}", "type": "function_call", "status": "completed", "call_id": call["id"]}
            | call["function"]
            for call in calls
        ]
    is_cut = reason == "length"
    return {
        "id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": int(time.time()), "model": MODEL,
        "status": "incomplete" if is_cut else "completed", "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None, "instructions": None,
        "metadata": None, "temperature": 0.0, "top_p": 1.0,
        "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": body.get("tools") or [],
        "usage": {
            "input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"] + has("counts_responses_wrong"),
        },
    }  # fmt: skip


def response_events(body: Body, has: Has, gap: float) -> Events:
    """Yield the events of a streamed response, with the seconds that generating each takes."""
    whole = response_document(body, has)
    numbers = itertools.count()
    begun = whole | {"output": [], "status": "in_progress", "incomplete_details": None, "usage": None}
    item = whole["output"][0]
    events: list[Body] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        *(_call_events(item) if item["type"] == "function_call" else _text_events(item, says(body, has)[0])),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": f"response.{whole['status']}", "response": whole},
    ]
    events = [event | {"sequence_number": next(numbers)} for event in events]
    if has("reorders_streamed_responses"):
        events[4], events[5] = events[5], events[4]
    for event in events:
        yield event, gap if event["type"].endswith(".delta") else 0.0


def _text_events(item: Body, tokens: list[str]) -> list[Body]:
    part = item["content"][0]
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    begun = item | {"content": [], "status": "in_progress"}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        {"type": "response.content_part.added", "part": part | {"text": ""}, **at},
        *({"type": "response.output_text.delta", "delta": token, "logprobs": [], **at} for token in tokens),
        {"type": "response.output_text.done", "text": part["text"], "logprobs": [], **at},
        {"type": "response.content_part.done", "part": part, **at},
    ]


def _call_events(item: Body) -> list[Body]:
    at, arguments = {"item_id": item["id"], "output_index": 0}, item["arguments"]
    kind = "response.function_call_arguments"
    begun = item | {"arguments": "", "status": "in_progress"}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        *({"type": f"{kind}.delta", "delta": arguments[i : i + 5], **at} for i in range(0, len(arguments), 5)),
        {"type": f"{kind}.done", "arguments": arguments, "name": item["name"], **at},
    ]


def embeddings_document(body: Body, has: Has) -> Body:
    """Return the embeddings of texts or token lists; raises RefusalError for empty input and unknown formats."""
    given: Any = body.get("input")
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        given = [given]
    form = body.get("encoding_format") or "float"
    if not given or form not in ("float", "base64") or body.get("dimensions"):
        raise RefusalError(400, "the input or its encoding_format is not valid")
    vectors = [_embedding(each) for each in given]
    tokens = sum(len(each) if isinstance(each, list) else len(each.split()) for each in given)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": vector
            if form == "float"
            else base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *vector)).decode(),
        }
        for index, vector in enumerate(vectors)
    ]
    return {
        "object": "list", "data": data, "model": MODEL, "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }  # fmt: skip


def _embedding(text: Any) -> list[float]:
    digest = hashlib.sha256(json.dumps(text).encode()).digest()
    vector = [byte / 128 - 1 for byte in digest[:DIMENSIONS]]
    length = sum(value * value for value in vector) ** 0.5
    return [value / length for value in vector]
