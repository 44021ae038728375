"""OpenAI's Python SDK. The argument: sync, async or azure."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import openai
from driver import BASE, HELLO, TOOL, serve, versions
from pydantic import BaseModel

KIND = sys.argv[1]
LOOP = asyncio.new_event_loop()
MESSAGE = "user"


class City(BaseModel):
    """What a structured answer holds."""

    city: str


def make(key: str, retries: int = 0, **more: Any) -> Any:
    """A client."""
    options: dict[str, Any] = {"api_key": key, "max_retries": retries, "timeout": 30, **more}
    if KIND == "azure":
        return openai.AzureOpenAI(azure_endpoint=BASE, api_version="2024-10-21", **options)
    return (openai.AsyncOpenAI if KIND == "async" else openai.OpenAI)(**{"base_url": f"{BASE}/v1", **options})


def done(result: Any) -> Any:
    """The result of a call, awaited where the client is asynchronous."""
    return LOOP.run_until_complete(result) if KIND == "async" else result


def each(stream: Any) -> Any:
    """The events of a stream one by one."""
    if KIND != "async":
        yield from stream
        return
    iterator = aiter(stream)
    while True:
        try:
            yield LOOP.run_until_complete(anext(iterator))
        except StopAsyncIteration:
            return


def messages(prompt: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": MESSAGE, "content": prompt}]


def chat(key: str, model: str, prompt: str, max_tokens: int = 20, retries: int = 0) -> str:
    """A whole answer."""
    client = make(key, retries)
    answer = done(client.chat.completions.create(model=model, messages=messages(prompt), max_tokens=max_tokens))
    return str(answer.choices[0].message.content)


def stream(key: str, model: str, prompt: str) -> list[tuple[float, str]]:
    """The pieces of an answer and when they came."""
    began = time.monotonic()
    events = done(make(key).chat.completions.create(model=model, messages=messages(prompt), stream=True))
    pieces = []
    for event in each(events):
        if event.choices and event.choices[0].delta.content:
            pieces.append((time.monotonic() - began, event.choices[0].delta.content))
    return pieces


def leave(key: str, model: str, prompt: str) -> str:
    """Close a stream after its first piece."""
    events = done(make(key).chat.completions.create(model=model, messages=messages(prompt), stream=True))
    for event in each(events):
        if event.choices and event.choices[0].delta.content:
            done(events.close())
            return str(event.choices[0].delta.content)
    raise AssertionError("no piece came")


def models(key: str, model: str) -> list[str]:
    """Names of the models."""
    page = done(make(key).models.list())
    return [card.id for card in page.data]


def retrieve(key: str, model: str) -> str:
    """One model by its name; the SDK writes the slash as %2F."""
    return str(done(make(key).models.retrieve(model)).id)


def responses(key: str, model: str) -> str:
    return str(done(make(key).responses.create(model=model, input="Say hello.")).output_text)


def responses_stream(key: str, model: str) -> str:
    events = done(make(key).responses.create(model=model, input="Say hello.", stream=True))
    return "".join(event.delta for event in each(events) if event.type == "response.output_text.delta")


def completions(key: str, model: str) -> str:
    return str(done(make(key).completions.create(model=model, prompt="Say hello.")).choices[0].text)


def embeddings(key: str, model: str) -> list[float]:
    return list(done(make(key).embeddings.create(model=model, input=["a", "b"])).data[1].embedding)


def usage(key: str, model: str) -> int:
    options = {"include_usage": True}
    client = make(key)
    events = done(client.chat.completions.create(model=model, messages=HELLO, stream=True, stream_options=options))
    return [event.usage.total_tokens for event in each(events) if event.usage][-1]


def tools(key: str, model: str) -> str:
    tool = {"type": "function", "function": TOOL}
    answer = done(make(key).chat.completions.create(model=model, messages=HELLO, tools=[tool]))
    return str(answer.choices[0].message.tool_calls[0].function.arguments)


def tools_stream(key: str, model: str) -> str:
    tool = {"type": "function", "function": TOOL}
    events = done(make(key).chat.completions.create(model=model, messages=HELLO, tools=[tool], stream=True))
    calls = [call for event in each(events) if event.choices for call in event.choices[0].delta.tool_calls or []]
    return "".join(call.function.arguments for call in calls)


def structured(key: str, model: str) -> str:
    answer = done(make(key).chat.completions.parse(model=model, messages=HELLO, response_format=City))
    return str(answer.choices[0].message.parsed.city)


def raw_response(key: str, model: str) -> bool:
    raw = done(make(key).chat.completions.with_raw_response.create(model=model, messages=HELLO))
    return bool(raw.headers["x-request-id"]) and raw.parse().choices[0].message.content is not None


def streaming_response(key: str, model: str) -> str:
    """Lines as they come, without the SDK's parser."""

    async def lines() -> list[str]:
        made = make(key).chat.completions.with_streaming_response.create(model=model, messages=HELLO, stream=True)
        async with made as answer:
            return [line async for line in answer.iter_lines()]

    if KIND == "async":
        return LOOP.run_until_complete(lines())[-2]
    with make(key).chat.completions.with_streaming_response.create(model=model, messages=HELLO, stream=True) as answer:
        return [line for line in answer.iter_lines() if line][-1]


def default_headers(key: str, model: str) -> str:
    """Headers that other gateways ask for must do no harm."""
    more = {"x-client": "matrix", "OpenAI-Beta": "assistants=v2", "api-key": "", "cookie": "a=b"}
    client = make(key, default_headers=more, organization="org-1", project="proj-1")
    return str(done(client.chat.completions.create(model=model, messages=HELLO)).choices[0].message.content)


def key_after_a_space(key: str, model: str) -> str:
    return str(done(make(f" {key}").chat.completions.create(model=model, messages=HELLO)).choices[0].message.content)


def key_with_a_newline(key: str, model: str) -> str:
    return str(done(make(f"{key}\n").chat.completions.create(model=model, messages=HELLO)).choices[0].message.content)


def empty_key(key: str, model: str) -> str:
    return str(done(make("").chat.completions.create(model=model, messages=HELLO)).choices[0].message.content)


def alias(key: str, model: str) -> str:
    """Another of the model's names."""
    return chat(key, "fast", "Say hello.")


def trailing_slash(key: str, model: str) -> str:
    client = make(key, base_url=f"{BASE}/v1/") if KIND != "azure" else make(key)
    return str(done(client.chat.completions.create(model=model, messages=HELLO)).choices[0].message.content)


def raw_slash(key: str, model: str) -> str:
    """A model's name with a slash that is not encoded, as in hand-written clients."""
    return str(done(make(key).get(f"/models/{model}", cast_to=object))["id"])


OPERATIONS: dict[str, Callable[..., Any]] = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == "__main__"
}
if __name__ == "__main__":
    serve({**OPERATIONS, "version": versions("openai")})
