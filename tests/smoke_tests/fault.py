"""A fault of the fake server: what it changes on the wire, and the conformance tests that catch it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """The tests that fail with a fault: exactly `tests`, in `file`.

    `breaks_much`: other tests of the file may fail, too. `part` names what `change` changes, for example "chat request",
    "chat answer", "chat stream" (the list of chunks), "error", "models" or "lines" (the bytes of each server-sent event).
    Both are empty for a fault that the server implements itself.
    """

    file: str
    tests: frozenset[str]
    breaks_much: bool = False
    part: str = ""
    change: Callable[[Any], Any] | None = None

    @property
    def is_embedding(self) -> bool:
        """Whether the fault is in embeddings, which the server serves only then."""
        return self.file == "test_embeddings.py"


def fails(file: str, *tests: str) -> Fault:
    """Return a fault that the server implements, with the file and the tests without their prefix test_."""
    return Fault(f"test_{file}.py", frozenset(f"test_{name}" for name in tests))


def fails_among_others(file: str, *tests: str) -> Fault:
    """Return a fault that the server implements, and the most specific of the tests that catch it."""
    return Fault(f"test_{file}.py", frozenset(f"test_{name}" for name in tests), breaks_much=True)


def each(name: str, *ids: str) -> tuple[str, ...]:
    """Return the names of the cases of a parametrized test."""
    return tuple(f"{name}[{identifier}]" for identifier in ids)


def mutant(part: str, change: Callable[[Any], Any], file: str, test: str) -> Fault:
    """Return a fault that changes one part of the traffic, with the file and the most specific test that catches it."""
    return Fault(f"test_{file}.py", frozenset({f"test_{test}"}), breaks_much=True, part=part, change=change)


# Shorthand for the tables of mutants: each changes or returns the parts of documents and lists of chunks.


def put(**fields: Any) -> Callable[[Body], None]:
    """Return a change that sets fields of a document."""
    return lambda document: document.update(fields)


def drop(*fields: str) -> Callable[[Body], None]:
    """Return a change that removes fields of a document."""

    def change(document: Body) -> None:
        for field in fields:
            document.pop(field, None)

    return change


def every(of: Callable[[Any], list[Body]], change: Callable[[Body], Any]) -> Callable[[Any], None]:
    """Return a change of each part that `of` selects."""

    def changed(documents: Any) -> None:
        for part in of(documents):
            change(part)

    return changed


def choices(documents: Any) -> list[Body]:
    """Return the choices of a document or of all chunks."""
    documents = documents if isinstance(documents, list) else [documents]
    return [choice for document in documents for choice in document["choices"]]


def messages(document: Body) -> list[Body]:
    """Return the messages of a chat answer."""
    return [choice["message"] for choice in choices(document)]


def usages(documents: Any) -> list[Body]:
    """Return the usages of a document or of all chunks."""
    documents = documents if isinstance(documents, list) else [documents]
    return [document["usage"] for document in documents if document.get("usage")]


def deltas(events: list[Body]) -> list[Body]:
    """Return the deltas of all chunks."""
    return [choice["delta"] for choice in choices(events)]


def calls(documents: Any) -> list[Body]:
    """Return the tool calls of an answer, or their chunks."""
    holders = deltas(documents) if isinstance(documents, list) else messages(documents)
    return [call for holder in holders for call in holder.get("tool_calls") or ()]


def chunks(events: list[Body]) -> list[Body]:
    """Return all chunks."""
    return events


def with_calls(documents: Any) -> list[Body]:
    """Return the choices of an answer, or of its chunks, if it has a tool call."""
    return choices(documents) if calls(documents) else []
