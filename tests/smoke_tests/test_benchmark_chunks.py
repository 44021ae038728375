"""Chunk patterns, ends of answers and failures of the client: what is a time, a good answer, the endpoint's fault."""

import errno
import json
import resource
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from smoke_tests.benchmark import client_limits
from smoke_tests.benchmark.client_limits import require_client_resources
from smoke_tests.benchmark.figures import client_share, figures
from smoke_tests.benchmark.load import LoadRun, Run, failure_kind
from smoke_tests.benchmark.record import Load
from smoke_tests.benchmark.stream_client import Endpoint, Response
from smoke_tests.benchmark.timeline import RequestResult, Timeline
from smoke_tests.errors import TargetError

STREAM = Response(200, "text/event-stream")
DONE = b"data: [DONE]\n\n"


def event(content: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if content is None else [{"index": 0, "delta": content, "finish_reason": finish}]
    return b"data: " + json.dumps({"choices": choices} | more).encode() + b"\n\n"


def usage(tokens: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": 7, "completion_tokens": tokens} | more


def counting(tokens: int, *, counted: bool) -> dict[str, Any]:
    return {"usage": usage(tokens)} if counted else {}


def answer(sizes: list[int], *, counted: bool, finish: str | None = "length") -> RequestResult:
    """Chunks of `sizes` tokens that arrive a second apart, the first a second after sending."""
    timeline, sent = Timeline(), 0
    timeline.feed(event({"role": "assistant", "content": ""}, **counting(0, counted=counted)), 0.5)
    for number, size in enumerate(sizes):
        sent += size
        timeline.feed(event({"content": "abcd" * size}, **counting(sent, counted=counted)), 1.0 + number)
    timeline.feed(event({}, finish, **counting(sent, counted=counted)) + event(usage=usage(sent)) + DONE, 99)
    return timeline.result(STREAM, 0.0, 99.0, 0.0)


@pytest.mark.parametrize("counted", [True, False], ids=["counted_by_the_server", "estimated"])
@pytest.mark.parametrize(
    ("sizes", "tpot"),
    [
        ([1, 1, 1, 1], 1.0),
        ([4, 4, 4], 2 / 8),
        ([10, 1, 1, 1], 1.0),
        ([1, 3, 5, 2], 3 / 10),
        ([10, 10], 1 / 10),
        ([20], None),
        ([1], None),
    ],
)
def test_tpot_is_of_the_tokens_after_the_first_chunk(sizes: list[int], tpot: float | None, counted: bool) -> None:
    result = answer(sizes, counted=counted)
    assert result.failure == ""
    assert (result.ttft_seconds, result.latency_seconds) == (1.0, float(len(sizes)))
    assert result.tpot_seconds == (None if tpot is None else pytest.approx(tpot))
    assert result.gaps_seconds == (1.0,) * (len(sizes) - 1)


@pytest.mark.parametrize("counted", [True, False], ids=["counted_by_the_server", "estimated"])
@pytest.mark.parametrize(
    ("reads", "tpot"),
    [
        ([[1, 1, 1, 1]], None),
        ([[1, 1], [1], [1]], 2 / 2),
        ([[2, 2], [4]], 1 / 4),
        ([[1], [1, 1, 1]], 1 / 3),
        ([[3, 1], [1, 1], [2]], 2 / 4),
    ],
)
def test_chunks_that_were_read_together_have_no_time_between_them(
    reads: list[list[int]], tpot: float | None, counted: bool
) -> None:
    """As behind a busy gateway, or at a client that did not get the CPU."""
    timeline, sent = Timeline(), 0
    for number, sizes in enumerate(reads):
        body = b""
        for size in sizes:
            sent += size
            body += event({"content": "abcd" * size}, **counting(sent, counted=counted))
        timeline.feed(body, 1.0 + number)
    timeline.feed(event({}, "length", **counting(sent, counted=counted)) + event(usage=usage(sent)) + DONE, 99)
    result = timeline.result(STREAM, 0.0, 99.0, 0.0)
    assert result.tpot_seconds == (None if tpot is None else pytest.approx(tpot))


def test_tokens_that_a_parser_holds_back_are_counted_when_they_are_made() -> None:
    timeline = Timeline()
    for second in range(1, 4):
        timeline.feed(event({"content": "" if second < 3 else "{}"}, usage=usage(second)), float(second))
    timeline.feed(event({}, "stop", usage=usage(3)) + event(usage=usage(3)) + DONE, 4.0)
    result = timeline.result(STREAM, 0.0, 4.0, 0.0)
    assert (result.ttft_seconds, result.tpot_seconds) == (1.0, 1.0)


def test_without_a_tpot_a_request_meets_no_limit_for_it_and_is_counted() -> None:
    run = Run([answer([20], counted=True), answer([1, 1], counted=True)], duration_seconds=1.0)
    told = figures(run, {"tpot": 5000})
    assert (told.request_goodput, told.without_tpot) == (1.0, 1)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (event({"content": "a"}) + event({}, "abort"), "aborted"),
        (event({"content": "a"}) + event({}, "error"), "aborted"),
        (event({"content": "a"}) + event({}, "content_filter"), "aborted"),
        (event({"content": "a"}), "no_finish_reason"),
        (event({"content": "a"}, "length") + event({"content": "b"}), "tokens_after_finish"),
        (event({"content": "a"}, "length") + event(error={"message": "died"}), "error_in_stream"),
        (event({"content": "a"}, "stop"), ""),
        (event({"tool_calls": [{"index": 0}]}) + event({}, "tool_calls"), ""),
    ],
)
def test_only_whole_answers_are_good(body: bytes, kind: str) -> None:
    timeline = Timeline()
    timeline.feed(body + event(usage=usage(2)) + DONE, 1.0)
    assert timeline.result(STREAM, 0.0, 2.0, 0.0).failure == kind


def test_tokens_after_done_are_not_good() -> None:
    timeline = Timeline()
    timeline.feed(event({"content": "a"}, "stop") + event(usage=usage(1)) + DONE + event({"content": "b"}), 1.0)
    assert timeline.result(STREAM, 0.0, 2.0, 0.0).failure == "tokens_after_finish"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EMFILE, "x"), "client_open_files"),
        (OSError(errno.EADDRNOTAVAIL, "x"), "client_ports"),
        (OSError(errno.ENOBUFS, "x"), "client_memory"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "client_dns"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connect"),
        (ssl.SSLCertVerificationError(1, "x"), "connect"),
    ],
)
def test_what_this_machine_could_not_do_is_not_the_endpoints_failure(error: OSError, kind: str) -> None:
    assert failure_kind(error) == kind
    good = answer([1, 1], counted=True)
    told = figures(Run([good, RequestResult(0, 1, failure=kind, detail="x")], duration_seconds=1.0))
    ours = kind != "connect"
    assert (told.client_errors, told.failed, told.success_rate) == ((1, 0, 1.0) if ours else (0, 1, 0.5))


async def test_a_run_out_of_ports_counts_client_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(_: Endpoint) -> Any:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr(Endpoint, "connect", connect)
    endpoint = Endpoint("http://127.0.0.1:1", None)
    run = await LoadRun(endpoint, 1.0).open([endpoint.message("/", b"{}")] * 3, [0.0, 0.0, 0.0])
    told = figures(run)
    assert (told.client_errors, told.failed) == (3, 0)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A soft limit of 64 open files, which can be raised to 1024."""
    state: dict[str, Any] = {"now": (64, 1024)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: state["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, value: state.update(now=value))
    return state


def closed(concurrency: int) -> Load:
    return Load(mode="closed", concurrency=concurrency)


def test_the_soft_limit_of_open_files_is_raised(limits: dict[str, Any]) -> None:
    require_client_resources([closed(150)])
    assert limits["now"] == (1024, 1024)


def test_too_many_connections_for_this_machine_are_refused_in_one_line(
    limits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TargetError, match="needs 1032 open files, but the hard limit of this process is 1024"):
        require_client_resources([closed(1), closed(1000)])
    (tmp_path / "range").write_text("32768\t32777\n")
    monkeypatch.setattr(client_limits, "PORT_RANGE", tmp_path / "range")
    with pytest.raises(TargetError, match="only 10 ephemeral ports"):
        require_client_resources([closed(11)])


async def test_a_single_stall_of_the_client_is_not_hidden_by_its_own_missing_samples() -> None:
    # One stall of 2 s in 60 s: a plain p99 of the samples that were taken would miss it.
    run = Run([answer([1, 1], counted=True)], duration_seconds=60.0)
    run.loop_lag_seconds = [0.0] * 1160 + [2.0 - 0.05 * number for number in range(41)]
    assert "late" in client_share(run).warning


def test_the_cached_share_is_the_usages_else_the_engines_counters() -> None:
    def result(details: dict[str, Any] | None) -> RequestResult:
        timeline = Timeline()
        timeline.feed(
            event({"content": "a"}, "stop") + event(usage=usage(1, prompt_tokens_details=details)) + DONE, 1.0
        )
        return timeline.result(STREAM, 0.0, 2.0, 0.0)

    assert figures(Run([result({"cached_tokens": 4}), result(None)])).cached_prompt_tokens == 4
    assert figures(Run([result(None)] * 2)).cached_prompt_tokens is None
    assert figures(Run([result(None)] * 2, prefix_cache_share=0.5)).cached_prompt_tokens == 7
