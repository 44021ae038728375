"""One request and its answer: its state, its current deadline, and the ways it can end early."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from image.gateway.comments import Comments
from image.gateway.errors import ApiError, Shape
from image.gateway.limits import Key
from image.gateway.writer import Writer

if TYPE_CHECKING:
    from opentelemetry.trace import Span

Message = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_EVENT_STREAM = b"text/event-stream; charset=utf-8"

_NOBODY = Key("")
# Request ids need not be secret, only unique among gateways.
_PROCESS_ID = os.urandom(8).hex()
_NUMBERS = itertools.count()


def new_request_id() -> str:
    """An id for a request without one."""
    return _PROCESS_ID + f"{next(_NUMBERS):016x}"


# nginx's status for a client that disconnected; it is never sent.
CLIENT_LEFT_STATUS = 499


class Exchange:
    """A request being answered. Every early end cancels its task; `aborted` contains the reason.

    Times are time.monotonic() in seconds; 0 means not yet. (uvloop's own clock does not advance during a callback.)
    """

    __slots__ = (
        "_cycle",
        "_task",
        "_timer",
        "_writer",
        "aborted",
        "affinity",
        "answered",
        "body",
        "breakdowns",
        "bytes_in",
        "client",
        "client_left",
        "closing",
        "comments",
        "cors_headers",
        "counted",
        "dispatched",
        "error",
        "events",
        "events_out",
        "finished",
        "first_byte",
        "headers",
        "key",
        "label",
        "loop",
        "method",
        "modalities",
        "model",
        "part",
        "path",
        "receive",
        "receiving_seconds",
        "replica",
        "request_id",
        "retries",
        "scope",
        "shape",
        "span",
        "stage",
        "started",
        "status",
        "stream",
        "tokens_in",
        "tokens_out",
        "trace_headers",
    )

    def __init__(self, scope: Scope, receive: Receive) -> None:
        # Passed along, because get_running_loop() makes a system call (getpid) each time.
        self.loop: asyncio.AbstractEventLoop = scope["gateway.connection"].loop
        self.started = monotonic()
        self.scope = scope
        self.receive = receive
        self._cycle = scope.pop("gateway.cycle")  # popped, because it references the scope: a reference cycle
        self._writer = Writer(self._cycle)
        self.part = self._writer.write  # sends a part of the body; returns False if `caught_up` should be awaited
        self._timer: asyncio.TimerHandle | None = None
        self._task = asyncio.current_task(self.loop)
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given.decode() if _REQUEST_ID.fullmatch(given) else new_request_id()

        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.label = "other"  # the path, if the gateway serves it; a metric label
        self.counted = True  # False for probes and preflights, which no metric of requests includes
        self.client: str = scope["gateway.connection"].client_of(self.headers)
        self.key = _NOBODY
        self.shape = Shape.OPENAI  # of errors
        self.cors_headers: tuple[tuple[bytes, bytes], ...] = ()  # added to every answer
        self.model: str | None = None
        self.stream = False
        self.modalities: list[str] = []
        self.affinity = b""
        self.body = b""  # stored until the answer begins, because a retry sends it again
        self.bytes_in = 0

        self.stage = "receiving"
        self.receiving_seconds = self.dispatched = self.first_byte = 0.0
        self.replica: str | None = None
        self.retries = 0
        self.breakdowns = 0  # replicas that failed with this request before they answered
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self.span: Span | None = None
        self.trace_headers: list[tuple[bytes, bytes]] = []  # replace the client's trace headers
        self.events_out = 0  # counted only if the key has a token limit

        self.status = 0
        self.error: str | None = None
        self.aborted: ApiError | None = None
        self.client_left = False
        self.answered = False  # the status line was sent
        self.events = False  # ... of an event stream, so that an error is sent as an event
        self.finished = False
        self.closing = False  # close the client's connection after the answer
        self.comments: Comments | None = None  # while keep-alive comments are sent

    @property
    def tokens(self) -> int:
        """Input and output tokens, for the key's limit. Without a usage block, an estimate: one input token per 4 bytes of
        the body, and one output token per event.
        """
        if not self.dispatched:
            return 0
        used_in = self.bytes_in // 4 if self.tokens_in is None else self.tokens_in
        return used_in + (self.events_out if self.tokens_out is None else self.tokens_out)

    @property
    def bytes_out(self) -> int:
        """Bytes of the answer's body so far."""
        return self._writer.body_bytes

    @property
    def behind(self) -> bool:
        """Whether the client reads more slowly than it is sent to."""
        return self._writer.behind

    @property
    def over(self) -> bool:
        """Whether nothing more is sent to the client, except an error."""
        return self.finished or self.client_left or self.aborted is not None

    @property
    def received(self) -> bool:
        """Whether the whole body has arrived."""
        return not self._cycle.more_body

    # Early ends

    def deadline(self, seconds: float, error: Callable[[], ApiError]) -> None:
        """End the exchange after `seconds` with the error that `error` returns. Replaces the previous deadline."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._expire, error)

    def _expire(self, error: Callable[[], ApiError]) -> None:
        self.abort(error())

    def abort(self, error: ApiError) -> None:
        """End the exchange with an error, at any stage."""
        if self.aborted is None and not self.client_left and not self.finished:
            self.aborted = error
            self._cancel()

    def leave(self, reason: str) -> None:
        """The client disconnected: end the exchange, at any stage. Called by the client's connection."""
        if not self.client_left and not self.finished:
            self.client_left = True
            self.error = reason
            self._writer.give_up()
            self._cancel()

    def end(self) -> None:
        """Mark the exchange as over and stop its timers."""
        self.finished = True
        self.stop_comments()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()

    # Answers

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Set status and headers, including the request id. They are sent with the first part of the body, or by `flush`."""
        self.status = status
        self.answered = True
        headers.append((b"x-request-id", self.request_id.encode()))
        headers += self.cors_headers
        self._writer.head(status, headers, close=self.closing)

    def start_held_events(self) -> None:
        """Start an event stream with status 200 before the engine has answered."""
        self.start_events(200, [(b"content-type", _EVENT_STREAM), (b"cache-control", b"no-cache")])

    def start_events(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Start an event stream; `X-Accel-Buffering: no` stops proxies from buffering it."""
        self.events = True
        headers.append((b"x-accel-buffering", b"no"))
        self.start(status, headers)

    def keep_alive(self, seconds: float) -> Comments:
        """Send a comment after every `seconds` without bytes, for an event stream."""
        if self.comments is None:
            self.comments = Comments(self, seconds)
        return self.comments

    def stop_comments(self) -> None:
        """Stop sending comments."""
        if self.comments is not None:
            self.comments.stop()
            self.comments = None

    def flush(self) -> None:
        """Send status and headers now, before the body."""
        self._writer.flush()

    def note_first_byte(self) -> None:
        """The answer's body begins: the request is not retried any more."""
        self.first_byte = monotonic()
        self.body = b""

    async def caught_up(self) -> None:
        """Wait for a slow client."""
        if self._writer.behind:
            await self._writer.caught_up()

    async def last_part(self, data: bytes = b"") -> None:
        """Send the end of the body, once the client has read the rest."""
        await self.caught_up()
        self.finished = True
        self._writer.end(data)

    async def answer(
        self, status: int, body: bytes, content_type: bytes = b"application/json", headers: Any = ()
    ) -> None:
        """Send a whole answer."""
        length = (b"content-length", b"%d" % len(body))
        self.start(status, [(b"content-type", content_type), length, *headers])
        await self.last_part(body)

    async def fail(self, error: ApiError) -> None:
        """Send an error in the form that is still possible."""
        self.error = error.reason
        if not self.answered:
            # A client that waits for 100 Continue may never send its body.
            self.closing = self.closing or b"expect" in self.headers
            await self.answer(error.status, error.body(self.shape, self.request_id), headers=error.headers)
        elif self.events:
            self.status = error.status  # for the log: the status that was not sent
            await self.last_part(error.event(self.shape, self.request_id))
        else:
            # Part of an answer that is not an event stream was sent: only closing the connection shows that it is incomplete.
            self.status = error.status
            self.finished = True
            self._writer.abort()
