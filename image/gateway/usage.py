"""Token counts from the usage block near the end of an answer. The block is searched for once, when the answer is over."""

from __future__ import annotations

import json

_MARK = b'"usage":'
_decode_from = json.JSONDecoder().raw_decode
# A usage block has a few hundred bytes, and at most a few thousand bytes follow it.
_LONGEST_BYTES = 2048
_TRIES = 4
# A plain-text transcript may contain text that looks like a usage block: limit its figures.
_MOST = 1 << 40


def tokens(tail: bytes) -> tuple[int | None, int | None]:
    """Input and output tokens from the last usage block; None for a missing count.

    Inside a JSON string, the quotes of the mark would be escaped, so a match is not part of a string.
    """
    end = len(tail)
    for _ in range(_TRIES):  # a stream's last chunks may hold "usage":null after the one that counts
        at = tail.rfind(_MARK, 0, end)
        if at < 0:
            break
        end = at
        start = at + len(_MARK)
        text = tail[start : start + _LONGEST_BYTES].decode("utf-8", "replace").lstrip()
        try:
            usage, _ = _decode_from(text)
        except ValueError:
            continue
        if isinstance(usage, dict):
            # OpenAI's older paths use prompt and completion, /v1/responses uses input and output.
            return (
                _count(usage, "prompt_tokens", "input_tokens"),
                _count(usage, "completion_tokens", "output_tokens"),
            )
    return None, None


def _count(usage: dict[str, object], *names: str) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and 0 <= value <= _MOST:
            return value
    return None
