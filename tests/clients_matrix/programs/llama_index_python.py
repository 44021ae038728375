"""LlamaIndex's OpenAILike."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

from driver import BASE, serve, versions
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike


def make(key: str, model: str, retries: int = 0, max_tokens: int = 20) -> OpenAILike:
    return OpenAILike(
        model=model,
        api_base=f"{BASE}/v1",
        api_key=key,
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=8192,
        max_retries=retries,
        max_tokens=max_tokens,
        timeout=30,
    )


def messages(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=prompt)]


def chat(key: str, model: str, prompt: str, max_tokens: int = 20, retries: int = 0) -> str:
    return str(make(key, model, retries, max_tokens).chat(messages(prompt)).message.content)


def stream(key: str, model: str, prompt: str) -> list[tuple[float, str]]:
    began = time.monotonic()
    events = make(key, model).stream_chat(messages(prompt))
    return [(time.monotonic() - began, event.delta) for event in events if event.delta]


def leave(key: str, model: str, prompt: str) -> str:
    """Its generator closes nothing: the SDK's stream below it is closed when it is collected."""
    events = make(key, model).stream_chat(messages(prompt))
    first = next(event.delta for event in events if event.delta)
    del events
    gc.collect()
    return str(first)


def complete(key: str, model: str) -> str:
    return str(make(key, model).complete("Say hello.").text)


def asynchronous(key: str, model: str) -> str:
    async def ask() -> Any:
        return await make(key, model).achat(messages("Say hello."))

    return str(asyncio.run(ask()).message.content)


def tools(key: str, model: str) -> dict[str, str]:
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    tool = FunctionTool.from_defaults(weather)
    llm = make(key, model)
    answer = llm.chat_with_tools([tool], user_msg="Say hello.")
    return llm.get_tool_calls_from_response(answer)[0].tool_kwargs


def embeddings(key: str, model: str) -> list[float]:
    made = OpenAILikeEmbedding(model_name=model, api_base=f"{BASE}/v1", api_key=key)
    return made.get_text_embedding_batch(["a", "b"])[1]


OPERATIONS = {name: value for name, value in list(globals().items()) if getattr(value, "__module__", "") == "__main__"}
if __name__ == "__main__":
    serve({**OPERATIONS, "version": versions("llama-index-llms-openai-like", "openai")})
