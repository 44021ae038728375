"""The ASGI application: routes paths, checks keys and models, and serves the gateway's own paths."""

from __future__ import annotations

import asyncio
import json
import re
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from image.gateway import __version__, body, errors, probing
from image.gateway.admission import Admission
from image.gateway.chat_page import ChatPage
from image.gateway.cors import Cors
from image.gateway.errors import ApiError, Shape
from image.gateway.exchange import CLIENT_LEFT_STATUS, Exchange, Receive, Scope, Send
from image.gateway.fleet import Fleet
from image.gateway.keys import KeyRing
from image.gateway.keys_document import rfc_3339
from image.gateway.limits import Limiter
from image.gateway.proxy import Proxy
from image.gateway.routes import ANTHROPIC_PREFIX, UPSTREAM, Route, from_azure
from image.gateway.settings import Settings
from image.gateway.telemetry import Telemetry
from image.gateway.waking import Waker

if TYPE_CHECKING:
    from image.gateway.tracing import Tracer

_OWN_PATHS = ("/health", "/health/ready", "/info", "/v1/models")
_NOT_LOGGED = ("/health", "/health/ready")  # a load balancer probes every few seconds
# Requests of load balancers, browsers and tools rather than of clients of the model.
_NOT_COUNTED = frozenset(("/", "/favicon.ico", "/health", "/health/ready", "/info"))
_OWN_METHODS = ("GET", "HEAD")
_MODEL_PREFIX = "/v1/models/"
_SLASHES = re.compile("/{2,}")


class App:
    """Answers every request, and logs and counts it afterwards."""

    def __init__(
        self,
        settings: Settings,
        ring: KeyRing,
        fleet: Fleet,
        admission: Admission,
        waker: Waker,
        telemetry: Telemetry,
        capacity_kind: str,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._ring = ring
        self._fleet = fleet
        self._admission = admission
        self._waker = waker
        self._telemetry = telemetry
        self._capacity_kind = capacity_kind
        self._tracer = tracer
        self._proxy = Proxy(settings, fleet, admission, waker, telemetry)
        self._probes = probing.Probes(settings, fleet, admission, waker, telemetry)
        self._cors = Cors(settings.allowed_origins)
        self._names = frozenset((settings.model, *settings.aliases, *settings.adapters))
        self._limiter = Limiter(settings.count)
        self._started = time.time()
        self._own: dict[str, Callable[[Exchange], Any]] = {
            "/health": self._health,
            "/health/ready": self._ready,
            "/info": self._info,
            "/v1/models": self._models,
        }
        if settings.chat_page:
            self._own["/"] = ChatPage().answer
        self.active: set[Exchange] = set()
        self.idle = asyncio.Event()
        self.draining = False
        """Readiness fails, so that load balancers stop sending requests; requests are still answered."""
        self.refusing = False
        """New requests for the engine are rejected."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. The answer bypasses `send`; see `writer`."""
        exchange = Exchange(scope, receive)
        connection = scope["gateway.connection"]
        connection.exchange = exchange
        exchange.closing = self.draining
        self.active.add(exchange)
        try:
            if connection.gone:  # a pipelined request whose client disconnected before its turn
                exchange.leave("client_left")
                await asyncio.sleep(0)  # where the cancellation is raised
            await self._answer(exchange)
        except asyncio.CancelledError:
            if not exchange.client_left:
                raise
            _uncancel()
            exchange.status = CLIENT_LEFT_STATUS
            if exchange.counted:
                self._telemetry.metrics.cancellations.labels(exchange.stage).inc()
        finally:
            exchange.end()
            if connection.exchange is exchange:
                connection.exchange = None
            self.active.discard(exchange)
            if not self.active:
                self.idle.set()
            if self._tracer is not None:
                self._tracer.end(exchange)
            self._telemetry.request(exchange, log=exchange.label not in _NOT_LOGGED)

    async def _answer(self, exchange: Exchange) -> None:
        """Answer, with an error if necessary."""
        try:
            try:
                await self._route(exchange)
            except asyncio.CancelledError:
                if exchange.aborted is None:
                    raise
                _uncancel()
                raise exchange.aborted from None
        except ApiError as error:
            if exchange.counted or exchange.label == "preflight":  # a rejected origin is a setting to correct
                self._telemetry.metrics.refusals.labels(error.reason).inc()
            await exchange.fail(error)
        except Exception as error:
            trace = traceback.format_exc(limit=-5)
            self._telemetry.event(
                "internal_error", level="error", request_id=exchange.request_id, error=repr(error), trace=trace
            )
            await exchange.fail(errors.internal())

    async def _route(self, exchange: Exchange) -> None:
        exchange.cors_headers = self._cors.headers(exchange)
        if Cors.is_preflight(exchange):  # before the key: browsers send none
            exchange.label, exchange.counted = "preflight", False
            exchange.start(204, list(self._cors.preflight(exchange)))
            await exchange.last_part()
            return
        path = exchange.path
        # Some clients join a base URL and a path with an extra slash, or append one. A deployment needs a name, so its
        # double slash stays.
        if "//" in path and "/deployments//" not in path:
            path = exchange.path = _SLASHES.sub("/", path)
        if path.endswith("/") and len(path) > 1:
            path = exchange.path = path[:-1]
        exchange.counted = path not in _NOT_COUNTED
        path, deployment = from_azure(path)
        if path.startswith(ANTHROPIC_PREFIX) or b"anthropic-version" in exchange.headers:
            exchange.shape = Shape.ANTHROPIC
        route = UPSTREAM.get(path)
        if route is not None:
            exchange.label = path
            await self._forward(exchange, route, deployment)
            return
        own = self._own.get(path)
        if own is not None:
            exchange.label = path
        elif path.startswith(_MODEL_PREFIX):
            exchange.label, own = "/v1/models", self._model
        else:
            raise errors.not_found(path[:128], self._meant(path)[:128])
        if exchange.method not in _OWN_METHODS:
            raise errors.method_not_allowed(exchange.method, "GET")
        if exchange.label == "/v1/models":
            self._authenticate(exchange)
            exchange.counted = not exchange.key.health
        exchange.stage = "answering"
        await own(exchange)

    def _meant(self, path: str) -> str:
        """The path that a client with a wrong base URL probably means, for example one without /v1 or with a whole endpoint
        before it; empty if unknown.
        """
        for other in ("/v1" + path, path.removeprefix("/v1")):
            if other != path and (other in UPSTREAM or other in self._own or other.startswith(_MODEL_PREFIX)):
                return other
        served = [other for other in (*UPSTREAM, "/v1/models") if path.endswith(other.removeprefix("/v1"))]
        return max(served, key=len, default="")

    async def _forward(self, exchange: Exchange, route: Route, deployment: str | None) -> None:
        if exchange.method != "POST":
            raise errors.method_not_allowed(exchange.method, "POST")
        if self._tracer is not None:
            self._tracer.begin(exchange)
        self._authenticate(exchange)
        if self.refusing:
            raise self._draining_error()
        self._limiter.enter(exchange.key)
        try:
            await self._forward_counted(exchange, route, deployment)
        finally:
            self._limiter.leave(exchange.key, exchange.tokens if route.infers else 0)

    async def _forward_counted(self, exchange: Exchange, route: Route, deployment: str | None) -> None:
        exchange.body = await body.receive(exchange, self._settings, self._admission)
        facts = body.read(exchange.body, route, exchange.headers.get(b"content-type", b""), self._settings)
        named = deployment or facts.model
        exchange.model = self._settings.model if named is None else named[:128]
        exchange.stream = facts.stream and route.streams
        exchange.modalities = facts.modalities
        if named is not None and named not in self._names:
            raise errors.unknown_model(named)
        exchange.affinity = facts.affinity
        if deployment is not None and deployment != facts.model:
            exchange.body = body.with_model(exchange.body, route, deployment)
        if facts.addition:
            exchange.body = exchange.body.rstrip()[:-1] + facts.addition
        if exchange.key.health and probing.is_probe(exchange, route):
            exchange.counted = False
            await self._probes.answer(exchange, self._proxy)
        else:
            await self._proxy.forward(exchange)

    def _authenticate(self, exchange: Exchange) -> None:
        exchange.key = self._ring.authenticate(exchange.scope["headers"])

    # Draining

    def start_refusing(self) -> None:
        """Reject new requests for the engine; running requests continue."""
        self.refusing = True
        self.idle.clear()
        if not self.active:
            self.idle.set()

    def abort_all(self) -> None:
        """End all running requests with an error."""
        for exchange in list(self.active):
            exchange.abort(self._draining_error())

    def _draining_error(self) -> ApiError:
        return errors.unavailable("This gateway is being replaced; try again.", "draining", 1)

    # The gateway's own answers

    async def _health(self, exchange: Exchange) -> None:
        await exchange.answer(200, b'{"status":"ok"}')

    async def _ready(self, exchange: Exchange) -> None:
        """Whether the gateway accepts requests, even if no engine is running: a cold gateway needs requests to wake one."""
        if self.draining:
            await exchange.answer(503, b'{"status":"draining"}')
        else:
            await exchange.answer(200, b'{"status":"ready"}')

    async def _info(self, exchange: Exchange) -> None:
        fleet, admission = self._fleet, self._admission
        state = "ready" if fleet.rotation else "waking" if self._waker.waking else "cold"
        await exchange.answer(
            200,
            _json(
                {
                    **self._settings.info,
                    "model": self._settings.model,
                    "state": "draining" if self.draining else state,
                    "replicas": {"ready": len(fleet.rotation), "known": fleet.known},
                    "requests": {"running": admission.running, "held": admission.held, "queued": admission.queued},
                    "idle_seconds": round(admission.idle_seconds, 1),
                    "concurrency_per_replica": self._settings.concurrency_per_replica,
                    "capacity": self._capacity_kind,
                    "wake_error": self._waker.last_error,
                    "cold_start": self._waker.last_cold_start,
                    "engine_version": fleet.engine_version or self._settings.info.get("engine_version"),
                    "gateway_version": __version__,
                    "uptime_seconds": round(time.time() - self._started),
                    "paths": [*_OWN_PATHS, *UPSTREAM],
                }
            ),
        )

    def _model_card(self, name: str, shape: Shape) -> dict[str, Any]:
        if shape is Shape.ANTHROPIC:
            return {"type": "model", "id": name, "display_name": name, "created_at": rfc_3339(self._started)}
        card = {"id": name, "object": "model", "created": int(self._started), "owned_by": "vllm"}
        info = self._settings.info
        length = info.get("max_model_len")
        if name in self._settings.adapters:
            card["parent"] = self._settings.model
        return card | {"max_model_len": length} if isinstance(length, int) else card

    async def _models(self, exchange: Exchange) -> None:
        settings, shape = self._settings, exchange.shape
        names = (settings.model, *settings.aliases, *settings.adapters)
        found: dict[str, Any] = {"data": [self._model_card(name, shape) for name in names]}
        if shape is Shape.ANTHROPIC:
            found |= {"has_more": False, "first_id": names[0], "last_id": names[-1]}
        else:
            found = {"object": "list"} | found
        await exchange.answer(200, _json(found))

    async def _model(self, exchange: Exchange) -> None:
        name = from_azure(exchange.path)[0].removeprefix(_MODEL_PREFIX)
        if name not in self._names:
            raise errors.unknown_model(name)
        await exchange.answer(200, _json(self._model_card(name, exchange.shape)))


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _uncancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
