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
    body = response.json()
    error = body.get("error") if isinstance(body, dict) else None
    assert isinstance(error, dict), f"no error object: {response.text[:200]}"
    assert isinstance(error.get("message"), str), f"no message: {response.text[:200]}"
    assert error["message"], "the error's message is empty"
    assert "type" in error, f"no type: {response.text[:200]}"
