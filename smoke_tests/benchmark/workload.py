"""What is asked: prompts of a wanted length, different every time so that no prefix cache answers for the model."""

import json
import random
from dataclasses import asdict, dataclass
from typing import Any

import httpx2

from smoke_tests.benchmark.timeline import body_message
from smoke_tests.errors import TargetError
from smoke_tests.target import Target

VOCABULARY = (
    "the river runs past old stone houses where people talk about weather music trade and distant cities "
    "while light falls over green fields and small boats carry fruit bread letters or news from harbour to market"
)
PROBE_WORDS = (16, 128)
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


@dataclass(frozen=True)
class Workload:
    """The requests of a run. `prompt_words` is what `calibrate` found to make `prompt_tokens`, about."""

    model: str
    api: str
    prompt_tokens: int
    prompt_words: int
    max_tokens: int
    ignore_eos: bool
    seed: int = 0
    temperature: float = 0.0

    @property
    def path(self) -> str:
        """The path the requests go to."""
        return PATHS[self.api]

    def body(self, number: int) -> bytes:
        """Return the JSON body of request `number`: the same for the same number and seed."""
        return json.dumps(self.request(number, self.prompt_words)).encode()

    def request(self, number: int, words: int, *, stream: bool = True, max_tokens: int | None = None) -> dict[str, Any]:
        """Return request `number` with a prompt of `words` words."""
        prompt = _prompt(words, random.Random(f"{self.seed}/{number}"))  # noqa: S311
        request: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens or self.max_tokens,
            "temperature": self.temperature,
        }
        request |= {"messages": [{"role": "user", "content": prompt}]} if self.api == "chat" else {"prompt": prompt}
        if stream:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.ignore_eos:
            request["ignore_eos"] = True
        return request

    def describe(self) -> dict[str, Any]:
        """Return the workload for the JSON report."""
        return asdict(self)


def calibrate(target: Target, api: str, prompt_tokens: int, max_tokens: int, seed: int) -> Workload:
    """Return a workload whose prompts have about `prompt_tokens` tokens, found by asking the endpoint.

    Two short requests of known word counts give the tokens per word and what the chat template adds; they
    also show whether the endpoint takes vLLM's `ignore_eos`, without which answers end where the model
    likes. Raises TargetError where the endpoint does not answer them.
    """
    workload = Workload(target.model, api, prompt_tokens, PROBE_WORDS[0], max_tokens, ignore_eos=True, seed=seed)
    with httpx2.Client(base_url=target.endpoint, headers=target.headers, timeout=300.0) as http:
        try:
            if _probe(http, workload, PROBE_WORDS[0]).status_code == 400:
                workload = _replaced(workload, ignore_eos=False)
            few, many = (_prompt_tokens(_probe(http, workload, words)) for words in PROBE_WORDS)
        except httpx2.TransportError as error:
            raise TargetError(f"{target.endpoint} broke off a probe: {type(error).__name__}: {error}") from None
    tokens_per_word = (many - few) / (PROBE_WORDS[1] - PROBE_WORDS[0])
    overhead = few - PROBE_WORDS[0] * tokens_per_word
    words = round((prompt_tokens - overhead) / tokens_per_word) if tokens_per_word > 0 else prompt_tokens
    return _replaced(workload, prompt_words=max(1, words))


def _replaced(workload: Workload, **changes: Any) -> Workload:
    return Workload(**(asdict(workload) | changes))


def _prompt(words: int, source: random.Random) -> str:
    return " ".join(source.choices(VOCABULARY.split(), k=words))


def _probe(http: httpx2.Client, workload: Workload, words: int) -> httpx2.Response:
    # A number no measured request has, so that the probe warms no cache for one.
    return http.post(workload.path, json=workload.request(-words, words, stream=False, max_tokens=1))


def _prompt_tokens(response: httpx2.Response) -> int:
    if response.status_code != 200:
        raise TargetError(
            f"the endpoint refused a probe: HTTP {response.status_code}: {body_message(response.content)}"
        )
    try:
        return int(response.json()["usage"]["prompt_tokens"])
    except (ValueError, KeyError, TypeError):
        raise TargetError(f"the endpoint answered a probe without usage: {response.text[:200]}") from None
