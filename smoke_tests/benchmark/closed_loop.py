"""The load: so many at once, each sending its next request when its last one is answered."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from smoke_tests.benchmark.stream_client import Connection, Endpoint, Response
from smoke_tests.benchmark.timeline import RequestResult, Timeline

LAG_SAMPLE_SECONDS = 0.05
PROGRESS_SECONDS = 0.25


@dataclass
class Run:
    """A finished run: `duration_seconds` from the first request to the end of the last answer.

    `client_cpu_seconds` is this process's own; `loop_lag_seconds` are samples of how late its event loop was,
    which is how wrong a time stamp may be.
    """

    results: list[RequestResult] = field(default_factory=list)
    duration_seconds: float = 0.0
    client_cpu_seconds: float = 0.0
    loop_lag_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """A run so far: requests ended, requests under way, chunks with tokens (about the tokens), seconds."""

    ended: int
    running: int
    token_chunks: int
    elapsed_seconds: float


class ClosedLoop:
    """Sends `messages`, at most `concurrency` at once, over one kept-alive connection each."""

    def __init__(
        self,
        endpoint: Endpoint,
        messages: list[bytes],
        concurrency: int,
        timeout_seconds: float,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._messages = messages
        self._concurrency = min(concurrency, len(messages))
        self._timeout_seconds = timeout_seconds
        self._on_progress = on_progress
        self._next = iter(messages)
        self._run = Run()
        self._started = 0.0
        self._running = 0
        self._token_chunks = 0

    async def run(self) -> Run:
        """Send everything and return the results, in the order in which they ended."""
        connections = await asyncio.gather(*(self._connect() for _ in range(self._concurrency)))
        watchers = [asyncio.create_task(self._watch_lag()), asyncio.create_task(self._report())]
        cpu_before = time.process_time()
        self._started = time.perf_counter()
        try:
            await asyncio.gather(*(self._worker(connection) for connection in connections))
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
        self._run.duration_seconds = time.perf_counter() - self._started
        self._run.client_cpu_seconds = time.process_time() - cpu_before
        return self._run

    async def _connect(self) -> Connection | None:
        # Failures are counted with the request that needed the connection.
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._endpoint.connect()
        except OSError:
            return None

    async def _worker(self, connection: Connection | None) -> None:
        # One iterator for all workers: each takes the next message when it is free.
        for message in self._next:
            self._running += 1
            connection, result = await self._send(connection, message)
            self._run.results.append(result)
            self._running -= 1
        if connection is not None:
            connection.close()

    async def _send(self, connection: Connection | None, message: bytes) -> tuple[Connection | None, RequestResult]:
        timeline = Timeline()

        def on_body(piece: bytes, arrived: float) -> None:
            self._token_chunks += timeline.feed(piece, arrived)

        sent = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if connection is None or not connection.usable:
                    connection = await self._endpoint.connect()
                response = await connection.request(message, on_body)
        except TimeoutError:
            if connection is not None:
                connection.close()
            return None, self._failed(sent, "timeout", f"no whole answer within {self._timeout_seconds:.0f} s")
        except OSError as error:
            return None, self._failed(sent, "connect", f"{type(error).__name__}: {error}")
        return connection, self._judged(timeline, response, sent)

    def _judged(self, timeline: Timeline, response: Response, sent: float) -> RequestResult:
        if response.status == 0:
            return self._failed(sent, "no_answer", response.broken)
        return timeline.result(response, sent, time.perf_counter(), self._started)

    def _failed(self, sent: float, kind: str, detail: str) -> RequestResult:
        now = time.perf_counter()
        return RequestResult(sent - self._started, now - self._started, failure=kind, detail=detail)

    async def _watch_lag(self) -> None:
        while True:
            due = time.perf_counter() + LAG_SAMPLE_SECONDS
            await asyncio.sleep(LAG_SAMPLE_SECONDS)
            self._run.loop_lag_seconds.append(time.perf_counter() - due)

    async def _report(self) -> None:
        while self._on_progress is not None:
            await asyncio.sleep(PROGRESS_SECONDS)
            elapsed = time.perf_counter() - self._started
            self._on_progress(Progress(len(self._run.results), self._running, self._token_chunks, elapsed))
