"""LangChain's ChatOpenAI."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from driver import BASE, TOOL, serve, versions
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    city: str


def make(key: str, model: str, retries: int = 0, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=f"{BASE}/v1", api_key=key, max_retries=retries, timeout=30, **more)


def chat(key: str, model: str, prompt: str, max_tokens: int = 20, retries: int = 0) -> str:
    return str(make(key, model, retries, max_tokens=max_tokens).invoke(prompt).content)


def stream(key: str, model: str, prompt: str) -> list[tuple[float, str]]:
    began = time.monotonic()
    chunks = make(key, model).stream(prompt)
    return [(time.monotonic() - began, chunk.content) for chunk in chunks if chunk.content]


def leave(key: str, model: str, prompt: str) -> str:
    for chunk in make(key, model).stream(prompt):
        if chunk.content:
            return str(chunk.content)
    raise AssertionError("no piece came")


def asynchronous(key: str, model: str) -> str:
    async def pieces() -> list[Any]:
        return [chunk.content async for chunk in make(key, model).astream("Say hello.")]

    return "".join(asyncio.run(pieces()))


def usage(key: str, model: str) -> int:
    chunks = list(make(key, model, stream_usage=True).stream("Say hello."))
    return next(chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata)


def tools(key: str, model: str) -> dict[str, str]:
    tool = {"type": "function", "function": TOOL}
    return make(key, model).bind_tools([tool]).invoke("Say hello.").tool_calls[0]["args"]


def tools_stream(key: str, model: str) -> dict[str, str]:
    tool = {"type": "function", "function": TOOL}
    chunks = list(make(key, model).bind_tools([tool]).stream("Say hello."))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole.tool_calls[0]["args"]


def structured(key: str, model: str) -> str:
    return str(make(key, model).with_structured_output(City).invoke("Say hello.").city)


def responses(key: str, model: str) -> str:
    return str(make(key, model, use_responses_api=True).invoke("Say hello.").text)


def batch(key: str, model: str) -> list[str]:
    return [str(answer.content) for answer in make(key, model).batch(["Say hello."] * 3)]


def embeddings(key: str, model: str) -> list[float]:
    made = OpenAIEmbeddings(model=model, base_url=f"{BASE}/v1", api_key=key, check_embedding_ctx_length=False)
    return made.embed_documents(["a", "b"])[1]


OPERATIONS = {name: value for name, value in list(globals().items()) if getattr(value, "__module__", "") == "__main__"}
if __name__ == "__main__":
    serve({**OPERATIONS, "version": versions("langchain-openai", "openai")})
