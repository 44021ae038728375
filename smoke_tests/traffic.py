"""Steady traffic with the OpenAI SDK: the outcome and duration of each request."""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from openai import APIStatusError, OpenAI, OpenAIError

from smoke_tests.connections import openai_client
from smoke_tests.expectations import answer_text
from smoke_tests.target import Target

# A read timeout. A held stream receives SSE comments; a held request that does not stream receives no bytes.
SILENCE_SECONDS = 900.0
# The pause between two requests of one client: the load is steady and below what the endpoint can serve.
PAUSE_SECONDS = 0.1
TOKENS = 24


@dataclass(frozen=True)
class Outcome:
    """The outcome of a request. `lost` explains why the answer is incomplete; it is empty if the answer is complete.

    Seconds count from the start of the request. Without streaming, `first_token_seconds` is the time of the whole answer.
    """

    started: float
    stream: bool
    request_id: str
    first_token_seconds: float
    seconds: float
    lost: str = ""


class Traffic:
    """Clients in threads that stream every other request until `stop`. They never retry: a retry hides a loss."""

    def __init__(self, target: Target, clients: int, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._target = target
        self._silence_seconds = silence_seconds
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(clients)]

    def start(self) -> None:
        """Start the clients."""
        for thread in self._threads:
            thread.start()

    def stop(self, wait_seconds: float) -> int:
        """Stop sending and wait for running requests; returns the number that did not finish in time."""
        self._stopping.set()
        deadline = time.monotonic() + wait_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes so far."""
        with self._lock:
            return list(self._outcomes)

    def _run(self, number: int) -> None:
        with openai_client(self._target, timeout=self._silence_seconds) as client:
            stream = number % 2 == 0
            while not self._stopping.is_set():
                outcome = self._one(client, stream)
                with self._lock:
                    self._outcomes.append(outcome)
                stream = not stream
                self._stopping.wait(PAUSE_SECONDS)

    def _one(self, client: OpenAI, stream: bool) -> Outcome:
        request_id = f"smoke-{uuid.uuid4().hex}"
        answer = self._streamed if stream else self._whole
        first: list[float] = []
        lost = ""
        started = time.monotonic()
        try:
            lost = answer(client, request_id, lambda: first.append(time.monotonic()))
        except APIStatusError as error:
            lost = f"HTTP {error.status_code}: {_line(error)}"
        except OpenAIError as error:
            lost = f"{type(error).__name__}: {_line(error.__cause__ or error)}"
        except Exception as error:  # not wrapped by the SDK: a connection that broke within an answer
            lost = f"{type(error).__name__}: {_line(error)}"
        took = time.monotonic() - started
        return Outcome(started, stream, request_id, first[0] - started if first else took, took, lost)

    # Both use temperature 0: a sampled answer may be empty, which is not a loss.

    def _streamed(self, client: OpenAI, request_id: str, first: Callable[[], None]) -> str:
        chunks = client.chat.completions.create(
            model=self._target.model, messages=[{"role": "user", "content": "Count from 1 to 20."}],
            max_tokens=TOKENS, temperature=0, stream=True, extra_headers={"X-Request-Id": request_id},
        )  # fmt: skip
        started = ended = False
        for chunk in chunks:
            for choice in chunk.choices:
                if not started and answer_text(choice.delta):
                    started = True
                    first()
                ended = ended or choice.finish_reason is not None
        return "" if ended else "the stream ended without a finish_reason"

    def _whole(self, client: OpenAI, request_id: str, first: Callable[[], None]) -> str:
        answer = client.chat.completions.create(
            model=self._target.model, messages=[{"role": "user", "content": "Count from 1 to 20."}],
            max_tokens=TOKENS, temperature=0, extra_headers={"X-Request-Id": request_id},
        )  # fmt: skip
        first()
        return "" if answer.choices and answer_text(answer.choices[0].message) else "the answer is empty"


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
