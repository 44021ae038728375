"""Generates prompts of a requested length. They differ in every run, so that they are not in a prefix cache."""

import functools
import json
import random
from dataclasses import dataclass
from typing import Any

from smoke_tests.benchmark.dataset import DataFile, Entry
from smoke_tests.benchmark.record import Dataset, Lengths
from smoke_tests.benchmark.record import Workload as WorkloadRecord

VOCABULARY = [
    "the",
    "river",
    "runs",
    "past",
    "old",
    "stone",
    "houses",
    "where",
    "people",
    "talk",
    "about",
    "weather",
    "music",
    "trade",
    "and",
    "distant",
    "cities",
    "while",
    "light",
    "falls",
    "over",
    "green",
    "fields",
    "and",
    "small",
    "boats",
    "carry",
    "fruit",
    "bread",
    "letters",
    "or",
    "news",
    "from",
    "harbour",
    "to",
    "market",
]
CHARACTERS_PER_WORD = 1 + sum(len(word) for word in VOCABULARY) / len(VOCABULARY)
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


@dataclass(frozen=True)
class TokenScale:
    """How text becomes tokens at this endpoint, as `calibrate` found it: tokens = overhead + per_unit * units.

    A unit is a word of VOCABULARY, or a character of the data file. `overhead` is what the chat template adds.
    """

    per_unit: float = 1.0
    overhead: float = 0.0

    def units(self, tokens: float) -> int:
        """Return the number of units closest to this many tokens without the overhead; at least one."""
        return max(1, round(tokens / self.per_unit))


@dataclass(frozen=True)
class Workload:
    """The requests of a run. `nonce` makes its prompts unique, so that no cache of an earlier run contains them.

    `prompt_tokens` is not used with a data file; `output_tokens` None takes the file's lengths. The shared prefixes
    come before the prompt and on top of its length, `shared_prefixes` different ones in turn.
    """

    model: str
    api: str
    prompt_tokens: Lengths
    output_tokens: Lengths | None
    data_file: DataFile | None = None
    shared_prefix_tokens: int = 0
    shared_prefixes: int = 1
    ignore_eos: bool = True
    temperature: float = 0.0
    seed: int = 0
    nonce: str = ""
    scale: TokenScale = TokenScale()

    @property
    def path(self) -> str:
        """The path the requests go to."""
        return PATHS[self.api]

    def body(self, number: int) -> bytes:
        """Return the JSON body of request `number`: lengths by the seed, words by seed and nonce."""
        entry = self.data_file.entries[self._entry_number(number)] if self.data_file else None
        messages = entry.messages if entry else ({"role": "user", "content": self._prompt(number)},)
        if self.shared_prefix_tokens:
            which = number % self.shared_prefixes
            units = self.scale.units(self.shared_prefix_tokens)  # with a data file: characters
            words = units if entry is None else max(1, round(units / CHARACTERS_PER_WORD))
            prefix = " ".join(self._words(f"prefix/{which}", words))
            first, *rest = messages
            messages = ({**first, "content": f"{prefix} {first['content']}"}, *rest)
        request = request_body(self.model, self.api, messages, self._output_tokens(number, entry), self.temperature)
        request |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.ignore_eos:
            # An endpoint that accepts vLLM's ignore_eos also counts the tokens of each chunk, for TPOT.
            request |= {
                "ignore_eos": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            }
        return json.dumps(request).encode()

    def describe(self) -> WorkloadRecord:
        """Return the workload for the record."""
        file = self.data_file
        return WorkloadRecord(
            api="chat" if self.api == "chat" else "completions",
            prompt_tokens=None if file else self.prompt_tokens,
            output_tokens=self.output_tokens,
            dataset=Dataset(name=file.name, sha256=file.sha256, entries=len(file.entries)) if file else None,
            shared_prefix_tokens=self.shared_prefix_tokens,
            shared_prefixes=self.shared_prefixes if self.shared_prefix_tokens else 0,
            ignore_eos=self.ignore_eos,
            temperature=self.temperature,
            seed=self.seed,
            same_prompts=not self.nonce or file is not None,
        )

    def _prompt(self, number: int) -> str:
        tokens = _drawn(self.prompt_tokens, self.seed, f"prompt/{number}")
        return " ".join(self._words(f"words/{number}", self.scale.units(tokens - self.scale.overhead)))

    def _output_tokens(self, number: int, entry: Entry | None) -> int:
        if self.output_tokens is not None:
            return _drawn(self.output_tokens, self.seed, f"output/{number}")
        assert entry is not None
        return entry.output_tokens or max(1, round(len(entry.answer) * self.scale.per_unit))

    def _entry_number(self, number: int) -> int:
        """Return the entry of request `number`: all entries in an order drawn from the seed, then all in another order."""
        assert self.data_file is not None
        lap, place = divmod(number, len(self.data_file.entries))
        return _order(len(self.data_file.entries), self.seed, lap)[place]

    def _words(self, name: str, count: int) -> list[str]:
        return random.Random(f"{self.seed}/{self.nonce}/{name}").choices(VOCABULARY, k=count)  # noqa: S311


def request_body(
    model: str, api: str, messages: tuple[dict[str, str], ...], max_tokens: int, temperature: float
) -> dict[str, Any]:
    """Return a request of either API."""
    request: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
    if api == "chat":
        return request | {"messages": list(messages)}
    return request | {"prompt": "\n".join(message["content"] for message in messages)}


@functools.lru_cache(maxsize=4)
def _order(count: int, seed: int, lap: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}/order/{lap}").shuffle(order)  # noqa: S311
    return order


def _drawn(lengths: Lengths, seed: int, name: str) -> int:
    if lengths.low == lengths.high:
        return lengths.low
    return random.Random(f"{seed}/{name}").randint(lengths.low, lengths.high)  # noqa: S311
