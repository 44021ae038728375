"""A request to a replica and its answer back, byte for byte: the waiting, the retrying, the streaming."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from time import monotonic

from image.gateway import errors, usage
from image.gateway.admission import Admission, Ticket
from image.gateway.errors import ApiError
from image.gateway.exchange import Exchange
from image.gateway.fleet import Fleet, Replica
from image.gateway.settings import Settings
from image.gateway.telling import Telling
from image.gateway.upstream import Connection, UpstreamError
from image.gateway.waking import Waker

# Of one connection only (RFC 9110, 7.6.1), or said anew by this hop.
_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
# The client's key is the gateway's business; what is compressed could not be counted; the rest is set below.
_NOT_UPSTREAM = _HOP_BY_HOP | {
    b"accept-encoding",
    b"authorization",
    b"content-length",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-real-ip",
    b"x-request-id",
}
_TRACE_HEADERS = frozenset((b"traceparent", b"tracestate"))
_NOT_DOWNSTREAM = _HOP_BY_HOP | {b"date", b"server", b"x-request-id"}

# An answer that is no stream is sent on when it is whole, up to this size: so a replica that dies in it is a clean 502.
_WHOLE_ANSWER_BYTES = 1 << 20
# An event cut in two would swallow the error that follows; up to this size it is kept until it is whole.
_WHOLE_EVENT_BYTES = 256 << 10
# Of what was read last, for the usage block; no more, for a client that stalls keeps its exchange's memory.
_TAIL_BYTES = 4096
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
_COMMENT = b": waiting for the engine\n\n"
_RETRY_AFTER_HOLD_SECONDS = 30


class Proxy:
    """Sends requests to replicas."""

    def __init__(self, settings: Settings, fleet: Fleet, admission: Admission, waker: Waker, telling: Telling) -> None:
        self._settings = settings
        self._fleet = fleet
        self._admission = admission
        self._waker = waker
        self._telling = telling
        self._timed_out = partial(errors.upstream_timeout, settings.request_timeout_seconds)

    async def forward(self, exchange: Exchange) -> None:
        """Answer an exchange from a replica; raises ApiError."""
        used: list[Replica] = []
        while True:
            key = exchange.key.name
            replica = self._admission.try_take(key, exchange.affinity, used) or await self._wait(exchange, used)
            exchange.replica = replica.name
            try:
                connection = await self._ask(exchange, replica, used)
                try:
                    await self._relay(exchange, connection)
                finally:
                    replica.pool.release(connection)
                if connection.status < 500:
                    self._fleet.succeeded(replica)
                else:
                    self._fleet.failed(replica)
                return
            except UpstreamError as error:
                self._note_failure(replica, error)
                self._after_failure(exchange, error, used)
            except asyncio.CancelledError:
                if exchange.aborted is not None and exchange.aborted.status == 504:
                    self._fleet.failed(replica)
                raise
            finally:
                self._admission.release(replica, key)

    # Waiting

    async def _wait(self, exchange: Exchange, used: list[Replica]) -> Replica:
        """A slot, when it is this request's turn."""
        settings = self._settings
        exchange.stage = "waiting"
        seconds = settings.hold_timeout_seconds if exchange.stream else settings.hold_timeout_nonstream_seconds
        # From its arrival on, however often it comes back here.
        passed = monotonic() - exchange.started
        exchange.deadline(max(seconds - passed, 0), self._held_too_long)
        ticket = self._admission.enqueue(
            len(exchange.body), exchange.key.name, exchange.affinity, used, again=exchange.dispatched > 0
        )
        try:
            if exchange.stream:
                await self._comment_until(exchange, ticket)
            replica = await ticket.slot
        except BaseException:
            self._admission.leave(ticket)
            raise
        return replica

    async def _comment_until(self, exchange: Exchange, ticket: Ticket) -> None:
        """Send comment lines to a stream that waits, so that no hop in between takes it for dead."""
        while not ticket.slot.done():
            await asyncio.wait((ticket.slot,), timeout=self._settings.sse_comment_seconds)
            if not ticket.slot.done():
                if not exchange.answered:
                    await exchange.start_events()
                await exchange.part(_COMMENT)

    def _held_too_long(self) -> ApiError:
        if self._fleet.rotation:
            return errors.unavailable("The engine is busy; try again shortly.", "busy", _RETRY_AFTER_HOLD_SECONDS)
        reason = f": {self._waker.last_error}" if self._waker.last_error else ""
        message = f"The engine is not running yet{reason}; try again later."
        return errors.unavailable(message, "not_ready", _RETRY_AFTER_HOLD_SECONDS)

    # Asking

    async def _ask(self, exchange: Exchange, replica: Replica, used: list[Replica]) -> Connection:
        """A connection with the head of the answer on it; raises UpstreamError."""
        exchange.stage = "connecting"
        exchange.deadline(self._settings.request_timeout_seconds, self._timed_out)
        if not exchange.dispatched:
            exchange.dispatched = monotonic()
        while True:
            idle = replica.pool.take()
            connection = idle or await replica.pool.connect()
            exchange.stage = "asked"
            try:
                await self._send(exchange, replica, connection)
            except UpstreamError as error:
                if idle is not None and error.kind == "reset" and connection.unheard():
                    # The replica closed it while it lay idle, and the request crossed that on its way.
                    exchange.retries += 1
                    self._telling.metrics.retries.inc()
                    continue
                used.append(replica)
                raise
            used.append(replica)
            return connection

    async def _send(self, exchange: Exchange, replica: Replica, connection: Connection) -> None:
        try:
            connection.send(self._head(exchange, replica), exchange.body)
            await connection.head()
        except BaseException:
            connection.close()
            raise

    def _head(self, exchange: Exchange, replica: Replica) -> bytes:
        scope = exchange.scope
        query: bytes = scope["query_string"]
        # The path as this gateway has it in its list, never as the client spelt it.
        target = exchange.label.encode() + (b"?" + query if query else b"")
        lines = [
            b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\nx-forwarded-for: %b"
            % (
                target,
                replica.pool.host_header,
                len(exchange.body),
                exchange.request_id.encode(),
                exchange.client.encode(),
            )
        ]
        dropped = _NOT_UPSTREAM
        if b"connection" in exchange.headers:
            dropped |= _named_by_connection(scope["headers"])
        if exchange.trace_headers:
            dropped |= _TRACE_HEADERS
            lines += [name + b": " + value for name, value in exchange.trace_headers]
        for name, value in scope["headers"]:
            if name not in dropped:
                lines.append(name + b": " + value)
        lines.append(b"\r\n")
        return b"\r\n".join(lines)

    def _note_failure(self, replica: Replica, error: UpstreamError) -> None:
        self._telling.metrics.upstream_errors.labels(error.kind).inc()
        self._telling.event("upstream_error", level="error", replica=replica.name, kind=error.kind, error=str(error))
        self._fleet.failed(replica)
        if error.kind != "protocol":
            self._fleet.suspect(replica)

    def _after_failure(self, exchange: Exchange, error: UpstreamError, used: list[Replica]) -> None:
        """Return when the request may go to another replica, else raise what the client is told.

        Only before the first byte, never twice to a replica that may have seen it; and only once after a replica broke
        down with it, for a request that kills engines must not be handed round.
        """
        if exchange.first_byte or (exchange.answered and not exchange.events):
            raise errors.upstream_failed("The engine broke off its answer.", "engine_died") from error
        if error.kind == "protocol":
            raise errors.upstream_failed("The engine's answer was malformed.", "engine_protocol") from error
        if error.kind == "reset" and (
            len(used) > 1 or not any(replica not in used for replica in self._fleet.rotation)
        ):
            raise errors.upstream_failed("The engine broke off before it answered.", "engine_died") from error
        exchange.retries += 1
        self._telling.metrics.retries.inc()

    # Relaying

    async def _relay(self, exchange: Exchange, connection: Connection) -> None:
        exchange.stage = "answering"
        if connection.status >= 500:
            self._telling.metrics.upstream_errors.labels("status_5xx").inc()
        content_type = b""
        headers = []
        for header in connection.headers:
            name = header[0]
            if name == b"content-type":
                content_type = header[1]
            if name not in _NOT_DOWNSTREAM:
                headers.append(header)
        if content_type.startswith(b"text/event-stream"):
            await self._relay_events(exchange, connection, headers)
        else:
            await self._relay_whole(exchange, connection, headers)

    async def _relay_events(
        self, exchange: Exchange, connection: Connection, headers: list[tuple[bytes, bytes]]
    ) -> None:
        """Each event as it comes."""
        if not exchange.answered:
            headers = [header for header in headers if header[0] != b"content-length"]  # an error may have to follow
            await exchange.start_events_with(connection.status, headers)
        # The last three reads, for the usage block: cheaper than looking into each.
        before = last = b""
        older = kept = b""
        counts = exchange.key.limits is not None
        while True:
            data = await connection.read()
            if counts:
                exchange.events_out += data.count(b"data:")
            if not exchange.first_byte:
                exchange.note_first_byte()
            older, before, last = before, last, data if len(data) <= _TAIL_BYTES else data[-_TAIL_BYTES:]
            if kept:
                data = kept + data
                kept = b""
            if connection.drained():
                break
            if not data.endswith(_EVENT_ENDS) and len(data) < _WHOLE_EVENT_BYTES:
                data, kept = _whole_events(data)
            if data:
                await exchange.part(data)
        exchange.tokens_in, exchange.tokens_out = usage.tokens(older + before + last)
        await exchange.last_part(data)

    async def _relay_whole(
        self, exchange: Exchange, connection: Connection, headers: list[tuple[bytes, bytes]]
    ) -> None:
        """All at once when it is whole; in parts when it is large."""
        data = await connection.read()
        if not connection.drained():
            gathered = bytearray(data)
            while not connection.drained() and len(gathered) < _WHOLE_ANSWER_BYTES:
                gathered += await connection.read()
            data = bytes(gathered)
        exchange.note_first_byte()
        if exchange.answered:
            # Comments are out already, so the status cannot be sent any more: what it would have been goes as an event.
            exchange.status = connection.status
            exchange.error = f"engine_{connection.status}"
            await exchange.last_part(_as_event(data))
            return
        if connection.drained():
            exchange.tokens_in, exchange.tokens_out = usage.tokens(data)
            if connection.status not in (204, 304):
                headers = [header for header in headers if header[0] != b"content-length"]
                headers.append((b"content-length", b"%d" % len(data)))
            await exchange.start(connection.status, headers)
            await exchange.last_part(data)
            return
        await exchange.start(connection.status, headers)
        tail = b""
        while True:
            tail = data[-_TAIL_BYTES:] if len(data) > _TAIL_BYTES else tail[-_TAIL_BYTES:] + data
            if connection.drained():
                break
            await exchange.part(data)
            data = await connection.read()
        exchange.tokens_in, exchange.tokens_out = usage.tokens(tail)
        await exchange.last_part(data)


def _named_by_connection(headers: list[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Headers that a client's Connection header declares to be for this hop only."""
    values = (value for name, value in headers if name == b"connection")
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))


def _whole_events(data: bytes) -> tuple[bytes, bytes]:
    """What is complete of some events, and the beginning of the next."""
    at = max((data.rfind(end) + len(end) for end in _EVENT_ENDS if end in data), default=0)
    return data[:at], data[at:]


def _as_event(answer: bytes) -> bytes:
    """An answer that is one JSON document, as the event that an OpenAI client takes for an error."""
    try:
        document = json.loads(answer)
    except ValueError:
        document = None
    if not isinstance(document, dict) or "error" not in document:
        return errors.upstream_failed("The engine refused the request.", "engine_refused").event()
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
