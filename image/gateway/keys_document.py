"""The keys document: the owner, limits and expiry of each key. Uses only the standard library, so that the programs that
deploy and manage keys parse a document exactly as the gateway does.
"""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

from image.gateway.limits import Key, Limits, shown

USABLE_KEY = re.compile(r"[\x21-\x7e]{1,512}")
LOWEST_PRIORITY, HIGHEST_PRIORITY = -100, 100
_NAMED = re.compile(r"([A-Za-z0-9_.-]{1,64})=(.*[^=].*)")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)")
_FIELDS = ("key", "limits", "expires", "priority", "health")


class KeysError(Exception):
    """The keys could not be loaded. The message names the source and never contains a key. `problems`: one line each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Pairs(list[tuple[str, Any]]):
    """A JSON object as a list of pairs, because a name may occur twice. A separate type, to distinguish it from an array."""


def entries(document: str) -> list[tuple[str, Any]]:
    """Names and entries in document order; an entry is a key's text or `Pairs` that contain it. Raises KeysError."""
    if not document.lstrip().startswith("{"):
        lines = (line.strip() for line in document.splitlines())
        named = [(_NAMED.fullmatch(line), line) for line in lines if line and not line.startswith("#")]
        return [(match[1], match[2].strip()) if match else ("default", line) for match, line in named]
    try:
        pairs: Pairs = json.loads(document, object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        # `from None`, because the exception's attributes contain the document.
        raise KeysError("the keys document starts with { but is not valid JSON; set {name: key} or lines") from None
    found: list[tuple[str, Any]] = []
    for name, value in pairs:
        found += [(name, entry) for entry in value] if type(value) is list else [(name, value)]
    return found


def parse(document: str) -> dict[str, Key]:
    """Map each key's text to its `Key`.

    A document is a JSON object {name: entry}, or lines of `name=key` or a bare key (named "default"). An entry is the key's
    text, an object {"key", "limits", "expires", "priority", "health"} of which only the first is required, or a list of
    entries, so that during a rotation the old key is valid until clients have the new one. A trailing "=" of a bare key is
    not a separator, because base64 ends in "=". Raises KeysError with all problems.
    """
    keys: dict[str, Key] = {}
    problems: list[str] = []
    for name, value in entries(document):
        try:
            text, key = _entry(name, value)
            if keys.setdefault(text, key).name != name:
                raise ValueError(f"{name!r} and {keys[text].name!r} are the same key; give each name its own")
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise KeysError(*problems)
    if not keys:
        raise KeysError("the keys document contains no key; set `none` to accept every request")
    return keys


def timestamp(text: object) -> float:
    """An RFC 3339 date and time with its offset as seconds since the epoch; raises ValueError."""
    if isinstance(text, str) and _RFC_3339.fullmatch(text):
        try:
            return datetime.datetime.fromisoformat(text.upper()).timestamp()
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"expires is {shown(text)}; set a date and time with its offset, such as 2027-01-31T00:00:00Z")


def rfc_3339(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339, in UTC, rounded down to a second."""
    return f"{datetime.datetime.fromtimestamp(int(seconds), datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _entry(name: str, value: Any) -> tuple[str, Key]:
    if name.startswith("sk-"):
        raise ValueError("a name begins with sk-, as keys do; write the name before the key: names are logged")
    options: dict[str, Any] = {}
    limits = None
    if isinstance(value, Pairs):
        options = dict(value)
        value = options.get("key")
        unknown = options.keys() - set(_FIELDS)
        if unknown or not isinstance(options.get("limits", Pairs()), Pairs):
            # A name that does not look like a field may be a misplaced key: do not print it.
            odd = min(unknown) if unknown and re.fullmatch("[a-z_]{1,24}", min(unknown)) else "another one"
            what = f"{odd!r} is not a field" if unknown else "limits is not an object"
            raise ValueError(
                f'{name!r} is not of the form {{"key": ..., "limits": {{"concurrency": ...}}, "expires": ...}}: {what}; '
                f"the fields are {', '.join(_FIELDS)}"
            )
        try:
            limits = Limits.parse(dict(options.get("limits", ())))
        except ValueError as error:
            raise ValueError(f"the limits of {name!r}: {error}") from None
    if not isinstance(value, str) or not USABLE_KEY.fullmatch(value):
        raise ValueError(f"the key named {name!r} is not 1 to 512 printable ASCII characters without spaces")
    try:
        expires = timestamp(options["expires"]) if "expires" in options else None
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None
    priority, health = options.get("priority", 0), options.get("health", False)
    if type(priority) is not int or not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        raise ValueError(
            f"{name!r}: priority is {shown(priority)}; set a whole number from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}"
        )
    if type(health) is not bool:
        raise ValueError(f"{name!r}: health is {shown(health)}; set true or false")
    return value, Key(name, limits, expires, priority, health)
