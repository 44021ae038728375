"""A request to a replica: the waiting, the asking, the retrying. Its answer back is in `relay`."""

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
# What vLLM answers whose core has died or that is shutting down, and one whose own queue is full: to any request.
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
                # A process that died while it ran one request probably died of it.
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

    # Asking

    async def _ask(self, exchange: Exchange, replica: Replica, used: list[Replica]) -> Connection:
        """A connection with the head of the answer on it; raises UpstreamError."""
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
                # The replica closed it while it lay idle, and the request crossed that on its way: sent once more.
                exchange.retries += 1
                self._telemetry.metrics.retries.inc()
            else:
                used.append(replica)
                return connection
            try:
                connection = await replica.pool.connect()
            except UpstreamError as error:
                used.append(replica)
                # It is gone altogether: nothing says that the request did not break it.
                raise UpstreamError("reset", str(error)) from error
        else:
            connection = await replica.pool.connect()
        exchange.stage = "asked"
        used.append(replica)
        await self._send(exchange, replica, connection)
        return connection

    def _time_for(self, exchange: Exchange) -> tuple[float, Callable[[], ApiError]]:
        """Seconds that are left for an answer, and the error beyond them."""
        settings = self._settings
        limit = left = settings.request_timeout_seconds
        if not exchange.stream:
            # Nothing flows before its end, and every hop in between counts from its arrival.
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
        """Whether a request that a replica answered with a 500 or 503 is asked again: once, and of another replica. Of
        the same one only when its /health says that it has died: then what comes back there is another process.
        """
        if exchange.breakdowns:
            return False
        # One whose core had died before answers at once. One that died while it ran this request alone
        # probably died of it.
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
        """Return when the request may go to another replica, else raise the error for the client.

        Only before the first byte, and never twice to a replica that may have worked on it. A request that a replica
        broke down with goes to one other at most, and to none if it `killed` the replica: it must not kill the next.
        """
        if exchange.first_byte or (exchange.answered and not exchange.events):
            raise errors.upstream_failed("The engine broke off its answer.", "engine_died") from error
        if error.kind == "protocol":
            raise errors.upstream_failed("The engine's answer was malformed.", "engine_protocol") from error
        if error.kind == "reset":
            if killed or exchange.breakdowns or not any(replica not in used for replica in self._fleet.rotation):
                raise errors.upstream_failed("The engine broke off before it answered.", "engine_died") from error
            exchange.breakdowns += 1
        exchange.retries += 1
        self._telemetry.metrics.retries.inc()
