"""Anthropic's Python SDK: /v1/messages, with the key in x-api-key."""

from __future__ import annotations

import time
from typing import Any

import anthropic
from driver import BASE, HELLO, PARAMETERS, serve, versions

TOOL = {"name": "weather", "description": "The weather of a city.", "input_schema": PARAMETERS}


def make(key: str, retries: int = 0, **more: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(**{"base_url": BASE, "api_key": key, "max_retries": retries, "timeout": 30, **more})


def messages(prompt: str) -> Any:
    return [{"role": "user", "content": prompt}]


def chat(key: str, model: str, prompt: str, max_tokens: int = 20, retries: int = 0) -> str:
    client = make(key, retries)
    return client.messages.create(model=model, max_tokens=max_tokens, messages=messages(prompt)).content[0].text


def stream(key: str, model: str, prompt: str) -> list[tuple[float, str]]:
    began = time.monotonic()
    with make(key).messages.stream(model=model, max_tokens=20, messages=messages(prompt)) as events:
        return [(time.monotonic() - began, text) for text in events.text_stream]


def leave(key: str, model: str, prompt: str) -> str:
    with make(key).messages.stream(model=model, max_tokens=20, messages=messages(prompt)) as events:
        return next(iter(events.text_stream))


def models(key: str, model: str) -> list[str]:
    return [card.id for card in make(key).models.list().data]


def retrieve(key: str, model: str) -> str:
    return make(key).models.retrieve(model).id


def count_tokens(key: str, model: str) -> bool:
    return make(key).messages.count_tokens(model=model, messages=messages("Say hello.")).input_tokens > 0


def bearer(key: str, model: str) -> str:
    """`auth_token` sends Authorization: Bearer instead, as Claude Code's ANTHROPIC_AUTH_TOKEN does."""
    client = anthropic.Anthropic(base_url=BASE, auth_token=key, api_key=None, max_retries=0)
    return client.messages.create(model=model, max_tokens=20, messages=HELLO).content[0].text


def tools(key: str, model: str) -> dict[str, str]:
    answer = make(key).messages.create(model=model, max_tokens=20, messages=HELLO, tools=[TOOL])
    return answer.content[0].input


def tools_stream(key: str, model: str) -> dict[str, str]:
    with make(key).messages.stream(model=model, max_tokens=20, messages=HELLO, tools=[TOOL]) as events:
        return events.get_final_message().content[0].input


def beta(key: str, model: str) -> str:
    """`client.beta` adds ?beta=true and the header anthropic-beta."""
    create = make(key).beta.messages.create
    return create(model=model, max_tokens=20, messages=HELLO, betas=["context-1m-2025-08-07"]).content[0].text


def empty_key(key: str, model: str) -> str:
    return chat("", model, "Say hello.")


OPERATIONS = {name: value for name, value in list(globals().items()) if getattr(value, "__module__", "") == "__main__"}
if __name__ == "__main__":
    serve({**OPERATIONS, "version": versions("anthropic")})
