from __future__ import annotations

import json

import pytest

from image.gateway import usage


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b'{"usage":{"prompt_tokens":3,"total_tokens":8,"completion_tokens":5,"prompt_tokens_details":null},"x":1}', (3, 5)),
        (b'{"usage":{"prompt_tokens":3,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2}}}', (3, 5)),
        (b'data: {"usage": {"prompt_tokens": 3, "completion_tokens": 5}}\n\ndata: [DONE]\n\n', (3, 5)),
        (b'data: {"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\ndata: {"usage":null}\n\n', (3, 5)),
        (b'data: {"usage":{"prompt_tokens":3,"completion_tokens":1}}\ndata: {"usage":{"prompt_tokens":3,"completion_tokens":2}}', (3, 2)),
        (b'{"response":{"usage":{"input_tokens":3,"output_tokens":5,"total_tokens":8}}}', (3, 5)),
        (b'{"usage":{"prompt_tokens":3,"total_tokens":3}}', (3, None)),
        (b'{"usage":{"prompt_tokens":-3,"completion_tokens":1' + b"0" * 400 + b"}}", (None, None)),
        (b'{"usage":{"prompt_tok', (None, None)),
        (b'{"usage":', (None, None)),
        (b"", (None, None)),
        (json.dumps({"content": '"usage":{"prompt_tokens":1}'}).encode(), (None, None)),
    ],
)  # fmt: skip
def test_tokens(tail: bytes, expected: tuple[int | None, int | None]) -> None:
    assert usage.tokens(tail) == expected
