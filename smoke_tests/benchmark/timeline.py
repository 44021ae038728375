"""What one streamed answer was like: its pieces and the moments they arrived, turned into figures."""

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from smoke_tests.benchmark.stream_client import Response

# Any other finish reason (abort, error, content_filter, none at all) means that the answer is not whole.
WHOLE_ANSWER = ("stop", "length", "tool_calls", "function_call", "repetition")


@dataclass(frozen=True)
class RequestResult:
    """One request. Times in seconds; `started_seconds` and `ended_seconds` count from the start of the run.

    `ttft_seconds` is from sending the request to the first chunk with a token, `latency_seconds` to the last
    one, `gaps_seconds` are the times between consecutive ones (vLLM bench's definitions). Token counts are the
    server's usage: `first_tokens` of the chunks that arrived first, `cached_tokens` of the prompt (None: not reported).
    `wanted_tokens` is the requested answer length. `failure` is empty for a success, else its kind; `detail` explains.
    """

    started_seconds: float
    ended_seconds: float
    ttft_seconds: float = 0.0
    latency_seconds: float = 0.0
    gaps_seconds: tuple[float, ...] = ()
    prompt_tokens: int = 0
    output_tokens: int = 0
    first_tokens: int = 1
    cached_tokens: int | None = None
    wanted_tokens: int | None = None
    failure: str = ""
    detail: str = ""

    @property
    def tpot_seconds(self) -> float | None:
        """Time per output token after those that arrived first; None if all tokens arrived at once."""
        later = self.output_tokens - self.first_tokens
        if not self.gaps_seconds or later < 1:
            return None
        return (self.latency_seconds - self.ttft_seconds) / later

    @property
    def client_error(self) -> bool:
        """Whether the request failed on this machine and never reached the endpoint."""
        return self.failure.startswith("client_")


class Timeline:
    """Collects the pieces of one body as they arrive. Pieces may cut events, lines and characters anywhere."""

    def __init__(self) -> None:
        self.token_times: list[float] = []
        self.usage: dict[str, Any] | None = None
        self.done = False
        self.error = ""
        self._finish_reason: str | None = None
        self._after_the_end = ""
        self._counted = 0
        self._counts: list[int] = []
        self._characters: list[int] = []
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
        details = self.usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        return RequestResult(
            started_seconds=sent - run_started,
            ended_seconds=ended - run_started,
            ttft_seconds=times[0] - sent,
            latency_seconds=times[-1] - sent,
            gaps_seconds=tuple(later - earlier for earlier, later in pairwise(times)),
            prompt_tokens=self.usage["prompt_tokens"],
            output_tokens=self.usage["completion_tokens"],
            first_tokens=self._first_tokens(self.usage["completion_tokens"]),
            cached_tokens=cached if isinstance(cached, int) else None,
        )

    def _first_tokens(self, tokens: int) -> int:
        """Return the tokens of the first chunk, and of those that were read together with it.

        It is the server's own count; without one, their share of the characters. Each chunk has at least one token, so
        the estimate is exact if nothing is bundled. One token more than chunks is the end-of-sequence token, which has
        no text. Between chunks that a busy gateway, network or client merged, no time was measured.
        """
        first = self.token_times.count(self.token_times[0])
        if self._counts[first - 1]:
            return self._counts[first - 1]
        spare, characters = tokens - len(self.token_times), sum(self._characters)
        if first == len(self.token_times) or not characters:
            return max(first, first + spare)
        if spare <= 1:
            return first
        return max(first, min(first + spare, round(tokens * sum(self._characters[:first]) / characters)))

    def _event(self, data: bytes, arrived: float) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        if self.done:
            self._after_the_end = self._after_the_end or "data after [DONE]"
        try:
            event = json.loads(data)
        except ValueError:
            self.error = self.error or f"not JSON: {data[:100]!r}"
            return
        if not isinstance(event, dict) or event.get("error"):
            self.error = self.error or error_message(event)
            return
        choices = event.get("choices") or ()
        grown = 0
        if isinstance(event.get("usage"), dict):
            self.usage = event["usage"]
            counted = self.usage.get("completion_tokens")
            if isinstance(counted, int) and choices:
                grown, self._counted = counted - self._counted, counted
        # A chunk whose text a parser still holds back has tokens, too, if the count per chunk has grown.
        if grown > 0 or any(_has_token(choice) for choice in choices):
            if self._finish_reason is not None:
                self._after_the_end = self._after_the_end or f"tokens after finish_reason {self._finish_reason!r}"
            self.token_times.append(arrived)
            self._counts.append(self._counted)
            self._characters.append(sum(_characters(choice) for choice in choices))
        for choice in choices:
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def _failure(self, response: Response) -> tuple[str, str]:
        if response.status != 200:
            return f"http_{response.status}", body_message(self._whole)
        if not response.content_type.startswith("text/event-stream"):
            return "not_a_stream", f"{response.content_type}: {body_message(self._whole)}"
        if self.error:
            return "error_in_stream", self.error
        if not self.done:
            return "cut_short", response.broken or "the stream ended without [DONE]"
        if self._after_the_end:
            return "tokens_after_finish", self._after_the_end
        if self._finish_reason is None and self.token_times:
            return "no_finish_reason", "the stream ended with [DONE] but without a finish_reason"
        if self._finish_reason is not None and self._finish_reason not in WHOLE_ANSWER:
            return "aborted", f"finish_reason {self._finish_reason!r}"
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


def _characters(choice: dict[str, Any]) -> int:
    """Return the length of the text that a choice of a chunk carries."""
    delta = choice.get("delta") or choice
    texts = (delta.get(name) for name in ("content", "reasoning", "reasoning_content", "text"))
    calls = delta.get("tool_calls")
    return sum(len(text) for text in texts if isinstance(text, str)) + (len(json.dumps(calls)) if calls else 0)
