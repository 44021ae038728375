"""LiteLLM as an SDK."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import litellm
from driver import BASE, HELLO, PARAMETERS, TOOL, serve, versions

litellm.suppress_debug_info = True


def options(key: str, model: str, retries: int = 0) -> dict[str, Any]:
    return {
        "model": f"openai/{model}",
        "api_base": f"{BASE}/v1",
        "api_key": key,
        "max_retries": retries,
        "timeout": 30,
    }


def messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def chat(key: str, model: str, prompt: str, max_tokens: int = 20, retries: int = 0) -> str:
    answer = litellm.completion(messages=messages(prompt), max_tokens=max_tokens, **options(key, model, retries))
    return str(answer.choices[0].message.content)


def stream(key: str, model: str, prompt: str) -> list[tuple[float, str]]:
    began = time.monotonic()
    events = litellm.completion(messages=messages(prompt), stream=True, **options(key, model))
    texts = ((time.monotonic() - began, event.choices[0].delta.content) for event in events if event.choices)
    return [(seconds, text) for seconds, text in texts if text]


def leave(key: str, model: str, prompt: str) -> str:
    events = litellm.completion(messages=messages(prompt), stream=True, **options(key, model))
    first = next(event.choices[0].delta.content for event in events if event.choices and event.choices[0].delta.content)
    events.close()
    return str(first)


def models(key: str, model: str) -> list[str]:
    """What LiteLLM finds at the endpoint."""
    return litellm.get_valid_models(
        check_provider_endpoint=True, custom_llm_provider="openai", api_base=f"{BASE}/v1", api_key=key
    )


def asynchronous(key: str, model: str) -> str:
    async def ask() -> str:
        events = await litellm.acompletion(messages=HELLO, stream=True, **options(key, model))
        return "".join([event.choices[0].delta.content or "" async for event in events])

    return asyncio.run(ask())


def health_check(key: str, model: str) -> bool:
    """The proxy's check of a model: a paid chat call, for which the proxy adds `max_tokens`."""
    result = asyncio.run(litellm.ahealth_check(options(key, model) | {"max_tokens": 16}, mode="chat"))
    if "error" in result:
        raise RuntimeError(result["error"])
    return True


def hosted_vllm(key: str, model: str) -> str:
    asked = options(key, model) | {"model": f"hosted_vllm/{model}"}
    return str(litellm.completion(messages=HELLO, **asked).choices[0].message.content)


def anthropic_route(key: str, model: str) -> str:
    """Provider `anthropic`: /v1/messages with x-api-key."""
    asked = options(key, model) | {"model": f"anthropic/{model}", "api_base": BASE}
    return str(litellm.completion(messages=HELLO, max_tokens=20, **asked).choices[0].message.content)


def usage(key: str, model: str) -> int:
    events = litellm.completion(
        messages=HELLO, stream=True, stream_options={"include_usage": True}, **options(key, model)
    )
    return [event.usage.total_tokens for event in events if getattr(event, "usage", None)][-1]


def tools(key: str, model: str) -> str:
    tool = {"type": "function", "function": TOOL | {"parameters": PARAMETERS}}
    answer = litellm.completion(messages=HELLO, tools=[tool], **options(key, model))
    return str(answer.choices[0].message.tool_calls[0].function.arguments)


def embeddings(key: str, model: str) -> list[float]:
    return list(
        litellm.embedding(input=["a", "b"], encoding_format="float", **options(key, model)).data[1]["embedding"]
    )


def responses(key: str, model: str) -> str:
    asked = options(key, model)
    asked.pop("max_retries")
    answer = litellm.responses(input="Say hello.", **asked)
    return str(answer.output[0].content[0].text)


OPERATIONS = {name: value for name, value in list(globals().items()) if getattr(value, "__module__", "") == "__main__"}
if __name__ == "__main__":
    serve({**OPERATIONS, "version": versions("litellm", "openai")})
