"""What a request says of how to answer is done: n, stop, logprobs, seed."""

import math
from typing import Any

import pytest
from openai import OpenAI

from smoke_tests.asking import ATTEMPTS, ask, stream, user
from smoke_tests.expectations import answer_text

QUESTION = user("Tell me a story in twenty words.")
TOP = 3


def test_n_answers_come_back(client: OpenAI, model: str) -> None:
    """n answers come back, numbered, and all of their tokens are counted."""
    answer = ask(client, model, QUESTION, n=3, temperature=1)
    assert [choice.index for choice in sorted(answer.choices, key=lambda choice: choice.index)] == [0, 1, 2]
    texts = [answer_text(choice.message) for choice in answer.choices]
    assert all(texts), "one of the answers is empty"
    assert len(set(texts)) > 1, "the answers are one answer three times"
    assert answer.usage is not None
    assert answer.usage.completion_tokens >= len(texts)


def test_n_streams_are_told_apart(client: OpenAI, model: str) -> None:
    """n streamed answers come with their numbers, each whole."""
    chunks = stream(client, model, QUESTION, max_tokens=8, temperature=1, n=2)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert {choice.index for choice in choices} == {0, 1}
    for index in (0, 1):
        reasons = [choice.finish_reason for choice in choices if choice.index == index]
        assert [reason for reason in reasons if reason], f"answer {index} has no end"


def test_stop_ends_the_answer(client: OpenAI, model: str) -> None:
    """An answer ends before the stop text, and says that it stopped."""

    def complete(**options: Any) -> Any:
        return client.completions.create(
            model=model, prompt="Once upon a time", max_tokens=24, temperature=0, **options
        ).choices[0]

    text = complete().text
    middle = next(i for i in range(len(text) // 3, len(text)) if text.find(text[i : i + 4]) == i)
    stop = text[middle : middle + 4]
    # Greedy answers may part where two tokens are nearly as likely: then the stop text may never come.
    stopped = [complete(stop=[stop]) for _ in range(ATTEMPTS)]
    assert all(stop not in choice.text for choice in stopped), f"the answer goes on past {stop!r}"
    ended = [choice for choice in stopped if choice.finish_reason == "stop"]
    assert ended, f"no answer says that it stopped at {stop!r}"
    assert any(choice.text == text[:middle] for choice in ended), f"{ended[0].text!r} is not {text[:middle]!r}"


def test_logprobs_of_chat(client: OpenAI, model: str) -> None:
    """Each token of an answer comes with its log probability and those of the likeliest others."""
    answer = ask(client, model, QUESTION, max_tokens=5, logprobs=True, top_logprobs=TOP)
    assert answer.usage is not None
    told = answer.choices[0].logprobs
    assert told is not None, "no logprobs"
    assert told.content, "logprobs of no token"
    assert len(told.content) <= answer.usage.completion_tokens
    for token in told.content:
        others = [other.logprob for other in token.top_logprobs]
        assert len(others) == TOP
        assert token.logprob <= 0
        assert others == sorted(others, reverse=True), "the likeliest does not stand first"
        assert sum(math.exp(logprob) for logprob in others) <= 1.001, "the probabilities add up to more than 1"
        # The likeliest was asked for; one as likely may have been taken.
        assert token.logprob >= others[0] - 0.01, f"{token.token!r} is not the likeliest"


def test_logprobs_of_completions(client: OpenAI, model: str) -> None:
    """Text completions tell log probabilities in their own, older form."""
    answer = client.completions.create(model=model, prompt="Once", max_tokens=4, logprobs=2, temperature=0)
    told = answer.choices[0].logprobs
    assert told is not None, "no logprobs"
    assert told.tokens
    assert told.token_logprobs
    assert len(told.tokens) == len(told.token_logprobs)
    assert all(logprob is not None and logprob <= 0 for logprob in told.token_logprobs)
    assert "".join(told.tokens).startswith(answer.choices[0].text)


def test_a_seed_repeats_the_answer(client: OpenAI, model: str) -> None:
    """The same seed gives the same answer."""

    def once(seed: int) -> str:
        return answer_text(ask(client, model, QUESTION, temperature=1, seed=seed).choices[0].message)

    # Of three seeds one is enough: where two tokens are nearly as likely, another batch may tip the balance.
    pairs = [(once(seed), once(seed)) for seed in range(ATTEMPTS)]
    assert any(first == second for first, second in pairs), f"the same seed gave two answers: {pairs[0]}"


def test_temperature_varies_the_answer(client: OpenAI, model: str) -> None:
    """Without a seed and with temperature 1, answers differ."""
    answers = {answer_text(ask(client, model, QUESTION, temperature=1).choices[0].message) for _ in range(4)}
    assert len(answers) > 1, f"four times {answers}"


@pytest.mark.parametrize(
    "tokens", [{"max_completion_tokens": 3}, {"max_tokens": 3}], ids=lambda tokens: next(iter(tokens))
)
def test_either_name_bounds_the_answer(client: OpenAI, model: str, tokens: dict[str, int]) -> None:
    """max_completion_tokens bounds an answer as max_tokens does."""
    answer = ask(client, model, QUESTION, **({"max_tokens": None} | tokens))
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 3
