"""Helpers that send one request and return the answer."""

from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

ATTEMPTS = 3


def user(content: str) -> ChatCompletionMessageParam:
    """Return a user message."""
    return {"role": "user", "content": content}


def ask(client: OpenAI, model: str, *messages: Any, **options: Any) -> ChatCompletion:
    """Return the answer to a conversation, by default of at most 16 tokens with temperature 0."""
    options = {"max_tokens": 16, "temperature": 0} | options
    answer: ChatCompletion = client.chat.completions.create(model=model, messages=list(messages), **options)
    return answer


def stream(client: OpenAI, model: str, *messages: Any, **options: Any) -> list[ChatCompletionChunk]:
    """Return the chunks of a streamed answer, by default of at most 24 tokens with temperature 0."""
    options = {"max_tokens": 24, "temperature": 0} | options
    return list(client.chat.completions.create(model=model, messages=list(messages), stream=True, **options))


def assert_usage_adds_up(usage: Any) -> None:
    """Assert that prompt and completion tokens are positive and add up to the total."""
    assert usage is not None, "no usage"
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
