"""Health checks in the form of inference requests neither wake a cold engine nor keep an idle one running."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from openai import AsyncOpenAI

from fakes import fake_engine
from fakes.fake_engine import MODEL
from image.gateway.backends import InlineKeys
from image.gateway.capacity.base import ScalingError
from tests.image.gateway.conftest import KEY, Cloud, Gateway, StartEngine, StartGateway, until

KEYS = InlineKeys(json.dumps({"tester": KEY, "litellm": {"key": "sk-probe", "health": True}}))
PROBE = {"authorization": "Bearer sk-probe"}
ONE: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": MODEL, "messages": [], "max_tokens": 1},
    "/v1/completions": {"model": MODEL, "prompt": "Hi", "max_tokens": 1},
    "/v1/responses": {"model": MODEL, "input": "Hi", "max_output_tokens": 16},
    "/v1/messages": {"model": MODEL, "messages": [], "max_tokens": 1},
    "/v1/embeddings": {"model": MODEL, "input": "Hi"},
}


async def probe(gateway: Gateway, path: str = "/v1/chat/completions", **changes: Any) -> Any:
    return await gateway.client.post(path, json=ONE[path] | changes, headers=PROBE)


@pytest.mark.parametrize("path", ONE)
async def test_a_cold_engine_is_not_woken_and_the_answer_is_cheap(start_gateway: StartGateway, path: str) -> None:
    cloud = Cloud()
    gateway = await start_gateway(discovery=cloud, capacity=cloud, keys=KEYS)
    since = gateway.service.admission._idle_since
    for _ in range(3):
        response = await probe(gateway, path)
        assert (response.status_code, response.headers["x-engine-state"]) == (200, "cold")
    assert (cloud.wakes, gateway.service.admission.take_peak()) == (0, 0)
    assert gateway.service.admission._idle_since == since
    assert gateway.log("uncounted")[-1]["key"] == "litellm"
    assert gateway.log() == []


async def test_a_completion_that_says_nothing_asks_for_16_tokens(start_gateway: StartGateway) -> None:
    cloud = Cloud()
    gateway = await start_gateway(discovery=cloud, capacity=cloud, keys=KEYS)
    assert (await probe(gateway, "/v1/completions", max_tokens=None)).headers["x-engine-state"] == "cold"
    assert cloud.wakes == 0


async def test_the_cheap_answers_are_what_the_sdk_reads(start_gateway: StartGateway) -> None:
    cloud = Cloud()
    gateway = await start_gateway(discovery=cloud, capacity=cloud, keys=KEYS)
    async with AsyncOpenAI(base_url=gateway.url + "/v1", api_key="sk-probe", max_retries=0) as client:
        chat = await client.chat.completions.create(model=MODEL, messages=[], max_tokens=1)
        assert (chat.choices[0].finish_reason, chat.choices[0].message.content) == ("length", "")
        assert (await client.completions.create(model=MODEL, prompt="Hi", max_tokens=1)).choices[0].text == ""
        response = await client.responses.create(model=MODEL, input="Hi", max_output_tokens=16)
        assert (response.status, response.output_text) == ("incomplete", "")
        assert (await client.embeddings.create(model=MODEL, input="Hi", encoding_format="float")).data[0].index == 0
    message = (await probe(gateway, "/v1/messages")).json()
    assert (message["type"], message["stop_reason"], message["content"]) == ("message", "max_tokens", [])


async def test_an_idle_engine_answers_itself_and_stays_idle(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(fake_engine.answer_when_told)
    gateway = await start_gateway(engine, keys=KEYS)
    admission = gateway.service.admission
    since = admission._idle_since
    asked = asyncio.create_task(probe(gateway))
    await engine.reached.wait()
    assert (admission.running, admission.demand, admission.idle_seconds > 0) == (0, 0, True)
    engine.go_on.set()
    assert (await asked).json()["choices"][0]["message"]["content"] == "Hello"
    assert admission._idle_since == since
    assert admission.take_peak() == 0
    assert all(replica.outstanding == 0 for replica in gateway.service.fleet.rotation)
    assert (await gateway.chat()).status_code == 200
    assert admission._idle_since > since, "known bad: another key's request is demand"


async def test_a_slot_that_a_probe_had_goes_to_the_next_one_waiting(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(fake_engine.answer_when_told)
    gateway = await start_gateway(engine, keys=KEYS, concurrency_per_replica=1)
    asked = asyncio.create_task(probe(gateway))
    await engine.reached.wait()
    waiting = asyncio.create_task(gateway.chat())
    await until(lambda: gateway.service.admission.queued == 1)
    engine.go_on.set()
    assert (await asked).status_code == (await waiting).status_code == 200
    assert engine.most_running == 1


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("/v1/chat/completions", {"max_tokens": 17}),
        ("/v1/chat/completions", {"max_tokens": None}),
        ("/v1/chat/completions", {"max_completion_tokens": 900}),
        ("/v1/chat/completions", {"max_tokens": "1"}),
        ("/v1/completions", {"max_tokens": 17}),
        ("/v1/chat/completions", {"max_tokens": 1, "stream": True}),
        # Work that is split up, or that has no tokens to count, is work.
        ("/v1/chat/completions", {"max_tokens": 1, "n": 100}),
        ("/v1/completions", {"max_tokens": 1, "best_of": 2}),
        ("/v1/completions", {"max_tokens": 1, "prompt": ["Hi"] * 100}),
        ("/v1/completions", {"max_tokens": 1, "prompt": [[1], [2]]}),
        ("/v1/embeddings", {"input": ["Hi", "you"]}),
        ("/v1/embeddings", {"input": "Hi" * 4096}),
    ],
)
async def test_a_request_of_that_key_that_wants_an_answer_wakes(
    start_engine: StartEngine, start_gateway: StartGateway, path: str, changes: dict[str, Any]
) -> None:
    cloud = Cloud(await start_engine())
    cloud.woken = cloud.arrive
    gateway = await start_gateway(discovery=cloud, capacity=cloud, keys=KEYS, ready=0)
    response = await probe(gateway, path, **changes)
    assert response.status_code == 200
    assert "x-engine-state" not in response.headers
    assert cloud.wakes == 1


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("/v1/embeddings", {"input": ["test from litellm"]}),
        ("/v1/embeddings", {"input": [1, 2, 3]}),
        ("/v1/completions", {"max_tokens": 1, "n": 1, "best_of": None}),
        ("/v1/responses", {"input": [{"role": "user", "content": "Hi"}] * 2}),
    ],
)
async def test_what_routers_ask_is_still_a_probe(
    start_gateway: StartGateway, path: str, changes: dict[str, Any]
) -> None:
    cloud = Cloud()
    gateway = await start_gateway(discovery=cloud, capacity=cloud, keys=KEYS)
    assert (await probe(gateway, path, **changes)).headers["x-engine-state"] == "cold"
    assert cloud.wakes == 0


async def test_another_keys_single_token_wakes(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    cloud = Cloud(await start_engine())
    cloud.woken = cloud.arrive
    gateway = await start_gateway(discovery=cloud, capacity=cloud, keys=KEYS, ready=0)
    assert (await gateway.chat(max_tokens=1)).status_code == 200
    assert cloud.wakes == 1


async def test_an_engine_that_cannot_start_is_not_called_healthy(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    cloud = Cloud(await start_engine())
    cloud.failures = [ScalingError("no instance to be had", "detail")] * 9
    gateway = await start_gateway(discovery=cloud, capacity=cloud, keys=KEYS, ready=0)
    request = asyncio.create_task(gateway.chat())
    await until(lambda: gateway.service.waker.last_error is not None)
    response = await probe(gateway)
    assert response.status_code == 503
    assert "no instance to be had" in response.json()["error"]["message"]
    assert int(response.headers["retry-after"]) > 0
    cloud.failures.clear()
    cloud.woken = cloud.arrive
    assert (await request).status_code == 200


async def test_an_engine_that_fails_a_probe_shows(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(fake_engine.fail)
    gateway = await start_gateway(engine, keys=KEYS)
    assert (await probe(gateway)).status_code == 500
    engine.behaviour = fake_engine.reset
    assert (await probe(gateway)).status_code in (502, 503)
    assert gateway.service.admission.demand == 0
