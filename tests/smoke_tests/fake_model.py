"""The fake server's model: deterministic nonsense, one word a token, according to the parameters of the request."""

import base64
import hashlib
import json
import random
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

MODEL = "fake/model"
CONTEXT_TOKENS = 2048
TOKENS_OF_TEMPLATE = 4
TOKENS_OF_A_PICTURE = 16
LONGEST_ANSWER_TOKENS = 200
DEFAULT_TEXT_COMPLETION_TOKENS = 16
MOST_IMAGES = 5

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
    if (body.get("temperature") or 0) > 0 and (body.get("top_p") or 1) > 0.01:
        asked += f"{index}{body['seed'] if body.get('seed') is not None else random.random()}"  # noqa: S311
    default = DEFAULT_TEXT_COMPLETION_TOKENS if "prompt" in body else LONGEST_ANSWER_TOKENS
    limit = limit_of(body) or default
    if not body.get("ignore_eos"):
        limit = min(limit, LONGEST_ANSWER_TOKENS)
    if favoured := [token for token, bias in (body.get("logit_bias") or {}).items() if bias >= 100]:
        return [f" <{favoured[0]}>"] * limit
    seed = hashlib.sha256(asked.encode()).hexdigest()
    return [f" {seed[position % 60 : position % 60 + 4]}" for position in range(limit)]


def limit_of(body: Body) -> int | None:
    """Return the most tokens that a request allows, None if it sets no limit."""
    return body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens")


def logprobs(token: str, count: int, upside_down: bool) -> Body:
    """Return a token's log probabilities in the chat format."""
    texts = [f"{token}{number or ''}" for number in range(count)]
    top = [
        {"token": text, "logprob": -0.5 - 2 * number, "bytes": list(text.encode())} for number, text in enumerate(texts)
    ]
    own = {"token": token, "logprob": -0.5, "bytes": list(token.encode())}
    return own | {"top_logprobs": top[::-1] if upside_down else top}


def instance(schema: Body, root: Body) -> Any:
    """Return a value that matches a JSON schema, as far as the conformance tests use them."""
    if "$ref" in schema:
        return instance(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return instance(schema["anyOf"][0], root)
    if "enum" in schema:
        return schema["enum"][-1]
    match schema.get("type"):
        case "object":
            return {name: instance(each, root) for name, each in schema.get("properties", {}).items()}
        case "array":
            return [instance(schema["items"], root)] * schema["minItems"]
        case "integer":
            return schema["maximum"]
        case kind:
            return {"boolean": True, "null": None}.get(str(kind), "text")


def calls_of(body: Body, has: Has) -> list[Body]:
    """Return the tool calls that answer a request; empty if text answers it."""
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body.get("tools") or ()}
    choice = body.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        names = ["another" if has("calls_another_tool") else choice["function"]["name"]]
    elif choice == "required" and not has("calls_no_tool_that_must_be"):
        names = list(tools)
    elif choice == "auto" and body.get("messages"):
        names = [name for name in tools if name in str(body["messages"][-1].get("content"))]
    else:
        names = []
    if body.get("parallel_tool_calls") is False:
        names = names[:1]
    values = {name: instance(tools.get(name, {"type": "object"}), {}) for name in names}
    return [
        {
            "id": f"call_{uuid.uuid4().hex}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(value)},
        }
        for name, value in values.items()
    ]


def _structured(body: Body, has: Has) -> str | None:
    form = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    if has("ignores_schemas") or (has("ignores_schemas_in_streams") and body.get("stream")):
        return None
    if form.get("type") == "json_object":
        return json.dumps({"answer": "text"})
    if form.get("type") != "json_schema":
        return None
    schema: Body = (form.get("json_schema") or form)["schema"]
    return json.dumps(instance(schema, schema), ensure_ascii=False)


def cut(pieces: list[str], body: Body) -> tuple[list[str], bool]:
    """Return the pieces that max_tokens allows, and whether that cuts the answer."""
    limit = limit_of(body) or len(pieces)
    return pieces[:limit], len(pieces) > limit


def says(body: Body, has: Has, index: int = 0) -> tuple[list[str], str]:
    """Return the tokens of one answer and its finish_reason."""
    if has("answers_nothing"):
        return [], "stop"
    if (text := _structured(body, has)) is not None:
        pieces, is_cut = cut([text[at : at + 4] for at in range(0, len(text), 4)], body)
        return pieces, "length" if is_cut else "stop"
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
    stops = body.get("stop") or []
    found = [("".join(tokens).find(stop), stop) for stop in ([stops] if isinstance(stops, str) else stops)]
    found = [(at, stop) for at, stop in found if at >= 0]
    if found and not has("ignores_stop"):
        at, stop = min(found)
        return _first(tokens, at + (len(stop) if has("says_the_stop_text") else 0)), "stop"
    return tokens, "length" if limit_of(body) or "prompt" in body else "stop"


def _first(tokens: list[str], length: int) -> list[str]:
    """Return the tokens of the first characters of a text."""
    kept = []
    for token in tokens:
        kept.append(token[:length])
        length -= len(kept[-1])
        if not length:
            break
    return kept


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
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and "messages" not in body:
        is_tokens = isinstance(prompt[0], int)
        return len(prompt) if is_tokens else sum(prompt_tokens(body | {"prompt": each}, has) for each in prompt)
    if not isinstance(turns, list):
        return len(str(body.get("prompt") or turns or "").split()) + (
            0 if has("ignores_instructions") else len(str(body.get("instructions") or "").split())
        )
    if has("forgets_the_conversation") or (has("ignores_instructions") and "input" in body):
        turns = turns[-1:]
    if has("ignores_results_of_tools"):
        turns = [turn for turn in turns if turn.get("role") != "tool"]
    contents = [turn.get("content") or turn.get("output") for turn in turns]
    return sum(_content_tokens(content, has) + TOKENS_OF_TEMPLATE for content in contents)


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
    limits = (body.get(name) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"))
    return (
        not _is_number(body.get("temperature"), 0, 2)
        or not 0 < (1 if body.get("top_p") is None else body["top_p"]) <= 1
        or any(limit is not None and not (isinstance(limit, int) and limit > 0) for limit in limits)
        or (1 if body.get("n") is None else body["n"]) < 1
        or abs(body.get("presence_penalty") or 0) > 2
        or abs(body.get("frequency_penalty") or 0) > 2
        or not isinstance(body.get("stop") or [], list | str)
        or not isinstance(body.get("seed") or 0, int)
        or not isinstance(body.get("stream") or False, bool)
        or not all(token.isdigit() for token in body.get("logit_bias") or {})
        or form not in ("text", "json_object", "json_schema")
        or not isinstance(body.get("messages", body.get("prompt", body.get("input", 0))), list | str)
        or isinstance(body.get("messages"), str)
        or body.get("messages") == []
        or (body.get("top_logprobs") or 0) > (20 if body.get("logprobs") else 0)
        or (bool(body.get("stream_options")) and not body.get("stream"))
        or _has_bad_tools(body)
    )


def _is_number(value: Any, least: float, most: float) -> bool:
    return value is None or (isinstance(value, int | float) and least <= value <= most)


def _has_bad_tools(body: Body) -> bool:
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools is not None and any("name" not in tool.get("function", tool) for tool in tools):
        return True
    if isinstance(choice, dict):
        return choice["function"]["name"] not in [tool["function"]["name"] for tool in tools or ()]
    return choice not in (None, "none", "auto", "required") or (choice == "required" and not tools)


def has_wrong_schema(body: Body) -> bool:
    """Whether the request has an invalid JSON schema."""
    schema = (body.get("response_format") or {}).get("json_schema") or {}
    return bool((schema.get("schema") or {}).get("type") == "nonsense")
