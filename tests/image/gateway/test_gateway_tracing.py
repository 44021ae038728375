"""Traces that a collector on loopback receives from a gateway process."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
from typing import Any

import httpx2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fakes import fake_engine
from fakes.fake_engine import MODEL, Line, Request
from image.gateway.tracing import Tracer
from tests.image.gateway.conftest import KEY, TLS, StartEngine, StartGateway

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def test_a_request_is_a_span_between_its_clients_and_its_engines(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    exporter = InMemorySpanExporter()
    engine = await start_engine()
    gateway = await start_gateway(engine, tracer=Tracer(exporter, {}))
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b"}
    assert (await gateway.chat(headers=headers, stream=True)).status_code == 200
    engine.behaviour = fake_engine.reset
    assert (await gateway.chat()).status_code == 502
    await gateway.client.get("/health")
    await asyncio.to_thread(gateway.service._tracer.stop)  # type: ignore[union-attr]
    good, bad = exporter.get_finished_spans()
    assert good.context is not None
    assert good.parent is not None
    assert f"{good.context.trace_id:032x}" == TRACE
    assert f"{good.parent.span_id:016x}" == PARENT
    received = engine.requests[0].headers
    assert received["traceparent"] == f"00-{TRACE}-{good.context.span_id:016x}-01"
    assert received["tracestate"] == "a=b"
    attributes: Any = good.attributes
    assert attributes["gen_ai.usage.output_tokens"] == 2
    assert attributes["http.response.status_code"] == 200
    assert attributes["gateway.key"] == "tester"
    assert good.start_time is not None
    assert good.end_time is not None
    moments = [good.start_time, *(event.timestamp for event in good.events), good.end_time]
    assert moments == sorted(moments)
    assert [event.name for event in good.events] == ["dispatched", "first_byte"]
    assert not bad.status.is_ok
    assert KEY not in good.to_json() + bad.to_json()


async def test_spans_reach_the_endpoint_of_the_environment(start_engine: StartEngine) -> None:
    arrived = asyncio.Event()
    spans: list[Any] = []

    async def collect(request: Request, line: Line) -> None:
        data = gzip.decompress(request.body) if "content-encoding" in request.headers else request.body
        export = ExportTraceServiceRequest.FromString(data)
        spans.extend(span for r in export.resource_spans for s in r.scope_spans for span in s.spans)
        line.reply({})
        arrived.set()

    collector, engine = await start_engine(collect), await start_engine()
    ports = [await start_engine() for _ in range(2)]
    for free in ports:
        await free.stop()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "image.gateway",
        env={
            "PATH": os.environ["PATH"],
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            "GATEWAY_MODEL": MODEL,
            "GATEWAY_DISCOVERY": f"fixed:{engine.url}",
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(ports[0].port),
            "GATEWAY_METRICS_PORT": str(ports[1].port),
        },
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while b"replica_ready" not in await process.stdout.readline():
                pass
        async with httpx2.AsyncClient(trust_env=False, verify=TLS) as client:
            url = f"http://127.0.0.1:{ports[0].port}/v1/completions"
            assert (await client.post(url, json={"model": MODEL, "prompt": "Hi"})).status_code == 200
        await asyncio.wait_for(arrived.wait(), 10)
        assert [span.name for span in spans] == ["POST /v1/completions"]
    finally:
        process.terminate()
        assert await process.wait() == 0
