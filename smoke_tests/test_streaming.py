"""Streaming: in order, without buffering, with usage, and terminated as the protocol requires."""

import json
import statistics
import threading
import time
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from smoke_tests.asking import ATTEMPTS, ask, stream, user
from smoke_tests.expectations import answer_text

pytestmark = pytest.mark.usefixtures("text")

# Enough tokens that generating them takes longer than the jitter of any hop.
PACED_TOKENS = 128
STALLED_SHARE = 0.5
PACED_ATTEMPTS = 12


QUESTION = user("Count from 1 to 20.")


def stream_body(model: str, **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Count from 1 to 200, in words."}]
    return {"model": model, "messages": messages, "max_tokens": 24, "temperature": 0, "stream": True} | options


def test_stream_is_in_order(client: OpenAI, model: str) -> None:
    """The chunks of a stream share one id, start with the role and end with the finish_reason."""
    chunks = [chunk for chunk in stream(client, model, QUESTION) if chunk.choices]
    assert len(chunks) >= 2, "the answer arrived in one chunk"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk.model for chunk in chunks} == {model}
    assert len({chunk.id for chunk in chunks}) == 1, "the chunks of one answer have several ids"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(answer_text(chunk.choices[0].delta) for chunk in chunks)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] in ("stop", "length"), f"the last chunk has no finish_reason: {reasons[-1]}"
    assert not any(reasons[:-1]), "a chunk before the last has a finish_reason"


def test_stream_says_what_the_whole_answer_says(client: OpenAI, model: str) -> None:
    """A stream contains the same text as the answer without streaming: nothing lost, repeated or out of order."""

    def whole() -> str:
        return answer_text(ask(client, model, QUESTION, max_tokens=24).choices[0].message)

    def streamed() -> str:
        return "".join(
            answer_text(chunk.choices[0].delta) for chunk in stream(client, model, QUESTION) if chunk.choices
        )

    # Greedy answers may differ where two tokens are nearly equally likely and the batch differs.
    wholes = {whole() for _ in range(ATTEMPTS)}
    streams = [streamed() for _ in range(ATTEMPTS)]
    assert wholes & set(streams), f"streamed {streams[0]!r}, whole {wholes}"


def test_stream_usage_comes_last(client: OpenAI, model: str) -> None:
    """With include_usage, the last chunk of a stream has the usage and no choices."""
    chunks = stream(client, model, QUESTION, stream_options={"include_usage": True})
    assert all(chunk.usage is None for chunk in chunks[:-1]), "a chunk before the last has usage"
    usage = chunks[-1].usage
    assert usage is not None, "the last chunk has no usage"
    assert chunks[-1].choices == []
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_stream_ends_with_done(http: httpx2.Client, model: str) -> None:
    """A stream consists of server-sent events and ends with [DONE]."""
    with http.stream("POST", "/v1/chat/completions", json=stream_body(model)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data:").strip() for line in response.iter_lines() if line.startswith("data:")]
    assert events[-1] == "[DONE]", f"the last event is {events[-1][:80]!r}"
    assert all("error" not in json.loads(event) for event in events[:-1])


def test_stream_chunks_arrive_as_they_are_made(http: httpx2.Client, model: str) -> None:
    """No hop buffers a stream: the first chunk arrives long before the last one is generated."""
    seen: list[float] = []
    for _ in range(PACED_ATTEMPTS):
        arrival = _timed_stream(http, model)
        # An engine on this machine can keep this process off the CPU for a whole answer.
        if arrival.stalled_share < STALLED_SHARE:
            seen.append(arrival.spread)
        if len(seen) == ATTEMPTS:
            break
    if not seen:
        pytest.skip("this machine is too busy to time the chunks; run the tests from another machine")
    # The median: a chunk may be delayed once, but a buffer delays the first one every time.
    spread = statistics.median(seen)
    assert spread >= 0.2, (
        f"the first chunk arrived after {1 - spread:.0%} of the answer's time: a hop buffers the stream"
    )


def test_completions_stream(client: OpenAI, model: str) -> None:
    """Text completions can be streamed, with usage."""
    stream = client.completions.create(
        model=model, prompt="Once upon a time", max_tokens=16, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert chunks[-1].usage is not None, "the last chunk has no usage"
    assert 0 < chunks[-1].usage.completion_tokens <= 16


@dataclass(frozen=True)
class Arrival:
    """Shares of an answer's time: between its first and last chunk, and the longest stall of this process."""

    spread: float
    stalled_share: float


def _timed_stream(http: httpx2.Client, model: str) -> Arrival:
    # ignore_eos is vLLM's and keeps a short answer measurable. Other servers may reject it.
    for options in ({"ignore_eos": True}, {}):
        with Ticker() as ticker:
            body = stream_body(model, max_tokens=PACED_TOKENS, **options)
            with http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code == 400 and options:
                    continue
                assert response.status_code == 200, f"HTTP {response.status_code}"
                # Timed by the bytes on the network, without the comments of a held stream, not by parsed lines.
                arrivals = [time.monotonic() for piece in response.iter_raw() if b"data:" in piece]
        took = arrivals[-1] - ticker.started
        return Arrival((arrivals[-1] - arrivals[0]) / took, ticker.longest_stall_seconds / took)
    raise AssertionError("the endpoint refuses a plain streamed request with HTTP 400")


class Ticker:
    """Wakes every few milliseconds and records the longest delay."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.longest_stall_seconds = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick)

    def __enter__(self) -> "Ticker":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _tick(self) -> None:
        last, ended = self.started, False
        while not ended:
            ended = self._ended.wait(0.002)
            now = time.monotonic()
            self.longest_stall_seconds = max(self.longest_stall_seconds, now - last)
            last = now
