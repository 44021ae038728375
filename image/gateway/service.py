"""The gateway's lifecycle: created from its settings, started, drained, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from image.gateway import __version__, keys
from image.gateway.admission import Admission
from image.gateway.app import App
from image.gateway.capacity.base import EngineScaler
from image.gateway.capacity.factory import engine_scaler
from image.gateway.demand import DemandReport
from image.gateway.discovery import Discovery, discovery_of
from image.gateway.edge import EdgeProtocol
from image.gateway.exchange import Receive, Scope, Send
from image.gateway.fleet import Fleet
from image.gateway.settings import Settings
from image.gateway.telemetry import Telemetry
from image.gateway.waking import Waker

if TYPE_CHECKING:
    from image.gateway.tracing import Tracer

_BACKLOG = 2048
_SEND_BUFFER_BYTES = 128 << 10
# After all requests ended: time to send the last bytes.
_CLOSE_SECONDS = 5
_EXIT_AT_ONCE = 1


class ListenError(Exception):
    """The gateway cannot listen on a port; the message names the setting to change."""


class Service:
    """One gateway. `run` returns after `stop` was called and the gateway has drained."""

    def __init__(
        self,
        settings: Settings,
        *,
        discovery: Discovery | None = None,
        capacity: EngineScaler | None = None,
        telemetry: Telemetry | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """Create the backends from the settings, unless they are passed in. Listens at once; raises ListenError."""
        self.settings = settings
        self.telemetry = telemetry or Telemetry()
        self.sockets = _listen(settings)
        capacity = capacity or engine_scaler(settings.capacity)
        self._ring = keys.KeyRing()
        self._key_source = keys.source_of(settings.keys)
        self.fleet = Fleet(
            discovery or discovery_of(settings.discovery), settings, self.telemetry, changed=self._rotation_changed
        )
        self.waker = Waker(
            capacity,
            self.telemetry,
            ready=lambda: bool(self.fleet.rotation),
            waiting=lambda: self.admission.waiting > 0,
            settled=lambda: self.fleet.settled,
        )
        self.admission = Admission(
            settings, lambda: self.fleet.rotation, self.waker.need, lambda: self._ring.names, self._ring.priority
        )
        self._tracer = tracer
        self.app = App(
            settings, self._ring, self.fleet, self.admission, self.waker, self.telemetry, capacity.kind, tracer
        )
        self._demand = DemandReport(settings, self.admission, self.fleet, self.telemetry)
        self._stop = asyncio.Event()
        self._watch_gauges()

    async def run(self) -> None:
        """Serve until `stop`, then drain; raises KeysError if the keys cannot be loaded at startup."""
        settings = self.settings
        try:
            await keys.load(self._ring, self._key_source)
        except keys.KeysError:
            for listening in self.sockets:
                listening.close()
            raise
        refused = self.telemetry.metrics.refusals
        edge = partial(EdgeProtocol, settings, lambda reason: refused.labels(reason).inc())
        server = _Server(_config(self.app, edge, settings.keep_alive_seconds))
        metrics = _Server(_config(self._metrics_app, edge, 75))
        self.telemetry.event("listening", port=settings.port, metrics_port=settings.metrics_port, version=__version__)
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(self.fleet.run()), group.create_task(self._demand.run())]
            if self._key_source is not None:
                seconds = settings.keys_reload_seconds or self._key_source.reload_seconds
                if seconds < float("inf"):
                    background.append(
                        group.create_task(keys.keep_fresh(self._ring, self._key_source, seconds, self.telemetry))
                    )
            servers = [
                group.create_task(running.serve([listening]))
                for running, listening in zip((server, metrics), self.sockets, strict=True)
            ]
            await self._stop.wait()
            await self._drain()
            server.should_exit = metrics.should_exit = True
            await asyncio.wait(servers)
            await self.waker.stop()
            for task in background:
                task.cancel()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.stop)
        self.telemetry.event("stopped")
        self.telemetry.flush()

    def stop(self) -> None:
        """Drain, then stop. A second call exits at once and cuts off running requests."""
        if self._stop.is_set():
            self.telemetry.event("stopped_at_once", running=len(self.app.active))
            self.telemetry.flush()
            os._exit(_EXIT_AT_ONCE)
        self._stop.set()

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT call `stop`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    async def _drain(self) -> None:
        """Fail readiness, then reject new requests, wait for running ones, and abort those that exceed the timeout."""
        settings, app = self.settings, self.app
        began = time.monotonic()
        app.draining = True
        self.telemetry.event("draining", running=len(app.active))
        await asyncio.sleep(min(settings.drain_delay_seconds, settings.drain_timeout_seconds))
        app.start_refusing()
        try:
            async with asyncio.timeout(max(settings.drain_timeout_seconds - (time.monotonic() - began), 0)):
                await app.idle.wait()
        except TimeoutError:
            self.telemetry.event("drain_timeout", level="error", cut_off=len(app.active))
            app.abort_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await app.idle.wait()

    def _rotation_changed(self) -> None:
        self.waker.look_again()
        self.admission.dispatch()

    def _watch_gauges(self) -> None:
        watch, admission, fleet = self.telemetry.metrics.watch, self.admission, self.fleet
        watch("requests_running", "Requests with a slot on a replica.", lambda: admission.running)
        watch("requests_held", "Requests waiting while no replica is ready.", lambda: admission.held)
        watch("requests_queued", "Requests waiting for a slot on a ready replica.", lambda: admission.queued)
        watch("demand", "Running, held and queued requests.", lambda: admission.demand)
        watch(
            "buffered_bytes",
            "Bytes of the bodies of requests that are waiting or being received.",
            lambda: admission.waiting_bytes,
        )
        watch("idle_seconds", "Seconds since a request last ran or waited.", lambda: admission.idle_seconds)
        watch("replicas_known", "Replicas that discovery found.", lambda: fleet.known)
        watch("replicas_ready", "Replicas that can be sent requests.", lambda: len(fleet.rotation))
        watch("draining", "1 while the gateway is draining.", lambda: self.app.draining)

    async def _metrics_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """/metrics, on a port that clients cannot reach."""
        found = scope["path"] == "/metrics"
        body = self.telemetry.metrics.text() if found else b"see /metrics\n"
        headers = [
            (b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handling: the service handles signals for both servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _config(app: Any, http: Any, keep_alive_seconds: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
        backlog=_BACKLOG,
    )


def _listen(settings: Settings) -> list[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sockets: list[socket.socket] = []
    for variable, port in (("GATEWAY_PORT", settings.port), ("GATEWAY_METRICS_PORT", settings.metrics_port)):
        try:
            both = settings.host == "::"  # accept IPv4, too
            where = (settings.host, port)
            sockets.append(socket.create_server(where, family=family, backlog=_BACKLOG, dualstack_ipv6=both))
            # Inherited by each connection: by default, the kernel buffers megabytes for a client that does not read.
            sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        except OSError as error:
            for listening in sockets:
                listening.close()
            raise ListenError(f"{variable}: {settings.host}:{port}: {error.strerror}; set another port") from None
    return sockets
