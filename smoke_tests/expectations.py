"""Assertions and accessors that several tests share."""

from typing import Any

import httpx2


def answer_text(message: Any) -> str:
    """Return the text of a chat message or a streamed delta, including reasoning."""
    parts = (getattr(message, name, None) for name in ("reasoning", "reasoning_content", "content"))
    return "".join(part for part in parts if part)


def assert_openai_error(response: httpx2.Response, status: int) -> None:
    """Assert that `response` has `status` and OpenAI's error body, which every SDK can parse."""
    assert response.status_code == status, f"HTTP {response.status_code}: {response.text[:200]}"
    content_type = response.headers.get("content-type", "")
    assert content_type.startswith("application/json"), f"the error has content type {content_type!r}"
    body = response.json()
    error = body.get("error") if isinstance(body, dict) else None
    assert isinstance(error, dict), f"no error object: {response.text[:200]}"
    for field in ("message", "type"):
        assert isinstance(error.get(field), str), f"no {field}: {response.text[:200]}"
        assert error[field], f"the error's {field} is empty"
    for field in ("param", "code"):
        assert field in error, f"no {field}: {response.text[:200]}"
    assert error["param"] is None or isinstance(error["param"], str), f"param is {error['param']!r}"
    assert error["code"] is None or isinstance(error["code"], str | int), f"code is {error['code']!r}"


def answer_text_of(message: dict[str, Any]) -> str:
    """Return the text of a message, including reasoning."""
    return "".join(str(message.get(name) or "") for name in ("reasoning", "reasoning_content", "content"))


def assert_usage(usage: Any) -> None:
    """Assert that the token counts are integers and add up."""
    assert isinstance(usage, dict), f"usage is {usage!r}"
    prompt, completion, total = (usage[f"{name}_tokens"] for name in ("prompt", "completion", "total"))
    assert type(prompt) is type(completion) is type(total) is int, f"usage is not in integers: {usage}"
    assert prompt > 0
    assert completion > 0
    assert total == prompt + completion, f"the usage does not add up: {usage}"
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    assert 0 <= cached <= prompt, f"{cached} of {prompt} prompt tokens are cached"
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    assert 0 <= reasoning <= completion, f"{reasoning} of {completion} completion tokens are reasoning"
