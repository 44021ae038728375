"""The fake server's model: deterministic nonsense, one word a token, according to the parameters of the request."""

import base64
import hashlib
import json
import random
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

MODEL = "fake/model"
CONTEXT_TOKENS = 2048
TOKENS_OF_TEMPLATE = 4
TOKENS_OF_A_PICTURE = 16
LONGEST_ANSWER_TOKENS = 200
MOST_IMAGES = 5
VALUE = {"city": "Rome", "stars": 4, "open": True}

Has = Callable[[str], bool]
Body = dict[str, Any]


class RefusalError(Exception):
    """The request is rejected with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def answer_tokens(body: Body, index: int = 0) -> list[str]:
    """Return the words that answer a request: the same for the same conversation, unless temperature is set."""
    asked = json.dumps(body.get("messages") or body.get("prompt") or body.get("input"))
    if (body.get("temperature") or 0) > 0:
        asked += f"{index}{body['seed'] if body.get('seed') is not None else random.random()}"  # noqa: S311
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens") or 16
    if not body.get("ignore_eos"):
        limit = min(limit, LONGEST_ANSWER_TOKENS)
    seed = hashlib.sha256(asked.encode()).hexdigest()
    return [f" {seed[position % 60 : position % 60 + 4]}" for position in range(limit)]


def logprobs(token: str, count: int, upside_down: bool) -> Body:
    """Return a token's log probabilities in the chat format."""
    top = [{"token": f"{token}{n or ''}", "logprob": -0.5 - 2 * n, "bytes": None} for n in range(count)]
    return {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": top[::-1] if upside_down else top}


def call_of(body: Body, has: Has) -> Body | None:
    """Return the tool call that answers a request, or None if text answers it."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        name = "another" if has("calls_another_tool") else choice["function"]["name"]
    elif choice == "required" and not has("calls_no_tool_that_must_be"):
        name = body["tools"][0]["function"]["name"]
    else:
        return None
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": json.dumps(VALUE)}}


def says(body: Body, has: Has, index: int = 0) -> tuple[list[str], str]:
    """Return the tokens of one answer and its finish_reason."""
    if has("answers_nothing"):
        return [], "stop"
    schema = (body.get("response_format") or {}).get("type") == "json_schema"
    ignored = has("ignores_schemas") or (has("ignores_schemas_in_streams") and body.get("stream"))
    if schema and not ignored:
        text = json.dumps(VALUE)
        return [text[at : at + 4] for at in range(0, len(text), 4)], "stop"
    if has("ignores_max_tokens") or has("hides_how_much_it_says"):
        body = body | {"max_tokens": 100}
    if has("knows_max_tokens_by_its_old_name_alone"):
        body = {name: value for name, value in body.items() if name != "max_completion_tokens"}
    if has("ignores_the_temperature"):
        body = body | {"temperature": 0}
    if has("ignores_the_seed"):
        body = body | {"seed": None}
    seen = _as_seen(body, has)
    tokens = answer_tokens(seen, index)
    if body.get("echo"):
        prompt = str(body["prompt"])
        tokens = [prompt.encode().decode("latin-1") if has("mangles_foreign_text") else prompt, *tokens]
    if body.get("stop") and not has("ignores_stop"):
        text, stop = "".join(tokens), body["stop"][0]
        if stop in text:
            return [text[: text.find(stop) + (len(stop) if has("says_the_stop_text") else 0)]], "stop"
    return tokens, "length"


def _as_seen(body: Body, has: Has) -> Body:
    """Return the request with each URL replaced by the media that it refers to."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body
    seen = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            content = [_picture(part, has) if "text" not in part else part for part in content]
            if has("mixes_up_images"):
                content = sorted(content, key=json.dumps)
        seen.append(message | {"content": content})
    return body | {"messages": seen}


def _picture(part: Body, has: Has) -> Body:
    kind = part["type"].removesuffix("_url")
    if has(f"drops_{kind}s") or has(f"does_not_look_at_{kind}s"):
        return {}
    url = part[part["type"]]["url"]
    if url.startswith("http"):
        return {kind: "fetched"}
    return {kind: url}


def check_pictures(body: Body, has: Has) -> None:
    """Reject invalid pictures; raises RefusalError."""
    pictures = [part for part in _parts(body) if "text" not in part]
    images = [part for part in pictures if part["type"] == "image_url"]
    if len(images) > MOST_IMAGES and not has("takes_any_number_of_images"):
        raise RefusalError(400, f"At most {MOST_IMAGES} image(s) may be provided in one prompt.")
    for part in pictures:
        kind, url = part["type"].removesuffix("_url"), part[part["type"]]["url"]
        if url.startswith("file:") or any(name in url for name in ("169.254", "2852039166", "internal")):
            raise RefusalError(500 if has("fetches_internal_addresses") else 400, "not an address of a public host")
        if url.startswith("http"):
            if has(f"fetches_no_{kind}s"):
                raise RefusalError(400, "addresses are not fetched")
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except (OSError, urllib.error.URLError):
                raise RefusalError(500, "cannot connect") from None
        elif kind == "image" and not base64.b64decode(url.partition(",")[2]).startswith(b"\x89PNG"):
            raise RefusalError(500 if has("fails_on_broken_images") else 400, "cannot identify image file")


def _parts(body: Body) -> list[Body]:
    messages = body.get("messages")
    contents = [message.get("content") for message in messages] if isinstance(messages, list) else []
    return [part for content in contents if isinstance(content, list) for part in content]


def prompt_tokens(body: Body, has: Has) -> int:
    """Return the prompt tokens of a request: words, pictures and the template."""
    turns = body.get("messages") or body.get("input")
    if not isinstance(turns, list):
        return len(str(body.get("prompt") or turns or "").split()) + (
            0 if has("ignores_instructions") else len(str(body.get("instructions") or "").split())
        )
    if has("forgets_the_conversation") or (has("ignores_instructions") and "input" in body):
        turns = turns[-1:]
    if has("ignores_results_of_tools"):
        turns = [turn for turn in turns if turn["role"] != "tool"]
    return sum(_content_tokens(turn.get("content"), has) + TOKENS_OF_TEMPLATE for turn in turns)


def _content_tokens(content: Any, has: Has) -> int:
    if not isinstance(content, list):
        return len(str(content or "").split())
    tokens = 0
    for part in content[-1:] if has("reads_the_last_part_alone") else content:
        if "text" in part:
            tokens += len(part["text"].split())
        elif not has(f"drops_{part['type'].removesuffix('_url')}s"):
            tokens += TOKENS_OF_A_PICTURE
    return tokens


def is_bad(body: Body) -> bool:
    """Whether a parameter is out of range or has the wrong type."""
    form = (body.get("response_format") or {"type": "text"}).get("type")
    return (
        not 0 <= (body.get("temperature") or 0) <= 2
        or not 0 < (body.get("top_p") or 1) <= 1
        or (body.get("max_tokens") or 1) < 1
        or body.get("n", 1) < 1
        or abs(body.get("presence_penalty") or 0) > 2
        or not isinstance(body.get("stop") or [], list | str)
        or not isinstance(body.get("seed") or 0, int)
        or not isinstance(body.get("stream") or False, bool)
        or not all(token.isdigit() for token in body.get("logit_bias") or {})
        or form not in ("text", "json_object", "json_schema")
        or not isinstance(body.get("messages", body.get("prompt", body.get("input", 0))), list | str)
        or isinstance(body.get("messages"), str)
    )


def has_wrong_schema(body: Body) -> bool:
    """Whether the request has an invalid JSON schema."""
    schema = (body.get("response_format") or {}).get("json_schema") or {}
    return bool((schema.get("schema") or {}).get("type") == "nonsense")
