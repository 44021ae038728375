"""What one streamed answer was like: its pieces and the moments they arrived, turned into figures."""

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from smoke_tests.benchmark.stream_client import Response


@dataclass(frozen=True)
class RequestResult:
    """One request. Times in seconds; `started_seconds` and `ended_seconds` count from the start of the run.

    `ttft_seconds` is from sending the request to the first chunk with a token, `latency_seconds` to the last
    one, `gaps_seconds` lies between neighbouring ones (vLLM bench's definitions). Token counts come from the
    usage chunk. `failure` is empty for a success, else its kind, and `detail` says more.
    """

    started_seconds: float
    ended_seconds: float
    ttft_seconds: float = 0.0
    latency_seconds: float = 0.0
    gaps_seconds: tuple[float, ...] = ()
    prompt_tokens: int = 0
    output_tokens: int = 0
    failure: str = ""
    detail: str = ""

    @property
    def tpot_seconds(self) -> float | None:
        """Time per output token after the first; None where there was only one."""
        if self.output_tokens < 2:
            return None
        return (self.latency_seconds - self.ttft_seconds) / (self.output_tokens - 1)


class Timeline:
    """Collects the pieces of one body as they arrive. Pieces may cut events, lines and characters anywhere."""

    def __init__(self) -> None:
        self.token_times: list[float] = []
        self.usage: dict[str, Any] | None = None
        self.done = False
        self.error = ""
        self._rest = b""
        self._whole = b""

    def feed(self, piece: bytes, arrived: float) -> int:
        """Take a piece of the body; return how many chunks with tokens it completed."""
        before = len(self.token_times)
        if len(self._whole) < 1000:
            self._whole += piece
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            # Lines that start with a colon are comments, which keep a held stream alive.
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), arrived)
        return len(self.token_times) - before

    def result(self, response: Response, sent: float, ended: float, run_started: float) -> RequestResult:
        """Return the request's figures; `sent`, `ended` and `run_started` on the clock of `feed`."""
        failure, detail = self._failure(response)
        if failure:
            return RequestResult(sent - run_started, ended - run_started, failure=failure, detail=detail)
        assert self.usage is not None
        times = self.token_times
        return RequestResult(
            started_seconds=sent - run_started,
            ended_seconds=ended - run_started,
            ttft_seconds=times[0] - sent,
            latency_seconds=times[-1] - sent,
            gaps_seconds=tuple(later - earlier for earlier, later in pairwise(times)),
            prompt_tokens=self.usage["prompt_tokens"],
            output_tokens=self.usage["completion_tokens"],
        )

    def _event(self, data: bytes, arrived: float) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = json.loads(data)
        except ValueError:
            self.error = self.error or f"not JSON: {data[:100]!r}"
            return
        if not isinstance(event, dict) or event.get("error"):
            self.error = self.error or error_message(event)
            return
        if isinstance(event.get("usage"), dict):
            self.usage = event["usage"]
        if any(_has_token(choice) for choice in event.get("choices") or ()):
            self.token_times.append(arrived)

    def _failure(self, response: Response) -> tuple[str, str]:
        if response.status != 200:
            return f"http_{response.status}", body_message(self._whole)
        if not response.content_type.startswith("text/event-stream"):
            return "not_a_stream", f"{response.content_type}: {body_message(self._whole)}"
        if self.error:
            return "error_in_stream", self.error
        if not self.done:
            return "cut_short", response.broken or "the stream ended without [DONE]"
        if not self.token_times:
            return "no_tokens", "no chunk carried a token"
        counts = [(self.usage or {}).get(name) for name in ("prompt_tokens", "completion_tokens")]
        if not all(isinstance(count, int) and count > 0 for count in counts):
            return "no_usage", f"no usage to count by, though stream_options.include_usage asked: {self.usage}"
        return "", ""


def body_message(body: bytes) -> str:
    """Return what an error body says: its OpenAI message, else its beginning."""
    try:
        return error_message(json.loads(body))
    except ValueError:
        return body[:200].decode("utf-8", "replace")


def error_message(event: Any) -> str:
    """Return the message of an OpenAI error object, else its beginning."""
    error = event.get("error") if isinstance(event, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or event)[:200]


def _has_token(choice: dict[str, Any]) -> bool:
    """Return whether a choice of a chunk carries a token.

    Chat opens with a chunk that only names the role and may end with one that only has a finish_reason:
    neither is a token. A chunk with an empty text and none of the two is: half a character, so far.
    """
    delta = choice.get("delta")
    if delta is None:
        return bool(choice.get("text")) or not choice.get("finish_reason")
    if any(delta.get(name) for name in ("content", "reasoning", "reasoning_content", "tool_calls")):
        return True
    return "role" not in delta and not choice.get("finish_reason")
