"""The format of streamed answers that SDKs and frameworks rely on when they assemble them."""

from typing import Any

from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from smoke_tests.asking import ATTEMPTS, user
from smoke_tests.expectations import answer_text_of, assert_usage
from smoke_tests.wire import CHAT, COMPLETIONS, FOREIGN_TEXT, Document, Wire, assert_is, choices_of, whole_text_of

QUESTION = user("Count from 1 to 20.")
USAGE = {"stream_options": {"include_usage": True}}


def streamed(wire: Wire, **body: Any) -> list[Document]:
    """Return the chunks of a chat answer of at most eight tokens."""
    return wire.stream(CHAT, **({"messages": [QUESTION], "max_tokens": 8} | body))


def test_a_stream_consists_of_server_sent_events(wire: Wire) -> None:
    """Each chunk is one server-sent event with one JSON object, a blank line ends it, and [DONE] is the last event."""
    assert len(streamed(wire)) >= 2
    assert len(wire.stream(COMPLETIONS, prompt="Once upon a time", max_tokens=8)) >= 2


def test_chunks_have_openais_format(wire: Wire) -> None:
    """Each chunk has every required field, including choices, delta and a finish_reason that is null until the end."""
    chunks = streamed(wire, **USAGE)
    for chunk in chunks:
        assert_is(ChatCompletionChunk, chunk)
        for choice in chunk["choices"]:
            assert "finish_reason" in choice, "a chunk has no finish_reason field"
            assert "message" not in choice, "a chunk has a message instead of a delta"
            assert choice["index"] == 0, f"the only answer has the index {choice['index']}"
            assert not choice.get("logprobs"), "log probabilities were not requested"
            for field in ("tool_calls", "function_call", "refusal"):
                assert not choice["delta"].get(field), f"a delta has {field}: {choice['delta'][field]}"
    assert all(len(chunk["choices"]) == 1 for chunk in chunks[:-1]), "a chunk before the usage has no choice"


def test_the_chunks_of_a_stream_are_identified(wire: Wire) -> None:
    """All chunks, including that of the usage, have the same id, created and model; the next stream has another id."""
    chunks, others = streamed(wire, **USAGE), streamed(wire)
    for field in ("id", "created", "model"):
        values = {chunk[field] for chunk in chunks}
        assert len(values) == 1, f"{field} differs between chunks: {sorted(map(str, values))}"
    assert chunks[0]["model"] == wire.model
    assert chunks[0]["id"], "the id is empty"
    assert chunks[0]["id"] != others[0]["id"], "two streams have the same id"
    assert 1_600_000_000 < chunks[0]["created"] < 100_000_000_000, f"created is not in seconds: {chunks[0]['created']}"


def test_the_role_is_in_the_first_chunk(wire: Wire) -> None:
    """The first delta has the role, and no later one repeats it: some clients concatenate roles."""
    roles = [choice["delta"].get("role") for choice in choices_of(streamed(wire))]
    assert roles[0] == "assistant", f"the first chunk has the role {roles[0]!r}"
    assert not any(roles[1:]), "a later chunk repeats the role"


def test_the_finish_reason_is_in_the_last_chunk(wire: Wire) -> None:
    """Exactly the last chunk with a choice has a finish_reason, the same as without streaming."""
    choices = choices_of(streamed(wire))
    reasons = [choice["finish_reason"] for choice in choices]
    assert all(reason is None for reason in reasons[:-1]), f"a chunk before the last has a finish_reason: {reasons}"
    assert reasons[-1] in ("stop", "length"), f"the last finish_reason is {reasons[-1]!r}"
    wholes = {
        wire.answer(CHAT, messages=[QUESTION], max_tokens=8)["choices"][0]["finish_reason"] for _ in range(ATTEMPTS)
    }
    assert reasons[-1] in wholes, f"finish_reason is {reasons[-1]} in the stream and {wholes} without streaming"


def test_a_stream_has_no_usage_unless_requested(wire: Wire) -> None:
    """Without include_usage, no chunk has usage and every chunk has a choice: clients read choices[0]."""
    for options in ({}, {"stream_options": {"include_usage": False}}, {"stream_options": None}):
        chunks = streamed(wire, **options)
        assert not any(chunk.get("usage") for chunk in chunks), "a chunk has usage that was not requested"
        assert all(chunk["choices"] for chunk in chunks), "a chunk has no choices"


def test_streamed_usage_is_exact(wire: Wire) -> None:
    """The usage of a stream is in one last chunk without choices, and is the same as without streaming."""
    chunks = streamed(wire, **USAGE)
    assert all(chunk.get("usage") is None for chunk in chunks[:-1]), "a chunk before the last has usage"
    assert chunks[-1]["choices"] == [], "the chunk with the usage has choices"
    usage: Any = chunks[-1].get("usage")
    assert_usage(usage)
    for _ in range(ATTEMPTS):
        whole = wire.answer(CHAT, messages=[QUESTION], max_tokens=8)
        assert usage["prompt_tokens"] == whole["usage"]["prompt_tokens"]
        if answer_text_of(whole["choices"][0]["message"]) == whole_text_of(chunks):
            assert usage["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_each_of_n_streamed_answers_is_complete(wire: Wire) -> None:
    """Each of n streamed answers has its role first, some text, and its own finish_reason last."""
    chunks = streamed(wire, n=3, temperature=1, **USAGE)
    choices = choices_of(chunks)
    assert {choice["index"] for choice in choices} == {0, 1, 2}
    for index in range(3):
        own = [choice for choice in choices if choice["index"] == index]
        reasons = [choice["finish_reason"] for choice in own]
        roles = [choice["delta"].get("role") for choice in own]
        assert roles[0] == "assistant", f"the first chunk of answer {index} has the role {roles[0]!r}"
        assert not any(roles[1:]), f"answer {index} repeats its role"
        assert reasons[-1] in ("stop", "length"), f"the finish_reason of answer {index} is {reasons[-1]!r}"
        assert not any(reasons[:-1]), f"answer {index} goes on after its finish_reason"
        # A sampled answer may end at once.
        text = "".join(answer_text_of(choice["delta"]) for choice in own)
        assert text or reasons[-1] == "stop", f"answer {index} is empty"
    assert_usage(chunks[-1].get("usage"))
    if all(choice["finish_reason"] == "length" for choice in choices if choice["finish_reason"]):
        tokens = chunks[-1]["usage"]["completion_tokens"]
        assert tokens == 3 * 8, f"three answers of 8 tokens are counted as {tokens}"


def test_log_probabilities_are_streamed(wire: Wire) -> None:
    """The streamed log probabilities are of every token, and in the same format as without streaming."""
    chunks = streamed(wire, logprobs=True, top_logprobs=2, **USAGE)
    tokens = [token for choice in choices_of(chunks) for token in ((choice.get("logprobs") or {}).get("content") or ())]
    for chunk in chunks:
        assert_is(ChatCompletionChunk, chunk)
    reasons = [choice.get("finish_reason") for choice in choices_of(chunks)]
    assert reasons[-1] in ("stop", "length"), f"the finish_reason is {reasons[-1]!r}"
    count = chunks[-1]["usage"]["completion_tokens"]
    assert len(tokens) == count, f"log probabilities of {len(tokens)} tokens, and the answer has {count}"
    text = "".join(answer_text_of(choice["delta"]) for choice in choices_of(chunks))
    assert "".join(token["token"] for token in tokens).startswith(text), "the tokens are not those of the text"
    for token in tokens:
        assert token["logprob"] <= 0, f"a log probability is {token['logprob']}"
        assert len(token["top_logprobs"]) == 2, f"{len(token['top_logprobs'])} top_logprobs, and 2 were requested"


def test_a_stop_sequence_ends_a_stream(wire: Wire) -> None:
    """A stream ends before the stop sequence, of which no part is sent, with finish_reason "stop"."""
    for _ in range(ATTEMPTS):
        text = whole_text_of(wire.stream(CHAT, messages=[QUESTION], max_tokens=24))
        middle = next(i for i in range(len(text) // 3, len(text)) if text.find(text[i : i + 5]) == i)
        stop = text[middle : middle + 5]
        chunks = wire.stream(CHAT, messages=[QUESTION], max_tokens=24, stop=stop)
        assert stop not in whole_text_of(chunks), f"the answer contains the stop sequence {stop!r}"
        # Greedy answers may differ where two tokens are nearly equally likely: then try again.
        if choices_of(chunks)[-1]["finish_reason"] == "stop":
            assert whole_text_of(chunks) == text[:middle], f"{whole_text_of(chunks)!r} is not {text[:middle]!r}"
            return
    raise AssertionError(f"no answer has finish_reason stop for the stop sequence {stop!r}")


def test_foreign_text_survives_a_stream(wire: Wire) -> None:
    """Text in any script arrives unchanged in a stream, although a chunk may end within a character."""
    chunks = wire.stream(COMPLETIONS, prompt=FOREIGN_TEXT, max_tokens=1, echo=True)
    text = "".join(choice["text"] for choice in choices_of(chunks))
    assert FOREIGN_TEXT in text, f"{text!r} does not contain {FOREIGN_TEXT!r}"


def test_streamed_text_completions_have_openais_format(wire: Wire) -> None:
    """The chunks of a text completion have the same id, their text, one finish_reason, and the usage at the end."""
    chunks = wire.stream(COMPLETIONS, prompt="Once upon a time", max_tokens=8, **USAGE)
    choices = choices_of(chunks)
    for chunk in chunks[:-1]:
        reasons = [choice["finish_reason"] for choice in chunk["choices"]]
        # The SDK's type, which is that of a whole answer, allows no null.
        ended = [choice | {"finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
        assert all(reason is None or reason in ("stop", "length") for reason in reasons), f"{reasons}"
        assert_is(Completion, chunk | {"choices": ended})
        assert not chunk.get("usage"), "a chunk before the last has usage"
    assert len({chunk["id"] for chunk in chunks}) == 1, "the chunks of one answer have several ids"
    assert {chunk["model"] for chunk in chunks} == {wire.model}
    assert "".join(choice["text"] for choice in choices), "the text is empty"
    assert choices[-1]["finish_reason"] in ("stop", "length"), f"the last is {choices[-1]['finish_reason']!r}"
    assert not any(choice["finish_reason"] for choice in choices[:-1]), "a chunk before the last has a finish_reason"
    assert chunks[-1]["choices"] == [], "the chunk with the usage has choices"
    assert_usage(chunks[-1].get("usage"))


def test_text_completions_stream_no_usage_unless_requested(wire: Wire) -> None:
    """Without include_usage, the chunks of a text completion have no usage, and each has a choice."""
    chunks = wire.stream(COMPLETIONS, prompt="Once upon a time", max_tokens=8)
    assert not any(chunk.get("usage") for chunk in chunks), "a chunk has usage that was not requested"
    assert all(chunk["choices"] for chunk in chunks), "a chunk has no choices"


def test_several_prompts_are_streamed_by_index(wire: Wire) -> None:
    """The streamed answers to a list of prompts have the indices of their prompts."""
    prompts = ["Once upon a time", "The future of"]
    choices = choices_of(wire.stream(COMPLETIONS, prompt=prompts, max_tokens=4, echo=True))
    assert {choice["index"] for choice in choices} == {0, 1}
    for index, prompt in enumerate(prompts):
        own = [choice for choice in choices if choice["index"] == index]
        text = "".join(choice["text"] for choice in own)
        assert text.startswith(prompt), f"answer {index} begins with {text[:40]!r}, not with its prompt"
        assert len([choice for choice in own if choice["finish_reason"]]) == 1, f"answer {index} has no single end"


def test_a_partial_stop_sequence_is_not_lost(wire: Wire) -> None:
    """Text that only begins like a stop sequence is sent, although the server holds it back at first."""
    for _ in range(ATTEMPTS):
        text = whole_text_of(wire.stream(CHAT, messages=[QUESTION], max_tokens=12))
        stop = text[-6:] + "never said"
        chunks = wire.stream(CHAT, messages=[QUESTION], max_tokens=12, stop=[stop])
        # Greedy answers may differ where two tokens are nearly equally likely: then try again.
        if whole_text_of(chunks) == text:
            return
    raise AssertionError(f"{whole_text_of(chunks)!r} with a stop sequence that does not occur, {text!r} without")


def test_log_probabilities_of_text_completions_are_streamed(wire: Wire) -> None:
    """The streamed log probabilities of a text completion are of its tokens, with their offsets in the text."""
    chunks = wire.stream(COMPLETIONS, prompt="Once upon a time", max_tokens=6, logprobs=2, **USAGE)
    logprobs: list[Any] = [choice["logprobs"] for choice in choices_of(chunks) if choice.get("logprobs")]
    assert logprobs, "no log probabilities"
    joined = {field: [each for one in logprobs for each in one[field]] for field in logprobs[0]}
    count = chunks[-1]["usage"]["completion_tokens"]
    for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert len(joined[field]) == count, (
            f"{field} has {len(joined[field])} entries, and the answer has {count} tokens"
        )
    assert "".join(joined["tokens"]).startswith("".join(choice["text"] for choice in choices_of(chunks)))
    assert all(logprob <= 0 for logprob in joined["token_logprobs"])
    offsets = [sum(map(len, joined["tokens"][:position])) for position in range(count)]
    assert [offset - joined["text_offset"][0] for offset in joined["text_offset"]] == offsets, "the offsets are wrong"
