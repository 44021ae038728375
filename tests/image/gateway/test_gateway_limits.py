"""A key's rate limits: the meters with a simulated clock, and through a gateway."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from fakes import fake_engine
from image.gateway.backends import InlineKeys
from image.gateway.errors import ApiError
from image.gateway.limits import Key, Limiter, Limits
from tests.image.gateway.conftest import KEY, StartEngine, StartGateway, until


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(limiter: Limiter, key: Key) -> dict[bytes, bytes]:
    with pytest.raises(ApiError) as raised:
        limiter.enter(key)
    assert raised.value.status == 429
    return dict(raised.value.headers)


def test_requests_at_once() -> None:
    limiter, key = Limiter(1), Key("alice", Limits(concurrency=2))
    limiter.enter(key)
    limiter.enter(key)
    refused(limiter, key)
    limiter.enter(Key("bob", Limits(concurrency=1)))
    limiter.leave(key, 5)
    limiter.enter(Key("alice", Limits(concurrency=2)))  # rotated: another key of the same name


def test_requests_and_tokens_a_minute() -> None:
    clock = Clock()
    limiter = Limiter(1, clock)
    key = Key("alice", Limits(requests_per_minute=3, tokens_per_minute=100))
    for tokens in (10, 20, 30):
        limiter.enter(key)
        limiter.leave(key, tokens)
        clock.now += 10
    assert refused(limiter, key)[b"retry-after"] == b"30"
    clock.now += 30
    limiter.enter(key)
    limiter.leave(key, 90)  # an answer may pass the limit: it is counted when it is over
    assert refused(limiter, key)[b"retry-after"] == b"10", "the third request's place"
    clock.now += 10
    assert refused(limiter, key)[b"retry-after"] == b"10", "20 and 30 and 90 tokens, less 20, is still too many"
    clock.now += 50
    limiter.enter(key)


def test_in_any_sixty_seconds_at_most_so_many() -> None:
    clock, dice = Clock(), random.Random(3)  # noqa: S311
    limiter, key = Limiter(1, clock), Key("alice", Limits(requests_per_minute=20))
    entered = []
    for _ in range(3000):
        clock.now += dice.expovariate(1)
        try:
            limiter.enter(key)
        except ApiError as error:
            clock.now += int(dict(error.headers)[b"retry-after"])
            limiter.enter(key)  # Retry-After is true
        limiter.leave(key, 0)
        entered.append(clock.now)
    assert all(later - first >= 60 for first, later in zip(entered, entered[20:], strict=False))


def test_gateways_share_what_holds_for_all() -> None:
    assert Limits(10, 61, None).share(3) == Limits(3, 20, None)
    assert Limits(1).share(3) == Limits(1)


async def test_a_key_beyond_its_limits_is_told_so_and_others_go_on(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(fake_engine.answer_when_told)
    document = {"small": {"key": KEY, "limits": {"concurrency": 1, "requests_per_minute": 2}}, "big": "sk-big"}
    gateway = await start_gateway(engine, keys=InlineKeys(json.dumps(document)))
    first = asyncio.create_task(gateway.chat())
    await engine.reached.wait()
    response = await gateway.chat()
    assert response.status_code == 429
    assert response.json()["error"]["code"] == "rate_limit_exceeded"
    assert "1 concurrent requests" in response.json()["error"]["message"]
    engine.go_on.set()
    assert (await first).status_code == 200
    assert (await gateway.chat()).status_code == 200
    response = await gateway.chat()
    assert response.status_code == 429
    assert 0 < int(response.headers["retry-after"]) <= 60
    assert (await gateway.chat(headers={"authorization": "Bearer sk-big"})).status_code == 200
    assert len(engine.requests) == 3
    assert await gateway.metric('gateway_refusals_total{reason="key_concurrency"}') == 1
    assert await gateway.metric('gateway_refusals_total{reason="key_requests_per_minute"}') == 1


async def test_tokens_are_counted_even_where_the_answer_does_not_say(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    document = {"a": {"key": KEY, "limits": {"tokens_per_minute": 20}}}
    gateway = await start_gateway(engine, keys=InlineKeys(json.dumps(document)))
    for _ in range(3):  # 9 tokens each
        assert (await gateway.chat(stream=True)).status_code == 200
    assert (await gateway.chat()).status_code == 429

    engine.behaviour = fake_engine.stream_for_ever
    gateway = await start_gateway(engine, keys=InlineKeys(json.dumps(document)))
    request = asyncio.create_task(gateway.chat(stream=True, pad="x" * 100))
    await engine.abandoned_after(request)
    await until(lambda: not gateway.service.app.active)
    response = await gateway.chat()
    assert response.status_code == 429, "a client that leaves before the usage block has used tokens all the same"


async def test_a_free_slot_goes_to_the_highest_priority(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(fake_engine.answer_when_told)
    document = {
        "batch": {"key": "sk-batch", "priority": -10},
        "usual": KEY,
        "urgent": ["sk-urgent-old", {"key": "sk-urgent", "priority": 50}],
    }
    keys = InlineKeys(json.dumps(document))
    gateway = await start_gateway(engine, keys=keys, concurrency_per_replica=1, max_queued_per_slot=0)
    requests = [asyncio.create_task(gateway.chat())]
    await engine.reached.wait()
    for key in ("sk-batch", "sk-batch", KEY, "sk-urgent"):
        requests.append(asyncio.create_task(gateway.chat(headers={"authorization": f"Bearer {key}"})))
        await until(lambda: gateway.service.admission.queued == len(requests) - 1)
    engine.go_on.set()
    assert [response.status_code for response in await asyncio.gather(*requests)] == [200] * 5
    assert [line["key"] for line in gateway.log()] == ["usual", "urgent", "usual", "batch", "batch"]
