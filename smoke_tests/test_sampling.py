"""Sampling parameters take effect: n, stop, logprobs, seed, temperature."""

import math
from typing import Any

import pytest
from openai import OpenAI

from smoke_tests.asking import ATTEMPTS, ask, stream, user
from smoke_tests.expectations import answer_text

QUESTION = user("Tell me a story in twenty words.")
TOP = 3


def test_n_answers_come_back(client: OpenAI, model: str) -> None:
    """n answers are returned with distinct indices, and the usage counts the tokens of all."""
    answer = ask(client, model, QUESTION, n=3, temperature=1)
    assert [choice.index for choice in sorted(answer.choices, key=lambda choice: choice.index)] == [0, 1, 2]
    texts = [answer_text(choice.message) for choice in answer.choices]
    assert all(texts), "one of the answers is empty"
    assert len(set(texts)) > 1, "all three answers are the same"
    assert answer.usage is not None
    assert answer.usage.completion_tokens >= len(texts)


def test_n_streams_are_told_apart(client: OpenAI, model: str) -> None:
    """n streamed answers have distinct indices, and each is complete."""
    chunks = stream(client, model, QUESTION, max_tokens=8, temperature=1, n=2)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert {choice.index for choice in choices} == {0, 1}
    for index in (0, 1):
        reasons = [choice.finish_reason for choice in choices if choice.index == index]
        assert [reason for reason in reasons if reason], f"answer {index} has no finish_reason"


def test_stop_ends_the_answer(client: OpenAI, model: str) -> None:
    """An answer ends before the stop sequence with finish_reason "stop"."""

    def complete(**options: Any) -> Any:
        return client.completions.create(
            model=model, prompt="Once upon a time", max_tokens=24, temperature=0, **options
        ).choices[0]

    text = complete().text
    middle = next(i for i in range(len(text) // 3, len(text)) if text.find(text[i : i + 4]) == i)
    stop = text[middle : middle + 4]
    # Greedy answers may differ where two tokens are nearly equally likely: then the stop sequence may never occur.
    stopped = [complete(stop=[stop]) for _ in range(ATTEMPTS)]
    assert all(stop not in choice.text for choice in stopped), f"the answer contains the stop sequence {stop!r}"
    ended = [choice for choice in stopped if choice.finish_reason == "stop"]
    assert ended, f"no answer has finish_reason stop for the stop sequence {stop!r}"
    assert any(choice.text == text[:middle] for choice in ended), f"{ended[0].text!r} is not {text[:middle]!r}"


def test_logprobs_of_chat(client: OpenAI, model: str) -> None:
    """Each token of an answer has its log probability and those of the top alternatives."""
    answer = ask(client, model, QUESTION, max_tokens=5, logprobs=True, top_logprobs=TOP)
    assert answer.usage is not None
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None, "no logprobs"
    assert logprobs.content, "logprobs are empty"
    assert len(logprobs.content) <= answer.usage.completion_tokens
    for token in logprobs.content:
        others = [other.logprob for other in token.top_logprobs]
        assert len(others) == TOP
        assert token.logprob <= 0
        assert others == sorted(others, reverse=True), "top_logprobs are not sorted by probability"
        assert sum(math.exp(logprob) for logprob in others) <= 1.001, "the probabilities add up to more than 1"
        # With temperature 0 the token is the likeliest, or equally likely.
        assert token.logprob >= others[0] - 0.01, f"{token.token!r} is not the likeliest"


def test_logprobs_of_completions(client: OpenAI, model: str) -> None:
    """Text completions return log probabilities in the older format of that API."""
    answer = client.completions.create(model=model, prompt="Once", max_tokens=4, logprobs=2, temperature=0)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None, "no logprobs"
    assert logprobs.tokens
    assert logprobs.token_logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs)
    assert all(logprob is not None and logprob <= 0 for logprob in logprobs.token_logprobs)
    assert "".join(logprobs.tokens).startswith(answer.choices[0].text)


def test_a_seed_repeats_the_answer(client: OpenAI, model: str) -> None:
    """The same seed returns the same answer."""

    def once(seed: int) -> str:
        return answer_text(ask(client, model, QUESTION, temperature=1, seed=seed).choices[0].message)

    # One of three seeds is enough: where two tokens are nearly equally likely, another batch may change the answer.
    pairs = [(once(seed), once(seed)) for seed in range(ATTEMPTS)]
    assert any(first == second for first, second in pairs), f"the same seed returned two answers: {pairs[0]}"


def test_temperature_varies_the_answer(client: OpenAI, model: str) -> None:
    """Without a seed and with temperature 1, answers differ."""
    answers = {answer_text(ask(client, model, QUESTION, temperature=1).choices[0].message) for _ in range(4)}
    assert len(answers) > 1, f"four times {answers}"


@pytest.mark.parametrize(
    "tokens", [{"max_completion_tokens": 3}, {"max_tokens": 3}], ids=lambda tokens: next(iter(tokens))
)
def test_either_name_bounds_the_answer(client: OpenAI, model: str, tokens: dict[str, int]) -> None:
    """max_completion_tokens limits an answer as max_tokens does."""
    answer = ask(client, model, QUESTION, **({"max_tokens": None} | tokens))
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 3
