"""Generates load at a fixed concurrency (closed loop), or sends each request when it is due (open loop).

In the open loop a request's clock starts when it is *due*, not when it is sent: a delay in the client or its connections is
included in the figures, as a user would experience it (no coordinated omission). In the closed loop, the next request is
due when the previous one is answered, so a slow server receives fewer requests. The open loop avoids that.
"""

import asyncio
import errno
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field, replace

from smoke_tests.benchmark.stream_client import Connection, Endpoint, Response
from smoke_tests.benchmark.timeline import RequestResult, Timeline

LAG_SAMPLE_SECONDS = 0.05
PROGRESS_SECONDS = 0.25
BUCKET_SECONDS = 0.1
# The event loop's timers are a millisecond coarse: the last millisecond before a due time is a busy wait.
AWAKE_SECONDS = 0.0005
# Failures of this machine: the request never reached the endpoint.
CLIENT_ERRORS = {
    errno.EMFILE: "client_open_files",
    errno.ENFILE: "client_open_files",
    errno.EADDRNOTAVAIL: "client_ports",
    errno.EADDRINUSE: "client_ports",
    errno.EAGAIN: "client_ports",
    errno.ENOBUFS: "client_memory",
    errno.ENOMEM: "client_memory",
    errno.EPERM: "client_firewall",
    errno.EACCES: "client_firewall",
    errno.ENETUNREACH: "client_network",
    errno.ENETDOWN: "client_network",
}
WANTED_TOKENS = re.compile(rb'"max_tokens": (\d+)')


@dataclass
class Run:
    """A finished run: `duration_seconds` from the first request to the end of the last answer.

    `client_cpu_seconds` is this process's own; `loop_lag_seconds` are samples of how late its event loop was,
    which is how wrong a time stamp may be; `send_delay_seconds` is how late each request left. `token_chunks` counts
    chunks with tokens by the BUCKET_SECONDS in which they arrived. `interrupted`: stopped early;
    requests in flight at that moment are in no figure. `prefix_cache_share` is the engine's own counter of cached
    prompt tokens, None if it has none.
    """

    results: list[RequestResult] = field(default_factory=list)
    duration_seconds: float = 0.0
    prefix_cache_share: float | None = None
    client_cpu_seconds: float = 0.0
    loop_lag_seconds: list[float] = field(default_factory=list)
    send_delay_seconds: list[float] = field(default_factory=list)
    token_chunks: Counter[int] = field(default_factory=Counter)
    interrupted: bool = False


@dataclass(frozen=True)
class Progress:
    """A run so far: requests ended and failed, requests under way, chunks with tokens (about the tokens), seconds."""

    ended: int
    failed: int
    running: int
    token_chunks: int
    elapsed_seconds: float


class LoadRun:
    """One load, sent once: `closed` or `open`. Call `stop` to end it early and keep the results so far."""

    def __init__(
        self, endpoint: Endpoint, timeout_seconds: float, on_progress: Callable[[Progress], None] | None = None
    ) -> None:
        self._endpoint = endpoint
        self._timeout_seconds = timeout_seconds
        self._on_progress = on_progress
        self._run = Run()
        self._started = 0.0
        self._running = 0
        self._token_chunks = 0
        self._failed_requests = 0
        self._idle: list[Connection] = []
        self._sending: asyncio.Task[None] | None = None

    async def closed(self, messages: Iterable[bytes], concurrency: int, duration_seconds: float | None = None) -> Run:
        """Send `messages`, `concurrency` at once over a kept-alive connection each; none after `duration_seconds`."""
        opened = await asyncio.gather(*(self._connect() for _ in range(concurrency)))
        self._idle = [connection for connection in opened if connection is not None]

        async def send() -> None:
            # One iterator for all workers: each takes the next message when it is free.
            queue = self._until(duration_seconds, iter(messages))
            async with asyncio.TaskGroup() as workers:
                for _ in range(concurrency):
                    workers.create_task(self._worker(queue))

        return await self._measured(send())

    async def open(self, messages: Iterable[bytes], due_seconds: Iterable[float]) -> Run:
        """Send each message when it is due, on a free or a new connection, whether or not earlier ones are answered."""

        async def send() -> None:
            async with asyncio.TaskGroup() as requests:
                for message, due in zip(messages, due_seconds, strict=False):
                    await self._until_due(self._started + due)
                    requests.create_task(self._request(message, self._started + due))

        return await self._measured(send())

    def stop(self) -> None:
        """End the run now; requests under way are abandoned and counted nowhere else."""
        self._run.interrupted = True
        if self._sending is not None:
            self._sending.cancel()

    async def _measured(self, sending: Coroutine[None, None, None]) -> Run:
        watchers = [asyncio.create_task(self._watch_lag()), asyncio.create_task(self._report())]
        cpu_before = time.process_time()
        self._started = time.perf_counter()
        self._sending = asyncio.create_task(sending)
        try:
            await asyncio.wait([self._sending])
        finally:
            self._run.duration_seconds = time.perf_counter() - self._started
            self._run.client_cpu_seconds = time.process_time() - cpu_before
            for task in (*watchers, self._sending):
                task.cancel()
            await asyncio.gather(*watchers, self._sending, return_exceptions=True)
            for connection in self._idle:
                connection.close()
        if not self._sending.cancelled() and (error := self._sending.exception()) is not None:
            raise error
        return self._run

    def _until(self, duration_seconds: float | None, messages: Iterator[bytes]) -> Iterator[bytes]:
        for message in messages:
            if duration_seconds is not None and time.perf_counter() - self._started >= duration_seconds:
                return
            yield message

    async def _until_due(self, due: float) -> None:
        await asyncio.sleep(due - time.perf_counter() - AWAKE_SECONDS)
        while time.perf_counter() < due:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def _connect(self) -> Connection | None:
        # Failures are counted with the request that needed the connection.
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._endpoint.connect()
        except OSError:
            return None

    async def _worker(self, messages: Iterator[bytes]) -> None:
        for message in messages:
            await self._request(message, time.perf_counter())

    async def _request(self, message: bytes, due: float) -> None:
        self._running += 1
        try:
            result = await self._send(message, due)
        finally:
            self._running -= 1
        wanted = WANTED_TOKENS.search(message)
        result = replace(result, wanted_tokens=int(wanted[1]) if wanted else None)
        self._run.results.append(result)
        self._failed_requests += bool(result.failure)

    async def _send(self, message: bytes, due: float) -> RequestResult:
        timeline = Timeline()

        def on_body(piece: bytes, arrived: float) -> None:
            if chunks := timeline.feed(piece, arrived):
                self._token_chunks += chunks
                self._run.token_chunks[int((arrived - self._started) / BUCKET_SECONDS)] += chunks

        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection, kept = await self._connection()
                self._run.send_delay_seconds.append(time.perf_counter() - due)
                response = await connection.request(message, on_body)
                if kept and response.status == 0 and not connection.usable:
                    # The server had closed the idle connection before it received the request, so the request did not fail.
                    connection = await self._endpoint.connect()
                    response = await connection.request(message, on_body)
        except TimeoutError:
            _close(connection)
            return self._failed(due, "timeout", f"no whole answer within {self._timeout_seconds:.0f} s")
        except OSError as error:
            return self._failed(due, failure_kind(error), f"{type(error).__name__}: {error}")
        except asyncio.CancelledError:
            _close(connection)
            raise
        if connection.usable:
            self._idle.append(connection)
        return self._judged(timeline, response, due)

    async def _connection(self) -> tuple[Connection, bool]:
        """Return a connection and whether it was used before."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection, connection.requests > 0
        return await self._endpoint.connect(), False

    def _judged(self, timeline: Timeline, response: Response, due: float) -> RequestResult:
        if response.status == 0:
            return self._failed(due, "no_answer", response.broken)
        return timeline.result(response, due, time.perf_counter(), self._started)

    def _failed(self, due: float, kind: str, detail: str) -> RequestResult:
        now = time.perf_counter()
        return RequestResult(due - self._started, now - self._started, failure=kind, detail=detail)

    async def _watch_lag(self) -> None:
        while True:
            due = time.perf_counter() + LAG_SAMPLE_SECONDS
            await asyncio.sleep(LAG_SAMPLE_SECONDS)
            lag = max(0.0, time.perf_counter() - due)
            # A stall also swallows the samples that were due during it; without them, p99 would hide it.
            missed = range(int(lag / LAG_SAMPLE_SECONDS) + 1)
            self._run.loop_lag_seconds += [lag - number * LAG_SAMPLE_SECONDS for number in missed]

    async def _report(self) -> None:
        while self._on_progress is not None:
            await asyncio.sleep(PROGRESS_SECONDS)
            elapsed = time.perf_counter() - self._started
            ended = len(self._run.results)
            self._on_progress(Progress(ended, self._failed_requests, self._running, self._token_chunks, elapsed))


def failure_kind(error: OSError) -> str:
    """Return "connect" if the endpoint refused the connection, or the client_... kind if this machine failed."""
    if isinstance(error, socket.gaierror):
        return "client_dns"
    if isinstance(error, ssl.SSLError):  # its errno is OpenSSL's, not the system's
        return "connect"
    return CLIENT_ERRORS.get(error.errno or 0, "connect")


def _close(connection: Connection | None) -> None:
    if connection is not None:
        connection.close()
