"""Forwards a request to a replica: waits for a slot, sends it, retries. `relay` returns the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic

from image.gateway import errors
from image.gateway.admission import Admission
from image.gateway.errors import ApiError
from image.gateway.exchange import Exchange
from image.gateway.fleet import Fleet, Replica
from image.gateway.headers import request_head
from image.gateway.relay import relay
from image.gateway.settings import Settings
from image.gateway.telemetry import Telemetry
from image.gateway.upstream import Connection, UpstreamError
from image.gateway.waking import Waker

_RETRY_AFTER_HOLD_SECONDS = 30
# vLLM's answers to any request if its core has died, if it is shutting down, or if its own queue is full.
_NOT_THE_REQUESTS_FAULT = (500, 503)


class Proxy:
    """Sends requests to replicas."""

    def __init__(
        self, settings: Settings, fleet: Fleet, admission: Admission, waker: Waker, telemetry: Telemetry
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._admission = admission
        self._waker = waker
        self._telemetry = telemetry

    async def forward(self, exchange: Exchange) -> None:
        """Answer an exchange from a replica; raises ApiError."""
        used: list[Replica] = []
        if exchange.stream:
            exchange.keep_alive(self._settings.sse_comment_seconds)
        while True:
            key = exchange.key.name
            replica = self._admission.try_take(key, exchange.affinity, used) or await self._wait(exchange, used)
            exchange.replica = replica.name
            try:
                connection = await self._ask(exchange, replica, used)
                try:
                    if connection.status in _NOT_THE_REQUESTS_FAULT and await self._goes_on(
                        exchange, replica, connection, used
                    ):
                        continue
                    await relay(exchange, connection, self._settings.sse_comment_seconds)
                finally:
                    replica.pool.release(connection)
                if connection.status < 500:
                    self._fleet.succeeded(replica)
                else:
                    self._note_5xx(replica)
                return
            except UpstreamError as error:
                self._note_failure(replica, error)
                # If the process died while it ran only this request, the request probably caused it.
                killed = error.kind == "reset" and replica.ran_alone() and await self._fleet.dead(replica)
                self._after_failure(exchange, error, used, killed=killed)
            except asyncio.CancelledError:
                if exchange.aborted is not None and exchange.aborted.status == 504:
                    self._fleet.failed(replica)
                raise
            finally:
                self._admission.release(replica, key)

    # Waiting

    async def _wait(self, exchange: Exchange, used: list[Replica]) -> Replica:
        """Wait for a slot in turn."""
        settings = self._settings
        exchange.stage = "waiting"
        seconds = settings.hold_timeout_seconds if exchange.stream else settings.hold_timeout_nonstream_seconds
        # Measured from the request's arrival, across retries.
        passed = monotonic() - exchange.started
        exchange.deadline(max(seconds - passed, 0), self._held_too_long)
        ticket = self._admission.enqueue(
            len(exchange.body), exchange.key.name, exchange.affinity, used, again=exchange.dispatched > 0
        )
        try:
            return await ticket.slot
        except BaseException:
            self._admission.leave(ticket)
            raise

    def _held_too_long(self) -> ApiError:
        if self._fleet.rotation:
            return errors.unavailable("The engine is busy; try again shortly.", "busy", _RETRY_AFTER_HOLD_SECONDS)
        reason = f": {self._waker.last_error}" if self._waker.last_error else ""
        message = f"The engine is not running yet{reason}; try again later."
        return errors.unavailable(message, "not_ready", _RETRY_AFTER_HOLD_SECONDS)

    # Sending

    async def _ask(self, exchange: Exchange, replica: Replica, used: list[Replica]) -> Connection:
        """Send the request; returns the connection once the answer's headers have arrived. Raises UpstreamError."""
        exchange.stage = "connecting"
        exchange.deadline(*self._time_for(exchange))
        if not exchange.dispatched:
            exchange.dispatched = monotonic()
        connection = replica.pool.take()
        if connection is not None:
            exchange.stage = "asked"
            try:
                await self._send(exchange, replica, connection)
            except UpstreamError as error:
                if error.kind != "reset" or not connection.crossed():
                    used.append(replica)
                    raise
                # The replica closed the idle connection while the request was in flight: send it again.
                exchange.retries += 1
                self._telemetry.metrics.retries.inc()
            else:
                used.append(replica)
                return connection
            try:
                connection = await replica.pool.connect()
            except UpstreamError as error:
                used.append(replica)
                # The replica is gone, possibly because of this request.
                raise UpstreamError("reset", str(error)) from error
        else:
            connection = await replica.pool.connect()
        exchange.stage = "asked"
        used.append(replica)
        await self._send(exchange, replica, connection)
        return connection

    def _time_for(self, exchange: Exchange) -> tuple[float, Callable[[], ApiError]]:
        """The remaining seconds for an answer, and the error after them."""
        settings = self._settings
        limit = left = settings.request_timeout_seconds
        if not exchange.stream:
            # No byte is sent before the end, and every proxy's timeout counts from the request's arrival.
            whole = settings.request_timeout_nonstream_seconds
            rest = max(whole - (monotonic() - exchange.started), 0)
            if rest < left:
                limit, left = whole, rest
        return left, partial(errors.upstream_timeout, limit)

    async def _send(self, exchange: Exchange, replica: Replica, connection: Connection) -> None:
        try:
            connection.send(request_head(exchange, replica.pool.host_header), exchange.body)
            await connection.head()
        except BaseException:
            connection.close()
            raise

    def _note_5xx(self, replica: Replica) -> None:
        self._telemetry.metrics.upstream_errors.labels("status_5xx").inc()
        self._fleet.failed(replica)

    async def _goes_on(self, exchange: Exchange, replica: Replica, connection: Connection, used: list[Replica]) -> bool:
        """Whether to retry a request that a replica answered with 500 or 503: once, on another replica. On the same replica
        only if /health reports that it has died, because then a new process will answer.
        """
        if exchange.breakdowns:
            return False
        # A replica whose core was already dead answers at once. If it died while it ran only this request, the request
        # probably caused it.
        if connection.was_working() and replica.ran_alone() and await self._fleet.dead(replica):
            return False
        if not any(other not in used for other in self._fleet.rotation):
            if not await self._fleet.dead(replica):
                return False
            used.remove(replica)
        replica.probe_soon.set()
        exchange.breakdowns += 1
        exchange.retries += 1
        self._telemetry.metrics.retries.inc()
        self._note_5xx(replica)
        return True

    def _note_failure(self, replica: Replica, error: UpstreamError) -> None:
        self._telemetry.metrics.upstream_errors.labels(error.kind).inc()
        self._telemetry.event("upstream_error", level="error", replica=replica.name, kind=error.kind, error=str(error))
        self._fleet.failed(replica)
        if error.kind != "protocol":
            self._fleet.suspect(replica)

    def _after_failure(self, exchange: Exchange, error: UpstreamError, used: list[Replica], *, killed: bool) -> None:
        """Return if the request may be retried on another replica, else raise the error for the client.

        Retries happen only before the first byte, and never on a replica that may have processed the request. After a
        replica failed with a request, it is retried on at most one other, and not at all if it `killed` the replica.
        """
        if exchange.first_byte or (exchange.answered and not exchange.events):
            raise errors.upstream_failed(
                "The engine closed the connection before completing the response.", "engine_died"
            ) from error
        if error.kind == "protocol":
            raise errors.upstream_failed("The engine's response is not valid HTTP.", "engine_protocol") from error
        if error.kind == "reset":
            if killed or exchange.breakdowns or not any(replica not in used for replica in self._fleet.rotation):
                raise errors.upstream_failed(
                    "The engine closed the connection before responding.", "engine_died"
                ) from error
            exchange.breakdowns += 1
        exchange.retries += 1
        self._telemetry.metrics.retries.inc()
