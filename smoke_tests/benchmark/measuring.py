"""Runs the loads in turn: warm-up, then the run with a progress line. Ctrl-C keeps the results so far."""

import asyncio
import contextlib
import itertools
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import uvloop

from infra.command_line import note_signal
from smoke_tests.benchmark.cost import DailyPattern, cost
from smoke_tests.benchmark.deployment import prefix_cache_counters, ready_replicas
from smoke_tests.benchmark.figures import client_share, failures, figures, samples, timeline
from smoke_tests.benchmark.load import LoadRun, Progress, Run
from smoke_tests.benchmark.record import Load, Measurement, Prices
from smoke_tests.benchmark.schedule import arrival_times
from smoke_tests.benchmark.stream_client import Endpoint
from smoke_tests.benchmark.workload import Workload
from smoke_tests.progress import ProgressLine
from smoke_tests.target import Target

WARMUP_AT_ONCE = 16
# Tokens a second as they are now, not since the start.
RATE_WINDOW_SECONDS = 3.0
BAR_CELLS = 20


@dataclass(frozen=True)
class Judging:
    """Parameters of the figures that are not part of the run."""

    slos_ms: dict[str, float]
    prices: Prices | None
    pattern: DailyPattern | None


class Measuring:
    """Measures loads against one endpoint. Requests are numbered across loads, so no two of a run are equal."""

    def __init__(self, target: Target, workload: Workload, timeout_seconds: float, line: ProgressLine) -> None:
        self._target = target
        self._endpoint = Endpoint(target.endpoint, target.api_key, target.user)
        self._workload = workload
        self._timeout_seconds = timeout_seconds
        self._line = line
        self._numbers = itertools.count()
        self._counters: tuple[float, float] | None = None

    @property
    def proxy(self) -> str:
        """The proxy that requests go through; empty without one."""
        return self._endpoint.proxy

    def measure(self, load: Load, judging: Judging) -> Measurement | None:
        """Return the result of a load; None if Ctrl-C ended it before the first request was answered."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        # Half of asyncio's own CPU seconds a chunk: the client must not be the bottleneck.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            run = runner.run(self._run(load))
        run.prefix_cache_share = self._prefix_cache_share()
        self._line.close()
        if not run.results:
            return None
        found = figures(run, judging.slos_ms)
        replicas = ready_replicas(self._target)
        return Measurement(
            load=load,
            started=started,
            interrupted=run.interrupted,
            replicas=replicas,
            figures=found,
            cost=cost(found, judging.prices, replicas, judging.pattern),
            failures=failures(run),
            client=client_share(run),
            samples=samples(run),
            timeline=timeline(run),
        )

    async def _run(self, load: Load) -> Run:
        loop = asyncio.get_running_loop()
        shower = _Shower(load, self._line)
        warm = LoadRun(self._endpoint, self._timeout_seconds)
        measured = LoadRun(self._endpoint, self._timeout_seconds, shower.show)
        with _stopping(loop, warm, measured):
            if load.warmup_requests:
                self._line.update(f"{load.label}: warming up with {load.warmup_requests} requests")
                at_once = min(load.warmup_requests, load.concurrency or WARMUP_AT_ONCE, WARMUP_AT_ONCE)
                await warm.closed(self._messages(load.warmup_requests), at_once)
            self._counters = await asyncio.to_thread(prefix_cache_counters, self._target)
            if load.mode == "closed":
                assert load.concurrency is not None
                at_once = min(load.concurrency, load.requests or load.concurrency)
                return await measured.closed(self._messages(load.requests), at_once, load.duration_seconds)
            assert load.request_rate is not None
            due = arrival_times(
                load.request_rate,
                requests=load.requests,
                duration_seconds=load.duration_seconds,
                burstiness=load.burstiness or 1.0,
                seed=self._workload.seed,
            )
            return await measured.open(self._messages(len(due)), due)

    def _prefix_cache_share(self) -> float | None:
        """Return the share of the prompt tokens since the warm-up that were in the engine's prefix cache."""
        before, after = self._counters, prefix_cache_counters(self._target) if self._counters else None
        if before is None or after is None or after[0] <= before[0] or after[1] < before[1]:
            return None
        return (after[1] - before[1]) / (after[0] - before[0])

    def _messages(self, count: int | None) -> Iterable[bytes]:
        """Return requests: made before the clock starts where their number is known, as writing JSON is not measured."""
        made = (self._endpoint.message(self._workload.path, self._workload.body(number)) for number in self._numbers)
        return made if count is None else list(itertools.islice(made, count))


class _Shower:
    """Shows the progress of a run, with the current tokens per second."""

    def __init__(self, load: Load, line: ProgressLine) -> None:
        self._load = load
        self._line = line
        self._seen: deque[tuple[float, int]] = deque([(0.0, 0)])

    def show(self, progress: Progress) -> None:
        """Show it."""
        self._seen.append((progress.elapsed_seconds, progress.token_chunks))
        while len(self._seen) > 2 and progress.elapsed_seconds - self._seen[1][0] >= RATE_WINDOW_SECONDS:
            self._seen.popleft()
        since, chunks = self._seen[0]
        rate = (progress.token_chunks - chunks) / max(progress.elapsed_seconds - since, 1e-9)
        requests, seconds = self._load.requests, self._load.duration_seconds
        share = progress.ended / requests if requests else progress.elapsed_seconds / (seconds or 1.0)
        filled = round(min(1.0, share) * BAR_CELLS)
        of = f" of {requests}" if requests else ""
        failed = f", {progress.failed} failed" if progress.failed else ""
        left = f"{progress.elapsed_seconds:.0f} s" + (f" of {seconds:.0f} s" if seconds else "")
        self._line.update(
            f"{self._load.label}: [{'#' * filled}{'.' * (BAR_CELLS - filled)}] {progress.ended}{of} done{failed}, "
            f"{progress.running} running, {rate:,.0f} tokens/s, {left}"
        )


@contextlib.contextmanager
def _stopping(loop: asyncio.AbstractEventLoop, *runs: LoadRun) -> Iterator[None]:
    """Make the first Ctrl-C (or SIGTERM) end the runs; the next one ends the program at once."""

    def stop(received: int) -> None:
        note_signal(received)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        for run in runs:
            run.stop()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
    except (ValueError, RuntimeError):
        pass  # not in the main thread: its caller handles signals
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, RuntimeError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
