"""Requests over plain HTTP that check what the SDK hides: content types, server-sent events and required fields."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
from pydantic import TypeAdapter, ValidationError

from smoke_tests.expectations import answer_text_of

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
Document = dict[str, Any]
# Two, three and four bytes in UTF-8: a hop that decodes and re-encodes would corrupt them.
FOREIGN_TEXT = "Grüße, 東京 🦜"


@dataclass(frozen=True)
class Wire:
    """Sends requests for one model and returns the JSON documents of the answers unchanged."""

    http: httpx2.Client
    model: str

    def answer(self, path: str, **body: Any) -> Document:
        """Return the answer to a request; temperature is 0 by default."""
        response = self.http.post(path, json={"model": self.model, "temperature": 0} | body)
        assert response.status_code == 200, f"HTTP {response.status_code}: {response.text[:300]}"
        content_type = response.headers.get("content-type", "")
        assert content_type.startswith("application/json"), f"the answer has content type {content_type!r}"
        document = json.loads(response.text, parse_constant=_refuse)
        assert isinstance(document, dict), f"the answer is not a JSON object: {response.text[:200]}"
        assert not document.get("error"), f"the answer with status 200 has an error: {response.text[:200]}"
        return document

    def stream(self, path: str, **body: Any) -> list[Document]:
        """Return the events of a streamed answer, without the final [DONE]; temperature is 0 by default."""
        request = {"model": self.model, "temperature": 0, "stream": True} | body
        with self.http.stream("POST", path, json=request) as response:
            content = response.read()
        text = content.decode()
        assert response.status_code == 200, f"HTTP {response.status_code}: {text[:300]}"
        content_type = response.headers.get("content-type", "")
        assert content_type.startswith("text/event-stream"), f"the stream has content type {content_type!r}"
        events = [event for _, event in _events(text)]
        assert events, "the stream is empty"
        if path != RESPONSES or events[-1] == "[DONE]":
            assert events[-1] == "[DONE]", f"the last event is not [DONE]: {events[-1][:80]!r}"
            events.pop()
        return [_document(event) for event in events]

    def event_names(self, path: str, **body: Any) -> list[tuple[str, Document]]:
        """Return the events of a streamed answer with the name in their `event:` line, empty without one."""
        response = self.http.post(path, json={"model": self.model, "temperature": 0, "stream": True} | body)
        assert response.status_code == 200, f"HTTP {response.status_code}: {response.text[:300]}"
        return [(name, _document(event)) for name, event in _events(response.text) if event != "[DONE]"]


def _events(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the data of each server-sent event, which a blank line ends."""
    lines = text.replace("\r\n", "\n").split("\n")
    assert lines[-1] == "", f"the stream ends within an event: {lines[-1][:80]!r}"
    name = ""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield name, "\n".join(data)
            name, data = "", []
        elif line.startswith("data:"):
            assert not data, f"an event has two data lines; a blank line is missing before {line[:80]!r}"
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        else:
            assert line.startswith((":", "id:", "retry:")), f"not a line of server-sent events: {line[:80]!r}"


def _refuse(constant: str) -> None:
    """Reject NaN and Infinity, which Python accepts and JSON does not have."""
    raise AssertionError(f"{constant} is not valid JSON")


def _document(event: str) -> Document:
    assert event != "[DONE]", "[DONE] is sent before the end of the stream"
    try:
        document = json.loads(event, parse_constant=_refuse)
    except ValueError:
        raise AssertionError(f"an event is not JSON: {event[:120]!r}") from None
    assert isinstance(document, dict), f"an event is not a JSON object: {event[:120]!r}"
    assert "error" not in document or document["error"] is None, f"the stream contains an error: {event[:200]}"
    return document


def assert_is(kind: Any, document: Document) -> None:
    """Assert that a document has every required field of an SDK type, with the right JSON types and known values."""
    try:
        TypeAdapter(kind).validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        problems = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()]
        raise AssertionError(f"not {getattr(kind, '__name__', 'a known type')}: {'; '.join(problems[:4])}") from None


def choices_of(events: list[Document]) -> list[Document]:
    """Return the choices of all chunks, in order."""
    return [choice for event in events for choice in event["choices"]]


def whole_text_of(events: list[Document]) -> str:
    """Return the text of the first streamed chat answer, including reasoning."""
    choices = (choice for choice in choices_of(events) if choice["index"] == 0)
    return "".join(answer_text_of(choice["delta"]) for choice in choices)


def text_of(events: list[Document], index: int = 0) -> str:
    """Return the text of one streamed chat answer, without reasoning."""
    deltas = [choice["delta"] for choice in choices_of(events) if choice["index"] == index]
    return "".join(delta.get("content") or "" for delta in deltas)
