"""Token counts, from the usage block near the end of an answer; looked for once, when the answer is over."""

from __future__ import annotations

import json

_MARK = b'"usage":'
_decode_from = json.JSONDecoder().raw_decode
# A usage block is some hundred bytes; what is behind it in an answer, some thousand at most.
_LONGEST_BYTES = 2048
_TRIES = 4
# A transcript in plain text may hold what looks like a usage block: no figure in it may end the metrics.
_MOST = 1 << 40


def tokens(tail: bytes) -> tuple[int | None, int | None]:
    """Tokens in and out as the last usage block says; None for what it does not.

    In JSON text the mark's quotes cannot come from within a string, where they would be escaped.
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
            # OpenAI's older paths say prompt and completion, /v1/responses says input and output.
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
