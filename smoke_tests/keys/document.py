"""Edits a keys document: text in, text out. Errors never contain a key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from image.gateway import keys_document
from image.gateway.keys_document import KeysError, Pairs, rfc_3339, timestamp
from smoke_tests.errors import TargetError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# An expired key stays in the document this long, so that the error can name its expiry date.
KEPT_AFTER_EXPIRY_SECONDS = 30 * 86400

Entry = dict[str, Any]


class Document:
    """Names and their keys, the newest first, parsed as a gateway does."""

    def __init__(self, text: str) -> None:
        """Raises TargetError if a gateway would reject the text. An empty text is a document without keys."""
        self._entries: dict[str, list[Entry]] = {}
        if not text.strip():
            return
        try:
            keys_document.parse(text)
            for name, value in keys_document.entries(text):
                self._entries.setdefault(name, []).append(_plain(value))
        except KeysError as error:
            raise TargetError(f"the keys document cannot be used: {'; '.join(error.problems)}") from None

    def text(self) -> str:
        """The document as JSON, validated by the gateway's parser."""
        document = {
            name: [_shortest(entry) for entry in entries] if len(entries) > 1 else _shortest(entries[0])
            for name, entries in self._entries.items()
        }
        text = json.dumps(document, indent=2) + "\n"
        try:
            keys_document.parse(text)
        except KeysError as error:
            raise TargetError("; ".join(error.problems)) from None
        return text

    def add(self, name: str, key: str, options: Mapping[str, Any], now: float) -> None:
        """A first key for a name."""
        if not NAME.fullmatch(name):
            raise TargetError(f"{name!r} is not a name of 1 to 64 letters, digits, dots, hyphens and underscores")
        if any(not _expired(entry, now) for entry in self._entries.get(name, ())):
            raise TargetError(f"{name} has a key already; give it a new one with ROTATE={name}, or choose another name")
        self._entries[name] = [{"key": key, **options}, *self._entries.get(name, [])]
        self._forget(now)

    def rotate(self, name: str, key: str, options: Mapping[str, Any], now: float, grace_seconds: float) -> None:
        """Add a key to a name, with the newest key's limits changed by `options`. The old keys stay valid for the grace period."""
        entries = self._found(name)
        ends = now + grace_seconds
        template = entries[0]
        new = {"key": key, **{field: value for field, value in template.items() if field != "key"}, **options}
        if "expires" not in options and _expired(new, now):
            new.pop("expires", None)
        for entry in entries:
            if "expires" not in entry or timestamp(entry["expires"]) > ends:
                entry["expires"] = rfc_3339(ends)
        self._entries[name] = [new, *entries]
        self._forget(now)

    def revoke(self, name: str) -> None:
        """Revoke every key of a name."""
        self._found(name)
        if len(self._entries) == 1:
            # A gateway ignores a document without keys, because it may be a half-written file.
            raise TargetError(f"{name} has the only key, and a document needs one; add another name first")
        del self._entries[name]

    def rows(self, now: float) -> list[dict[str, str]]:
        """Everything about each key except the key."""
        found = []
        for name, entries in self._entries.items():
            for entry in entries:
                limits = entry.get("limits") or {}
                found.append(
                    {
                        "name": name,
                        "state": "expired" if _expired(entry, now) else "good",
                        "expires": str(entry.get("expires", "never")),
                        "limits": ", ".join(f"{limit} {value}" for limit, value in limits.items()) or "none",
                        "priority": str(entry.get("priority", 0)),
                        "for": "health checks" if entry.get("health") else "requests",
                    }
                )
        return found

    def _found(self, name: str) -> list[Entry]:
        if name not in self._entries:
            raise TargetError(f"there is no key named {name}; LIST=1 lists the names")
        return self._entries[name]

    def _forget(self, now: float) -> None:
        for name, entries in list(self._entries.items()):
            left = [entry for entry in entries if not _expired(entry, now - KEPT_AFTER_EXPIRY_SECONDS)]
            self._entries[name] = left
            if not left:
                del self._entries[name]


def _plain(value: Any) -> Any:
    """JSON's objects as dictionaries; a bare key as an entry."""
    if isinstance(value, str):
        return {"key": value}
    return {name: dict(inner) if isinstance(inner, Pairs) else inner for name, inner in value}


def _shortest(entry: Entry) -> Any:
    return entry["key"] if set(entry) == {"key"} else entry


def _expired(entry: Entry, now: float) -> bool:
    return "expires" in entry and timestamp(entry["expires"]) <= now
