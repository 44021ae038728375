"""OpenTelemetry traces if an OTLP endpoint is set: one span per request, whose context is propagated to the engine.

OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT enables it (HTTP with protobuf); the SDK reads the other
variables itself (sampler, headers, OTEL_SERVICE_NAME). Without an endpoint, `traceparent` is passed through unchanged.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from image.gateway import __version__

if TYPE_CHECKING:
    from image.gateway.exchange import Exchange

_PARTS = (b"traceparent", b"tracestate")


class Tracer:
    """Starts and ends the span of each request."""

    def __init__(self, exporter: SpanExporter, environment: Mapping[str, str]) -> None:
        name = {} if "OTEL_SERVICE_NAME" in environment else {SERVICE_NAME: "gateway"}
        self._provider = TracerProvider(resource=Resource.create(name), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("image.gateway", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, exchange: Exchange) -> None:
        """Start a span, as a child of the client's if there is one. Its context is sent to the engine."""
        carrier = {part.decode(): exchange.headers.get(part, b"").decode("latin-1") for part in _PARTS}
        span = self._tracer.start_span(
            f"{exchange.method} {exchange.label}",
            self._propagator.extract(carrier),
            trace.SpanKind.SERVER,
            start_time=_wall_clock(exchange.started),
        )
        exchange.span = span
        sent: dict[str, str] = {}
        self._propagator.inject(sent, trace.set_span_in_context(span))
        exchange.trace_headers = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]

    def end(self, exchange: Exchange) -> None:
        """End the request's span."""
        span = exchange.span
        if span is None:
            return
        if span.is_recording():
            attributes: dict[str, str | int | None] = {
                "http.request.method": exchange.method,
                "http.response.status_code": exchange.status,
                "url.path": exchange.label,
                "gen_ai.request.model": exchange.model,
                "gen_ai.usage.input_tokens": exchange.tokens_in,
                "gen_ai.usage.output_tokens": exchange.tokens_out,
                "gateway.request_id": exchange.request_id,
                "gateway.key": exchange.key.name or None,
                "gateway.replica": exchange.replica,
                "gateway.retries": exchange.retries,
                "error.type": exchange.error,
            }
            span.set_attributes({name: value for name, value in attributes.items() if value is not None})
            for event, moment in (("dispatched", exchange.dispatched), ("first_byte", exchange.first_byte)):
                if moment:
                    span.add_event(event, timestamp=_wall_clock(moment))
            if exchange.status >= 500:
                span.set_status(trace.StatusCode.ERROR)
        span.end()

    def stop(self) -> None:
        """Export the remaining spans; blocks for a few seconds at most."""
        self._provider.force_flush(3000)
        self._provider.shutdown()


def otlp(environment: Mapping[str, str]) -> Tracer:
    """A tracer that exports to the environment's OTLP endpoint."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return Tracer(OTLPSpanExporter(timeout=3), environment)


def _wall_clock(moment: float) -> int:
    """Convert a time.monotonic() value to nanoseconds since the epoch."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
