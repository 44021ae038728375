"""Prompts and answer lengths from a data file: ShareGPT's JSON, OpenAI's messages, or plain prompts; one list or JSON lines."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoke_tests.errors import TargetError

ASKERS = ("human", "user")
FORMATS = (
    'an entry is {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}, '
    '{"messages": [{"role": ..., "content": ...}]} or {"prompt": ..., "completion": ... or "output_tokens": ...}'
)


class DatasetError(TargetError):
    """The data file cannot be used; one line says where and why."""


@dataclass(frozen=True)
class Entry:
    """One request: its messages, and the answer's length, given as text or in tokens, or unknown."""

    messages: tuple[dict[str, str], ...]
    answer: str = ""
    output_tokens: int | None = None

    @property
    def prompt(self) -> str:
        """The messages as one text, for the completions API."""
        return "\n".join(message["content"] for message in self.messages)


@dataclass(frozen=True)
class DataFile:
    """A data file's entries, with its name and a digest of its content."""

    name: str
    sha256: str
    entries: tuple[Entry, ...]


def read_data_file(path: Path) -> DataFile:
    """Return the file's entries. Raises DatasetError, which names the file and the entry."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DatasetError(f"--dataset: cannot read {path}: {reason}") from None
    found = _documents(text, path)
    if not found:
        raise DatasetError(f"--dataset: {path} has no entries; {FORMATS}")
    entries = tuple(_entry(document, f"{path}, entry {number}") for number, document in enumerate(found, 1))
    return DataFile(path.name, hashlib.sha256(content).hexdigest(), entries)


def _documents(text: str, path: Path) -> list[Any]:
    try:
        whole = json.loads(text)
    except RecursionError:
        raise DatasetError(f"--dataset: {path} is nested too deeply") from None
    except ValueError as error:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if not lines or not lines[0][1].lstrip().startswith("{"):
            raise DatasetError(f"--dataset: {path} is not valid JSON: {error}") from None
        return [_line(line, f"{path}, line {number}") for number, line in lines]
    if isinstance(whole, dict):
        whole = [whole]
    if not isinstance(whole, list):
        raise DatasetError(f"--dataset: {path} is not a list of entries; {FORMATS}")
    return whole


def _line(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        raise DatasetError(f"--dataset: {where} is nested too deeply") from None
    except ValueError as error:
        raise DatasetError(f"--dataset: {where} is not valid JSON: {error}") from None


def _entry(document: Any, where: str) -> Entry:
    if not isinstance(document, dict):
        raise DatasetError(f"--dataset: {where} is not an object; {FORMATS}")
    if "conversations" in document:
        turns = [_turn(turn, "from", "value", where) for turn in _list(document["conversations"], where)]
        return _first_question(turns, where)
    if "messages" in document:
        turns = [_turn(turn, "role", "content", where) for turn in _list(document["messages"], where)]
        return _last_question(turns, where)
    prompt = document.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise DatasetError(f"--dataset: {where} has no prompt; {FORMATS}")
    tokens, answer = document.get("output_tokens"), document.get("completion", "")
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1):
        raise DatasetError(f"--dataset: {where}: output_tokens is {json.dumps(tokens)}; give a whole number from 1")
    if not isinstance(answer, str):
        raise DatasetError(f"--dataset: {where}: completion is not a string")
    return Entry(({"role": "user", "content": prompt},), answer, tokens)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise DatasetError(f"--dataset: {where}: its turns are not a list; {FORMATS}")
    return value


def _turn(turn: Any, who: str, what: str, where: str) -> tuple[str, str]:
    if not isinstance(turn, dict) or not isinstance(turn.get(who), str) or not isinstance(turn.get(what), str):
        raise DatasetError(f'--dataset: {where}: a turn lacks "{who}" or "{what}" as text; {FORMATS}')
    return turn[who], turn[what]


def _first_question(turns: list[tuple[str, str]], where: str) -> Entry:
    """ShareGPT: the first turn of the human and the one after it, as in vLLM bench."""
    for number, (who, text) in enumerate(turns):
        if who in ASKERS and text.strip():
            answer = turns[number + 1][1] if number + 1 < len(turns) else ""
            return Entry(({"role": "user", "content": text},), answer)
    raise DatasetError(f"--dataset: {where}: no turn of the human")


def _last_question(turns: list[tuple[str, str]], where: str) -> Entry:
    """OpenAI's messages. A final answer is not sent; it defines the length of the answer."""
    answer = turns.pop()[1] if turns and turns[-1][0] == "assistant" else ""
    if not any(who == "user" and text.strip() for who, text in turns):
        raise DatasetError(f"--dataset: {where}: no message of the user")
    return Entry(tuple({"role": who, "content": text} for who, text in turns), answer)
