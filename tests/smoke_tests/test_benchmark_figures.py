"""The formulas, with times made up so that the right answer is known by hand."""

import functools
import json
import statistics
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoke_tests.benchmark.figures import client_share, failures, figures, percentile, samples, spread_ms, timeline
from smoke_tests.benchmark.load import Run
from smoke_tests.benchmark.record import Failure
from smoke_tests.benchmark.stream_client import Response
from smoke_tests.benchmark.timeline import RequestResult, Timeline

STREAM = Response(status=200, content_type="text/event-stream; charset=utf-8")
GOOD = RequestResult(0.0, 1.0, 0.1, 0.9, (0.2, 0.6), prompt_tokens=100, output_tokens=5)


def event(**choice: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}}\n\n'
BODY = [
    b": held\n\n",
    event(delta={"role": "assistant", "content": ""}, finish_reason=None),
    event(delta={"content": "Gr"}, finish_reason=None),
    event(delta={"content": ""}, finish_reason=None),
    event(delta={"content": "üße"}, finish_reason=None),
    event(delta={}, finish_reason="stop"),
    USAGE,
    b"data: [DONE]\n\n",
]


def fed(pieces: list[bytes]) -> Timeline:
    """Feed pieces that arrive a second apart, the first at 11."""
    timeline = Timeline()
    for number, piece in enumerate(pieces):
        timeline.feed(piece, 11.0 + number)
    return timeline


@pytest.mark.parametrize(
    ("values", "rank", "expected"),
    # numpy.percentile's own answers.
    [
        ([4.0, 1.0, 3.0, 2.0], 50, 2.5),
        ([1.0, 2.0, 3.0, 4.0], 99, 3.97),
        ([5.0], 90, 5.0),
        ([1.0, 9.0], 0, 1.0),
        ([1.0, 9.0], 100, 9.0),
    ],
)
def test_percentiles_interpolate(values: list[float], rank: float, expected: float) -> None:
    assert percentile(values, rank) == pytest.approx(expected)


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
    assert set(spread_ms("ttft", []).values()) == {None}


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100), st.floats(0, 100))
def test_percentiles_rise_and_stay_within(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    slack = 1e-9 * max(values)  # the last bit of a float
    bounds = [min(values), percentile(values, low), percentile(values, high), max(values)]
    assert all(smaller <= larger + slack for smaller, larger in pairwise(bounds))


def test_a_stream_is_timed_by_its_tokens() -> None:
    result = fed(BODY).result(STREAM, sent=10.0, ended=18.0, run_started=4.0)
    # Pieces arrive at 11, 12, ...: the tokens are the third to the fifth; the comment, the role, the end are none.
    assert (result.ttft_seconds, result.latency_seconds, result.gaps_seconds) == (3.0, 5.0, (1.0, 1.0))
    assert (result.started_seconds, result.ended_seconds) == (6.0, 14.0)
    assert (result.prompt_tokens, result.output_tokens) == (7, 4)
    assert result.tpot_seconds == pytest.approx(2.0 / 3)
    assert not result.failure


def test_completions_are_timed_by_their_text() -> None:
    body = [
        event(text="a", finish_reason=None),
        event(text="", finish_reason=None),
        event(text="b", finish_reason="length"),
    ]
    result = fed([*body, USAGE, b"data: [DONE]\n\n"]).result(STREAM, 10.0, 16.0, 10.0)
    assert (result.ttft_seconds, result.latency_seconds) == (1.0, 3.0)


def test_cuts_may_fall_anywhere() -> None:
    whole = b"".join(BODY)
    for cut in range(1, len(whole)):
        timeline = fed([whole[:cut], whole[cut:]])
        assert timeline.done
        assert len(timeline.token_times) == 3
        assert timeline.usage == {"prompt_tokens": 7, "completion_tokens": 4}


@pytest.mark.parametrize(
    ("body", "response", "failure", "detail"),
    [
        (BODY[:-1], STREAM, "cut_short", "without [DONE]"),
        (BODY[:4], replace(STREAM, broken="connection lost"), "cut_short", "connection lost"),
        ([*BODY[:-2], BODY[-1]], STREAM, "no_usage", "include_usage"),
        ([BODY[1], USAGE, BODY[-1]], STREAM, "no_tokens", "no chunk carried a token"),
        ([b'data: {"error": {"message": "engine died"}}\n\n', *BODY], STREAM, "error_in_stream", "engine died"),
        ([b"data: {oops\n\n", *BODY], STREAM, "error_in_stream", "not JSON"),
        ([b"data: 5\n\n", *BODY], STREAM, "error_in_stream", "5"),
        ([b'{"error": {"message": "slow down"}}'], replace(STREAM, status=429), "http_429", "slow down"),
        ([b"<html>"], Response(200, "text/html"), "not_a_stream", "<html>"),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value else "",
)
def test_failures_have_kinds(body: list[bytes], response: Response, failure: str, detail: str) -> None:
    result = fed(body).result(response, 10.0, 20.0, 10.0)
    assert result.failure == failure
    assert detail in result.detail


def test_figures_are_vllm_benchs() -> None:
    slow = replace(GOOD, ttft_seconds=0.3, latency_seconds=1.9, gaps_seconds=(0.8, 0.8), output_tokens=3)
    failed = RequestResult(0.0, 9.0, failure="http_500", detail="x")
    told = figures(Run([GOOD, slow, failed, failed], duration_seconds=4.0))
    assert (told.completed, told.failed, told.success_rate) == (2, 2, 0.5)
    assert (told.total_input_tokens, told.total_output_tokens) == (200, 8)
    assert (told.request_throughput, told.output_throughput, told.total_token_throughput) == (0.5, 2.0, 52.0)
    assert told.mean_ttft_ms == pytest.approx(200)
    assert told.std_ttft_ms == pytest.approx(100)
    # 0.8 s over 4 tokens after the first, and 1.6 s over 2.
    assert told.median_tpot_ms == pytest.approx(500)
    assert told.p99_tpot_ms == pytest.approx(200 + 0.99 * 600)
    # The gaps of all requests together: 0.2, 0.6, 0.8, 0.8
    assert told.mean_itl_ms == pytest.approx(600)
    assert told.median_itl_ms == pytest.approx(700)
    assert told.median_e2el_ms == told.p50_latency_ms == pytest.approx(1400)
    assert told.p90_e2el_ms == pytest.approx(1800)
    assert told.p99_e2el_ms == told.p99_latency_ms == pytest.approx(1890)
    assert told.mean_e2el_ms == told.avg_latency_ms == pytest.approx(1400)
    assert told.tps == 2.0


def test_one_token_has_no_time_per_output_token() -> None:
    told = figures(Run([replace(GOOD, output_tokens=1, gaps_seconds=())], duration_seconds=1.0))
    assert told.mean_tpot_ms is None
    assert told.mean_itl_ms is None
    assert told.mean_ttft_ms == pytest.approx(100)


def test_goodput_counts_what_kept_every_limit() -> None:
    slow = replace(GOOD, ttft_seconds=0.3)
    # (0.9 - 0.1) / 4 is 200 ms a token, (0.9 - 0.3) / 4 is 150 ms.
    run = Run([GOOD, slow, replace(GOOD, failure="timeout")], duration_seconds=2.0)
    assert figures(run).request_goodput is None
    for slos, kept in (({"ttft": 100}, 1), ({"ttft": 300, "tpot": 199}, 1), ({"e2el": 899}, 0), ({"tpot": 201}, 2)):
        assert figures(run, slos).request_goodput == kept / 2


finite = st.floats(0, 1e4)


@st.composite
def results(draw: st.DrawFn) -> RequestResult:
    ttft = draw(finite)
    return RequestResult(
        started_seconds=draw(finite),
        ended_seconds=draw(finite),
        ttft_seconds=ttft,
        latency_seconds=ttft + draw(finite),
        gaps_seconds=tuple(draw(st.lists(finite, max_size=4))),
        prompt_tokens=draw(st.integers(1, 1000)),
        output_tokens=draw(st.integers(1, 1000)),
        failure=draw(st.sampled_from(["", "", "timeout"])),
    )


@given(st.lists(results(), min_size=1, max_size=12), st.floats(0.1, 100))
def test_figures_are_those_of_the_statistics_module(requests: list[RequestResult], duration: float) -> None:
    told = figures(Run(requests, duration_seconds=duration), {"ttft": 5e6})
    good = [request for request in requests if not request.failure]
    assert told.completed + told.failed == len(requests)
    assert told.success_rate == len(good) / len(requests)
    assert told.output_throughput * duration == pytest.approx(sum(request.output_tokens for request in good))
    times = {
        "ttft": [request.ttft_seconds for request in good],
        "e2el": [request.latency_seconds for request in good],
        "itl": [gap for request in good for gap in request.gaps_seconds],
    }
    for name, seconds in times.items():
        if not seconds:
            assert getattr(told, f"mean_{name}_ms") is None
            continue
        close = functools.partial(pytest.approx, rel=1e-6, abs=1e-6)
        assert getattr(told, f"mean_{name}_ms") == close(statistics.fmean(seconds) * 1000)
        assert getattr(told, f"median_{name}_ms") == close(statistics.median(seconds) * 1000)
        assert getattr(told, f"std_{name}_ms") == close(statistics.pstdev(seconds) * 1000)
        if len(seconds) > 1:
            ninetieth = statistics.quantiles(seconds, n=10, method="inclusive")[-1]
            assert getattr(told, f"p90_{name}_ms") == close(ninetieth * 1000)


def test_tokens_are_told_by_the_time_of_their_arrival() -> None:
    run = Run([GOOD, GOOD], duration_seconds=100.0)
    run.token_chunks.update({0: 2, 4: 2, 999: 1})
    told = timeline(run)
    # Ten tokens in five chunks; a thousand buckets of 0.1 s become two hundred of 0.5 s.
    assert told.bucket_seconds == 0.5
    assert (len(told.tokens), told.tokens[0], told.tokens[-1], sum(told.tokens)) == (200, 8.0, 2.0, 10.0)


def test_samples_are_in_the_order_of_sending() -> None:
    late = RequestResult(5.0, 6.0, failure="timeout", detail="slow")
    told = samples(Run([late, GOOD], duration_seconds=6.0))
    assert told.start_ms == (0.0, 5000.0)
    assert told.ttft_ms == (100.0, None)
    assert told.failure == ("", "timeout")


@pytest.mark.parametrize(
    ("cpu_seconds", "lag_seconds", "warning"),
    [(0.3, 0.001, ""), (0.95, 0.001, "95% of one core"), (0.3, 0.08, "80 ms late")],
)
def test_a_client_that_is_the_bottleneck_says_so(cpu_seconds: float, lag_seconds: float, warning: str) -> None:
    run = Run([GOOD], duration_seconds=1.0, client_cpu_seconds=cpu_seconds, loop_lag_seconds=[lag_seconds] * 10)
    assert warning in client_share(run).warning
    assert bool(client_share(run).warning) == bool(warning)


def test_failures_are_counted_by_kind() -> None:
    broken = [RequestResult(0, 1, failure="http_503", detail=f"detail {number}") for number in range(3)]
    run = Run([GOOD, *broken, RequestResult(0, 1, failure="timeout", detail="slow")], duration_seconds=1.0)
    assert failures(run) == {
        "http_503": Failure(count=3, example="detail 0"),
        "timeout": Failure(count=1, example="slow"),
    }
