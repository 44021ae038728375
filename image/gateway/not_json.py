"""Names the field that makes a body invalid JSON, for values that Python's parser accepts and the strict one rejects."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from image.gateway import errors

# A body with more values is not searched, which would take longer than 0.1 s.
_MOST_VALUES = 100_000
_LONGEST_FIELD = 128
_SURROGATE = re.compile("[\ud800-\udfff]")
_LARGEST_BITS = 1024  # of a double


def explained(body: bytes, error: json.JSONDecodeError) -> errors.ApiError:
    """The 400 for a body that is not valid JSON, naming the field if it can be found."""
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        message = f"The body is not JSON: it is not UTF-8 at byte {wrong.start}"
    else:
        message = f"The body is not JSON: {error}"
    if sum(map(body.count, (b",", b"[", b"{"))) <= _MOST_VALUES:
        try:
            field, problem = _find(json.loads(body)) or ("", "")
        except (ValueError, RecursionError):  # Python's parser rejects it, too
            pass
        else:
            if problem:
                position = f"line {error.lineno} column {error.colno}" if error.pos else "not UTF-8"
                message = f"The body is not JSON: {problem} ({position})."
                return errors.bad_body(message, param=field[:_LONGEST_FIELD] or None)
    return errors.bad_body(message + ".")


def _find(document: Any) -> tuple[str, str] | None:
    """The first value in document order that is not valid JSON: its field, and the problem."""
    left: list[tuple[str, Any]] = [("", document)]
    while left:
        field, value = left.pop()
        name = repr(field[:_LONGEST_FIELD]) if field else "the document"
        if isinstance(value, str):
            if found := _SURROGATE.search(value):
                return (
                    field,
                    f"{name} contains an unpaired surrogate, \\u{ord(found[0]):04x}, which is not Unicode text",
                )
        elif isinstance(value, float):
            if not math.isfinite(value):
                return field, f"{name} is not a finite number"
        elif isinstance(value, int):
            if value.bit_length() > _LARGEST_BITS:
                return field, f"{name} is a number too large for a double"
        elif isinstance(value, list):
            left += [(f"{field}[{at}]", item) for at, item in reversed(list(enumerate(value)))]
        elif isinstance(value, dict):
            if any(_SURROGATE.search(key) for key in value):
                return field, f"a name in {name} contains an unpaired surrogate"
            left += [(f"{field}.{key}" if field else key, item) for key, item in reversed(value.items())]
    return None
