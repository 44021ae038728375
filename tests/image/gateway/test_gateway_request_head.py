"""Validation of headers and chunked bodies. Each rejection is matched by its message, so that no other fault hides it."""

from __future__ import annotations

import pytest

from image.gateway.chunks import Chunks
from image.gateway.comments import COMMENT, Comments
from image.gateway.request_head import BadRequestError, RequestHead


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked", "only Transfer-Encoding supported is chunked"),
        ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: identity, chunked", "only Transfer-Encoding supported"),
        ("POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked", "HTTP/1.0 has no Transfer-Encoding"),
        ("GET / HTTP/1.1", "no Host header"),
        ("GET / HTTP/1.1\r\nhost: x\r\nhost: x", "one Host header"),
    ],
)  # fmt: skip
def test_a_head_is_refused_for_what_is_wrong_with_it(head: str, words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        RequestHead(4096).feed(head.encode() + b"\r\n\r\n")


@pytest.mark.parametrize("rest", [b"X\r\n0\r\n\r\n", b"XX0\r\n\r\n", b"\n0\r\n\r\n", b"\rX0\r\n\r\n"])
def test_a_chunk_ends_where_its_size_says(rest: bytes) -> None:
    with pytest.raises(BadRequestError, match="longer than its size"):
        Chunks().feed(b"5\r\nhello" + rest, bytearray())


class Stream:
    """An exchange as comments see it, with a clock of its own."""

    def __init__(self) -> None:
        self.loop, self.sent = self, [b""]
        self.over = self.behind = False
        self.answered = True

    @property
    def bytes_out(self) -> int:
        return len(b"".join(self.sent))

    def call_later(self, seconds: float, look: object) -> object:
        self.look = look
        return self

    def part(self, data: bytes) -> None:
        self.sent.append(data)

    def passes(self) -> list[bytes]:
        """What was sent at the timer's next look."""
        before = len(self.sent)
        self.look()  # type: ignore[operator]
        return self.sent[before:]


def test_events_that_flow_are_sent_no_comment() -> None:
    stream = Stream()
    comments = Comments(stream, 10)  # type: ignore[arg-type]
    for _ in range(3):
        stream.part(b"data: x\n\n")
        assert stream.passes() == []
    assert stream.passes() == [COMMENT]
    comments.inside_event = True
    stream.passes()
    assert stream.passes() == []
