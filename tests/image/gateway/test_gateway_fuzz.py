"""Mutated requests: the gateway and the servers around it always agree where each message ends.

`python -m benchmarks.gateway.fuzz` is the long run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks.gateway.fuzz_cases import KEY, Case, cases, seeds
from benchmarks.gateway.fuzzing import Found, as_h11_reads, fuzz, responses
from benchmarks.gateway.nginx import NGINX
from image.gateway.chunks import Chunks
from image.gateway.keys import KeyRing
from image.gateway.limits import Key
from image.gateway.request_head import BadRequestError, RequestHead

SEED = 7


async def test_mutated_requests(tmp_path: Path) -> None:
    found = await fuzz(600, SEED, tmp_path)
    assert found.problems == []
    # The run is of use only where much is served, and much is not.
    assert found.answers[200] > 60
    assert found.engine_requests > 60
    assert found.answers[400] > 60
    assert found.answers[401] > 60


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
async def test_mutated_requests_behind_nginx(tmp_path: Path) -> None:
    found = await fuzz(300, SEED, tmp_path, behind_nginx=True)
    assert found.problems == []
    assert found.engine_requests > 30


def _head(data: bytes, size: int) -> object:
    head = RequestHead(65536)
    at = 0
    try:
        while at < len(data) and not head.complete:
            at += head.feed(data[at : at + size])
    except BadRequestError:
        return "bad"
    return (at, head.headers, head.method, head.raw_path, head.length, head.chunked) if head.complete else "incomplete"


def _chunks(data: bytes, size: int) -> object:
    chunks, body, at = Chunks(), bytearray(), 0
    try:
        while at < len(data) and not chunks.complete:
            at += chunks.feed(data[at : at + size], body)
    except BadRequestError:
        return "bad"
    return (at, bytes(body)) if chunks.complete else "incomplete"


def test_how_the_network_cuts_a_request_makes_no_difference() -> None:
    for case in cases(300, SEED):
        data = case.data
        assert _head(data, 1) == _head(data, 7) == _head(data, len(data))
        body = data.partition(b"\r\n\r\n")[2]
        assert _chunks(body, 1) == _chunks(body, 7) == _chunks(body, len(body) or 1)


def test_the_same_seed_gives_the_same_cases() -> None:
    assert len(seeds(KEY, "case")) == 40
    assert [case.data for case in cases(50, SEED)] == [case.data for case in cases(50, SEED)]


async def test_a_gateway_that_lets_everybody_in_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def authenticate(self: KeyRing, headers: Iterable[tuple[bytes, bytes]]) -> Key:
        return Key("anybody")

    monkeypatch.setattr(KeyRing, "authenticate", authenticate)
    found = await fuzz(40, SEED, tmp_path)
    assert any("without a key" in problem for problem in found.problems)


async def test_a_gateway_that_misreads_chunks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk's end that is taken for a part of it: the kind of fault that smuggles."""
    feed = Chunks.feed

    def lax(self: Chunks, data: bytes, body: bytearray) -> int:
        size = feed(self, data, body)
        if self.complete:
            body += b" "
        return size

    monkeypatch.setattr(Chunks, "feed", lax)
    found = await fuzz(150, SEED, tmp_path)
    assert any("another body than h11 reads" in problem for problem in found.problems)


@pytest.mark.parametrize(
    ("answer", "engine", "has_key", "says"),
    [
        (b"", [b"a"], True, "1 requests at the engine, 0 answered"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", [b"a"], False, "without a key"),
        (b"HTTP/1.1 200 OK\r\nx-injected: 1\r\ncontent-length: 0\r\n\r\n", [], True, "unknown headers"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", [], True, "incomplete response"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nmore", [], True, "not the head"),
        (b'HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n"case-1-2-a-"', [], True, "another connection's answer"),
    ],
)
def test_what_is_wrong_is_found(answer: bytes, engine: list[bytes], has_key: bool, says: str) -> None:
    found = Found()
    body = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\na"
    found.judge(Case("case-1-1-b-", has_key, [body]), answer.replace(b"12", b"13"), engine)
    assert says in found.problems[0]


def test_the_readers_read() -> None:
    assert responses(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n") == [(204, b"")]
    two = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n"
    assert as_h11_reads(two) == ([b"a", b""], False)
    assert as_h11_reads(two[:-2] + b"a\x00\r\n\r\n") == ([b"a"], True)
