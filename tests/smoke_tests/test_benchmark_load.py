"""When requests are due, and that a late client shows in the figures."""

import asyncio
import time
from itertools import pairwise
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoke_tests.benchmark.load import LoadRun, Run
from smoke_tests.benchmark.schedule import arrival_times
from smoke_tests.benchmark.stream_client import Endpoint
from tests.smoke_tests.paced_server import PacedServer, paced

BODY = b'{"stream": true, "max_tokens": 2, "messages": [{"content": "a"}]}'


@given(st.floats(0.1, 1000), st.integers(1, 200), st.sampled_from([0.2, 1.0, 5.0, 1e6]), st.integers(0, 9))
def test_arrivals_rise_keep_the_rate_and_come_again_with_the_seed(
    rate: float, requests: int, burstiness: float, seed: int
) -> None:
    times = arrival_times(rate, requests=requests, duration_seconds=None, burstiness=burstiness, seed=seed)
    assert len(times) == requests
    assert all(earlier <= later for earlier, later in pairwise([0.0, *times]))
    assert times[-1] == pytest.approx(requests / rate)
    assert times == arrival_times(rate, requests=requests, duration_seconds=None, burstiness=burstiness, seed=seed)


@pytest.mark.parametrize(("burstiness", "variation"), [(0.25, 2.0), (1.0, 1.0), (4.0, 0.5), (1e6, 0.001)])
def test_gaps_vary_as_a_gamma_distribution_does(burstiness: float, variation: float) -> None:
    times = arrival_times(10.0, requests=20_000, duration_seconds=None, burstiness=burstiness)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(variation, rel=0.05, abs=1e-9)


def test_a_duration_bounds_the_arrivals() -> None:
    times = arrival_times(100.0, requests=None, duration_seconds=20.0, seed=3)
    assert max(times) < 20.0
    assert len(times) == pytest.approx(2000, rel=0.1)


def test_another_seed_has_other_arrivals() -> None:
    one, other = (arrival_times(1.0, requests=3, duration_seconds=None, seed=seed) for seed in (0, 1))
    assert one != other


def test_a_client_that_is_late_is_in_the_figures() -> None:
    async def load(endpoint: str) -> Run:
        sender = Endpoint(endpoint, None)
        asyncio.get_running_loop().call_later(0.03, time.sleep, 0.3)
        return await LoadRun(sender, 10.0).open([sender.message("/v1/chat/completions", BODY)] * 2, [0.1, 0.2])

    with paced(PacedServer(ttft_seconds=0.01, gap_seconds=0.001)) as server:
        run = asyncio.run(load(server.endpoint))
    # Due at 0.1 and 0.2 s, sent at 0.33 s at the earliest: the server was fast, a user would have waited all the same.
    first, second = sorted(result.ttft_seconds for result in run.results)
    assert second > 0.23
    assert 0.13 < first < second
    assert max(run.send_delay_seconds) > 0.2


def test_an_open_loop_waits_for_nobody() -> None:
    with paced(PacedServer(ttft_seconds=0.2, gap_seconds=0.001)) as server:
        sender = Endpoint(server.endpoint, None)
        messages = [sender.message("/v1/chat/completions", BODY)] * 8
        asyncio.run(LoadRun(sender, 10.0).open(messages, [0.01 * number for number in range(8)]))
        answers = server.sent
    assert max(answer.received for answer in answers) < min(answer.chunks[0] for answer in answers)


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_a_duration_ends_the_sending_and_not_the_answers(mode: str) -> None:
    with paced(PacedServer(ttft_seconds=0.02, gap_seconds=0.001)) as server:
        sender = Endpoint(server.endpoint, None)
        message = sender.message("/v1/chat/completions", BODY)
        run = LoadRun(sender, 10.0)
        if mode == "closed":
            done = asyncio.run(run.closed(iter(lambda: message, b""), 2, duration_seconds=0.1))
        else:
            due = arrival_times(100.0, requests=None, duration_seconds=0.1)
            done = asyncio.run(run.open([message] * len(due), due))
    assert {result.failure for result in done.results} == {""}
    assert max(result.started_seconds for result in done.results) < 0.11
    assert len(done.results) == len(server.sent)


def test_an_idle_connection_that_the_server_closed_fails_nothing() -> None:
    async def load() -> Run:
        requests = 0
        over = asyncio.Semaphore(0)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """Answer one request a connection, keep it open, and close it when the next one comes, unread."""
            nonlocal requests
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len(BODY))
            requests += 1
            events = b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "length"}]}\n\ndata: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}\n\ndata: [DONE]\n\n'
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(events)}\r\n\r\n"
            writer.write(head.encode() + events)
            await reader.read(1)
            writer.close()
            over.release()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            sender = Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None)
            run = await LoadRun(sender, 10.0).closed([sender.message("/", BODY)] * 3, 1)
            for _ in range(3):
                await over.acquire()
            assert requests == 3
            return run

    assert [result.failure for result in asyncio.run(load()).results] == ["", "", ""]
