"""Concurrent clients, and clients that disconnect."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion

from smoke_tests.asking import ask, stream, user
from smoke_tests.expectations import answer_text

pytestmark = pytest.mark.usefixtures("text")

AT_ONCE = 16
LEAVERS = 8
# Far less than the time that any model needs for an answer as long as the context.
GONE_SECONDS = 5.0
LEAVERS_TOKENS = 4096


def test_sixteen_at_once(client: OpenAI, model: str) -> None:
    """Sixteen concurrent requests are all answered, and no answer goes to another request."""

    def ask_with_words(count: int) -> ChatCompletion:
        return ask(client, model, user("word " * count))

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(ask_with_words, [20 * (number + 1) for number in range(AT_ONCE)]))
    prompt_tokens = [answer.usage.prompt_tokens for answer in answers if answer.usage is not None]
    assert len(prompt_tokens) == AT_ONCE
    # Each prompt is longer than the one before: an answer to the wrong request has the wrong usage.
    assert prompt_tokens == sorted(set(prompt_tokens)), f"answers went to the wrong requests: {prompt_tokens}"
    assert len({answer.id for answer in answers}) == AT_ONCE, "two answers share an id"


def test_sixteen_streams_at_once(client: OpenAI, model: str) -> None:
    """Sixteen concurrent streams are all complete, and none contains a chunk of another."""

    def whole(number: int) -> tuple[set[str], str, Any]:
        chunks = stream(client, model, user(f"Count to {number}."), max_tokens=16)
        choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
        return {chunk.id for chunk in chunks}, "".join(answer_text(choice.delta) for choice in choices), choices[-1]

    with ThreadPoolExecutor(AT_ONCE) as threads:
        streams = list(threads.map(whole, range(AT_ONCE)))
    assert all(len(ids) == 1 for ids, _, _ in streams), "a stream contains a chunk of another"
    assert all(text for _, text, _ in streams), "a stream is empty"
    assert all(last.finish_reason for _, _, last in streams), "a stream ended without a finish_reason"


def test_a_client_that_leaves_is_stopped(
    http: httpx2.Client, model: str, info: dict[str, Any], context_tokens: int | None
) -> None:
    """A request ends as soon as its client disconnects, and others are served."""
    if not isinstance(info.get("requests"), dict):
        pytest.skip("/info does not report how many requests are running")
    before = _running(http)
    body: dict[str, Any] = {"model": model, "messages": [user("Count from 1 to 9999, in words.")]}
    # Long enough to be still running when /info is read.
    tokens = context_tokens // 2 if context_tokens else LEAVERS_TOKENS
    body |= {"max_tokens": tokens, "stream": True, "ignore_eos": True, "temperature": 0}
    for _ in range(LEAVERS):
        # Leaving a stream before its end closes the connection.
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200, f"HTTP {response.status_code}"
            assert any(line.startswith("data:") for line in response.iter_lines())
    left = time.monotonic()
    while (running := _running(http)) > before:
        assert time.monotonic() - left < GONE_SECONDS, (
            f"{running - before} requests still run {GONE_SECONDS:.0f} s after their clients disconnected"
        )
        time.sleep(0.05)
    answer = http.post("/v1/chat/completions", json=body | {"max_tokens": 1, "stream": False})
    assert answer.status_code == 200, f"the next request is answered with HTTP {answer.status_code}"


def _running(http: httpx2.Client) -> int:
    requests = http.get("/info").json()["requests"]
    return int(requests["running"]) + int(requests.get("queued", 0))
