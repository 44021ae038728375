"""The log line and the metrics of a request."""

from __future__ import annotations

import json

from fakes import fake_engine
from fakes.fake_engine import MODEL
from tests.image.gateway.conftest import KEY, StartEngine, StartGateway, until


async def test_one_line_a_request(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine)
    secret = "the prompt is nobody's business"
    content = [{"type": "text", "text": secret}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    messages = [{"role": "user", "content": content}]
    await gateway.chat(messages=messages, headers={"x-request-id": "r-1"})
    async with gateway.stream(messages=messages) as response:
        await response.aread()
    await gateway.client.get("/health")
    await gateway.chat(model="other")
    await until(lambda: len(gateway.log()) == 3)
    plain, stream, refused = gateway.log()
    assert plain.keys() == {
        "time", "level", "event", "request_id", "client", "key", "model", "method", "path", "status", "stream", "modalities",
        "duration_ms", "waiting_ms", "ttft_ms", "tokens_in", "tokens_out", "tokens_per_second", "bytes_in", "bytes_out",
        "replica", "retries", "error",
    }  # fmt: skip
    assert plain["request_id"] == "r-1"
    assert plain["key"] == "tester"
    assert plain["model"] == MODEL
    assert plain["modalities"] == ["text", "image"]
    assert (plain["status"], plain["stream"], plain["error"]) == (200, False, None)
    assert (plain["tokens_in"], plain["tokens_out"]) == (7, 2)
    assert 0 <= plain["waiting_ms"] <= plain["ttft_ms"] <= plain["duration_ms"] < 5000
    assert plain["tokens_per_second"] > 0
    assert plain["bytes_in"] == len(engine.requests[0].body)
    assert plain["replica"] == f"127.0.0.1:{engine.port}"
    assert stream["stream"] is True
    assert stream["bytes_out"] == len(b"".join(fake_engine.EVENTS))
    assert (refused["status"], refused["error"], refused["tokens_out"]) == (404, "model", None)
    text = gateway.log_text()
    assert secret not in text
    assert KEY not in text


async def test_metrics(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine())
    for _ in range(3):
        await gateway.chat()
    await gateway.chat(path="/v1/completions", model="other")
    path = 'path="/v1/chat/completions"'
    expected = {
        f'gateway_requests_total{{{path},status="200"}}': 3,
        'gateway_requests_total{path="/v1/completions",status="404"}': 1,
        f"gateway_request_duration_seconds_count{{{path}}}": 3,
        f"gateway_time_to_first_token_seconds_count{{{path}}}": 3,
        "gateway_waiting_seconds_count": 3,
        'gateway_tokens_total{direction="in",key="tester"}': 21,
        'gateway_tokens_total{direction="out",key="tester"}': 6,
        'gateway_refusals_total{reason="model"}': 1,
        "gateway_requests_running": 0,
        "gateway_requests_held": 0,
        "gateway_requests_queued": 0,
        "gateway_demand": 0,
        "gateway_buffered_bytes": 0,
        "gateway_replicas_known": 1,
        "gateway_replicas_ready": 1,
        "gateway_draining": 0,
    }
    assert {name: await gateway.metric(name) for name in expected} == expected
    scraped = (await gateway.client.get(f"http://127.0.0.1:{gateway.metrics_port}/metrics")).text
    assert KEY not in scraped
    assert (await gateway.client.get(f"http://127.0.0.1:{gateway.metrics_port}/v1/models")).status_code == 404


async def test_hostile_names_stay_within_their_line(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine())
    body = b'{"model": "\\u0000 \\n{\\"event\\":\\"forged\\"}' + b"x" * 5000 + b'"}'
    headers = {"content-type": "application/json"}
    response = await gateway.client.post("/v1/completions", content=body, headers=headers)
    assert response.json()["error"]["code"] == "model_not_found"
    await gateway.client.get("/%0a%22forged/" + "y" * 5000)
    lines = [json.loads(line) for line in gateway.log_text().splitlines()]
    assert [line["event"] for line in lines if line.get("status") == 404] == ["request", "request"]
    assert max(map(len, gateway.log_text().splitlines())) < 2000
