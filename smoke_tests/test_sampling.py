"""Sampling parameters take effect: n, stop, logprobs, seed, temperature."""

import math
from typing import Any

import pytest
from openai import OpenAI

from smoke_tests.asking import ATTEMPTS, ask, stream, user
from smoke_tests.expectations import answer_text, answer_text_of
from smoke_tests.wire import CHAT, COMPLETIONS, Wire

QUESTION = user("Tell me a story in twenty words.")
TOP = 3


def test_n_answers_come_back(client: OpenAI, model: str) -> None:
    """n answers are returned with distinct indices, and the usage counts the tokens of all."""
    answer = ask(client, model, QUESTION, n=3, temperature=1)
    assert [choice.index for choice in sorted(answer.choices, key=lambda choice: choice.index)] == [0, 1, 2]
    texts = [answer_text(choice.message) for choice in answer.choices]
    # A sampled answer may end at once.
    ended = [text or choice.finish_reason == "stop" for text, choice in zip(texts, answer.choices, strict=True)]
    assert all(ended), "one of the answers is empty"
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


def _stop_in_the_middle(text: str) -> tuple[int, str]:
    """Return the position and text of five characters in the middle that do not occur before."""
    middle = next(i for i in range(len(text) // 3, len(text)) if text.find(text[i : i + 5]) == i)
    return middle, text[middle : middle + 5]


@pytest.mark.parametrize("form", ["text", "list"])
def test_stop_ends_a_chat_answer(wire: Wire, form: str) -> None:
    """In chat, stop may be a text or a list of several; the first that occurs ends the answer before it."""
    for _ in range(ATTEMPTS):
        text = answer_text_of(wire.answer(CHAT, messages=[QUESTION], max_tokens=24)["choices"][0]["message"])
        middle, stop = _stop_in_the_middle(text)
        given = stop if form == "text" else ["never said at all", text[-5:], stop]
        # The last five characters may also occur before the middle.
        end = min(middle, text.find(text[-5:])) if form == "list" else middle
        choice = wire.answer(CHAT, messages=[QUESTION], max_tokens=24, stop=given)["choices"][0]
        content = answer_text_of(choice["message"])
        assert stop not in content, f"the answer contains the stop sequence {stop!r}"
        # Greedy answers may differ where two tokens are nearly equally likely: then try again.
        if choice["finish_reason"] == "stop" and content == text[:end]:
            return
    raise AssertionError(f"{content!r} ({choice['finish_reason']}) does not end before {given!r}: {text[:end]!r}")


def test_log_probabilities_are_complete(wire: Wire) -> None:
    """There is one log probability for each token, with the token's text and UTF-8 bytes, as for each alternative."""
    answer = wire.answer(CHAT, messages=[QUESTION], max_tokens=6, logprobs=True, top_logprobs=TOP)
    choice = answer["choices"][0]
    tokens = choice["logprobs"]["content"]
    count = answer["usage"]["completion_tokens"]
    assert len(tokens) == count, f"log probabilities of {len(tokens)} tokens, and the answer has {count}"
    assert "".join(token["token"] for token in tokens).startswith(choice["message"]["content"] or "")
    for token in tokens:
        assert len({other["token"] for other in token["top_logprobs"]}) >= TOP - 1, "top_logprobs repeat a token"
        for each in (token, *token["top_logprobs"]):
            assert isinstance(each["token"], str)
            assert type(each["logprob"]) in (int, float), f"a log probability is {each['logprob']!r}"
            assert "bytes" in each, "a token has no bytes field"
            # A token may be a part of a character.
            if each["bytes"] is not None and "\ufffd" not in each["token"]:
                assert bytes(each["bytes"]).decode(errors="replace") == each["token"], f"bytes of {each['token']!r}"
        own = [other["logprob"] for other in token["top_logprobs"] if other["token"] == token["token"]]
        assert not own or abs(own[0] - token["logprob"]) < 0.01, "a token has two log probabilities"


def test_log_probabilities_without_alternatives(wire: Wire) -> None:
    """Without top_logprobs, each token has its log probability and an empty list of alternatives."""
    answer = wire.answer(CHAT, messages=[QUESTION], max_tokens=3, logprobs=True)
    tokens = answer["choices"][0]["logprobs"]["content"]
    assert tokens, "logprobs are empty"
    assert all(token["top_logprobs"] == [] for token in tokens), "top_logprobs were not requested"


def test_log_probabilities_of_completions_are_complete(wire: Wire) -> None:
    """The lists of a text completion's log probabilities have one entry for each token, with its offset in the text."""
    answer = wire.answer(COMPLETIONS, prompt="Once", max_tokens=4, logprobs=2)
    choice = answer["choices"][0]
    logprobs = choice["logprobs"]
    assert len(logprobs["tokens"]) == answer["usage"]["completion_tokens"]
    for field in ("token_logprobs", "top_logprobs", "text_offset"):
        assert len(logprobs[field]) == len(logprobs["tokens"]), f"{field} has {len(logprobs[field])} entries"
    for top in logprobs["top_logprobs"]:
        assert isinstance(top, dict), f"top_logprobs are {type(top).__name__}"
        assert 1 <= len(top) <= 3, f"{len(top)} top_logprobs, and 2 were requested"
    offsets = [sum(map(len, logprobs["tokens"][:position])) for position in range(len(logprobs["tokens"]))]
    assert [offset - logprobs["text_offset"][0] for offset in logprobs["text_offset"]] == offsets
    plain = wire.answer(COMPLETIONS, prompt="Once", max_tokens=4)["choices"][0]
    assert plain.get("logprobs") is None, "log probabilities were not requested"


def test_logit_bias_changes_the_answer(wire: Wire) -> None:
    """logit_bias is applied: a token with a bias of 100 replaces every other."""
    plain = answer_text_of(wire.answer(CHAT, messages=[QUESTION], max_tokens=4)["choices"][0]["message"])
    # Any token will do: whatever it is, it is not the likeliest four times.
    biased = wire.answer(CHAT, messages=[QUESTION], max_tokens=4, logit_bias={"100": 100})
    assert answer_text_of(biased["choices"][0]["message"]) != plain, "the bias does not change the answer"


def test_top_p_narrows_the_choice(wire: Wire) -> None:
    """With a tiny top_p only the likeliest token is left, so that answers repeat whatever the temperature."""
    body = {"messages": [QUESTION], "max_tokens": 6, "temperature": 1, "top_p": 0.000001}
    answers = [answer_text_of(wire.answer(CHAT, **body)["choices"][0]["message"]) for _ in range(ATTEMPTS)]
    # Not all: where two tokens are nearly equally likely, another batch may change the answer. The answer may also
    # differ from that of temperature 0, if two tokens are equally likely.
    assert len(set(answers)) < ATTEMPTS, f"{ATTEMPTS} different answers with top_p 0.000001: {answers}"
