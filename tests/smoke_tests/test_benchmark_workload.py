"""What is asked: lengths, shared prefixes, and prompts from data files."""

import json
from pathlib import Path
from typing import Any

import pytest

from smoke_tests.benchmark.dataset import DatasetError, Entry, read_data_file
from smoke_tests.benchmark.record import Lengths
from smoke_tests.benchmark.workload import TokenScale, Workload
from tests.smoke_tests.fake_openai_server import MODEL

WORKLOAD = Workload(MODEL, "chat", Lengths(low=20, high=20), Lengths(low=4, high=4), scale=TokenScale(1.0, 4.0))
SHARE_GPT = [
    {"id": "a", "conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "x" * 400}]},
    {"conversations": [{"from": "system", "value": "s"}, {"from": "user", "value": "Only asked"}]},
]


def asked(workload: Workload, number: int) -> dict[str, Any]:
    request: dict[str, Any] = json.loads(workload.body(number))
    return request


def words(workload: Workload, number: int) -> list[str]:
    return str(asked(workload, number)["messages"][0]["content"]).split()


def changed(**changes: Any) -> Workload:
    return Workload(**(vars(WORKLOAD) | changes))


def test_prompts_differ_and_come_again_with_seed_and_nonce() -> None:
    bodies = {WORKLOAD.body(number) for number in range(20)}
    assert len(bodies) == 20
    assert changed().body(3) in bodies
    assert changed(nonce="another run").body(3) not in bodies
    assert asked(WORKLOAD, 3)["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert asked(changed(ignore_eos=False), 3)["stream_options"] == {"include_usage": True}
    assert asked(WORKLOAD, 3)["ignore_eos"] is True


def test_prompts_are_as_long_as_asked() -> None:
    assert [len(words(WORKLOAD, number)) for number in range(3)] == [16, 16, 16]
    double = changed(scale=TokenScale(2.0, 4.0))
    assert len(words(double, 0)) == 8
    ranged = changed(prompt_tokens=Lengths(low=10, high=30), output_tokens=Lengths(low=1, high=5), nonce="n")
    lengths = [len(words(ranged, number)) + 4 for number in range(300)]
    assert (min(lengths), max(lengths)) == (10, 30)
    assert {asked(ranged, number)["max_tokens"] for number in range(100)} == {1, 2, 3, 4, 5}
    # The lengths are the seed's, whatever the words are.
    again = changed(prompt_tokens=Lengths(low=10, high=30), output_tokens=Lengths(low=1, high=5), nonce="m")
    assert [len(words(again, number)) + 4 for number in range(300)] == lengths


def test_shared_beginnings_are_shared_in_turn() -> None:
    shared = changed(shared_prefix_tokens=30, shared_prefixes=2)
    beginnings = [words(shared, number)[:30] for number in range(4)]
    assert beginnings[0] == beginnings[2]
    assert beginnings[1] == beginnings[3]
    assert beginnings[0] != beginnings[1]
    assert [len(words(shared, number)) for number in range(4)] == [46] * 4
    assert len({tuple(words(shared, number)[30:]) for number in range(4)}) == 4


def test_completions_ask_with_a_prompt() -> None:
    request = asked(changed(api="completions"), 0)
    assert len(request["prompt"].split()) == 16
    assert "messages" not in request


@pytest.mark.parametrize("lines", [False, True])
def test_share_gpt_gives_first_questions_and_lengths_of_answers(tmp_path: Path, lines: bool) -> None:
    path = tmp_path / "share.json"
    path.write_text("\n".join(map(json.dumps, SHARE_GPT)) if lines else json.dumps(SHARE_GPT))
    file = read_data_file(path)
    assert [entry.prompt for entry in file.entries] == ["Hello?", "Only asked"]
    # A quarter of a token a character.
    workload = changed(data_file=file, output_tokens=None, scale=TokenScale(0.25, 4.0))
    requests = [asked(workload, number) for number in range(4)]
    assert {request["messages"][0]["content"]: request["max_tokens"] for request in requests} == {
        "Hello?": 100,
        "Only asked": 1,
    }
    assert sorted(request["max_tokens"] for request in requests) == [1, 1, 100, 100]
    described = workload.describe()
    assert described.dataset is not None
    assert (described.dataset.name, described.dataset.entries, described.prompt_tokens) == ("share.json", 2, None)
    assert asked(changed(data_file=file), 0)["max_tokens"] == 4


def test_messages_and_prompts_are_read_too(tmp_path: Path) -> None:
    turns = [("system", "Be brief"), ("user", "One?"), ("assistant", "1"), ("user", "Two?"), ("assistant", "22")]
    messages = [{"role": role, "content": content} for role, content in turns]
    path = tmp_path / "data.jsonl"
    path.write_text(
        f'{json.dumps({"messages": messages})}\n\n{{"prompt": "P", "completion": "C", "output_tokens": 7}}\n'
    )
    conversation, plain = read_data_file(path).entries
    assert conversation == Entry(tuple(messages[:4]), "22")
    assert plain == Entry(({"role": "user", "content": "P"},), "C", 7)
    workload = changed(data_file=read_data_file(path), output_tokens=None)
    assert {asked(workload, number)["max_tokens"] for number in range(2)} == {2, 7}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "data.json is not valid JSON"),
        (b"hello", "data.json is not valid JSON"),
        (b"[]", "data.json has no entries; an entry is"),
        (b"3", "data.json is not a list of entries"),
        (b"\xff\xfe", "cannot read .*: it is not UTF-8 text"),
        (b"[3]", "entry 1 is not an object"),
        (b'{"prompt": "a"}\n{"prompt":', "line 2 is not valid JSON"),
        (b'[{"prompt": "a"}, {"question": "b"}]', "entry 2 has no prompt"),
        (b'[{"prompt": " "}]', "entry 1 has no prompt"),
        (b'[{"prompt": "a", "output_tokens": "7"}]', 'entry 1: output_tokens is "7"; give a whole number from 1'),
        (b'[{"prompt": "a", "completion": 7}]', "entry 1: completion is not a string"),
        (b'[{"conversations": "a"}]', "entry 1: its turns are not a list"),
        (b'[{"conversations": [{"from": "human"}]}]', 'entry 1: a turn lacks "from" or "value" as text'),
        (b'[{"conversations": [{"from": "gpt", "value": "a"}]}]', "entry 1: no turn of the human"),
        (b'[{"messages": [{"role": "assistant", "content": "a"}]}]', "entry 1: no message of the user"),
    ],
)
def test_a_data_file_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=told) as raised:
        read_data_file(path)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("--dataset: ")
