"""OpenAI's SDK against the gateway: its answers and exceptions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest

from fakes import fake_engine
from fakes.fake_engine import MODEL
from tests.image.gateway.conftest import KEY, Cloud, StartEngine, StartGateway

MESSAGES = [openai.types.chat.ChatCompletionUserMessageParam(role="user", content="Hi")]


class Client(openai.AsyncOpenAI):
    def __init__(self, url: str, key: str = KEY) -> None:
        super().__init__(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=10)


@pytest.fixture
async def clients() -> AsyncIterator[list[Client]]:
    made: list[Client] = []
    yield made
    for client in made:
        await client.close()


async def test_answers(start_engine: StartEngine, start_gateway: StartGateway, clients: list[Client]) -> None:
    gateway = await start_gateway(await start_engine())
    clients.append(client := Client(gateway.url))
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).id == MODEL
    completion = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert completion.choices[0].message.content == "Hello"
    stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    texts = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
    assert texts[0] == "Hello"


async def test_a_stream_to_a_cold_engine(
    start_engine: StartEngine, start_gateway: StartGateway, clients: list[Client]
) -> None:
    """The client ignores the comment lines that it receives while it waits."""
    cloud = Cloud(await start_engine())
    gateway = await start_gateway(discovery=cloud, capacity=cloud, sse_comment_seconds=0.01)
    clients.append(client := Client(gateway.url))
    stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)  # its status is out
    cloud.arrive()
    assert (await anext(stream)).choices[0].delta.content == "Hello"
    cloud = Cloud()
    gateway = await start_gateway(discovery=cloud, capacity=cloud, sse_comment_seconds=0.01, hold_timeout_seconds=0.1)
    clients.append(client := Client(gateway.url))
    stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="not running yet"):
        await anext(stream)


async def test_refusals(start_engine: StartEngine, start_gateway: StartGateway, clients: list[Client]) -> None:
    engine = await start_engine()
    gateway = await start_gateway(engine, max_body_bytes=10_000)
    clients += [client := Client(gateway.url), stranger := Client(gateway.url, "wrong")]
    with pytest.raises(openai.AuthenticationError) as authentication:
        await stranger.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert authentication.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert missing.value.request_id is not None
    with pytest.raises(openai.NotFoundError):
        await client.files.list()
    with pytest.raises(openai.APIStatusError) as large:
        await client.chat.completions.create(model=MODEL, messages=MESSAGES, user="x" * 10_000)
    assert large.value.status_code == 413
    assert engine.requests == []


async def test_failures(start_engine: StartEngine, start_gateway: StartGateway, clients: list[Client]) -> None:
    engine = await start_engine(fake_engine.reset_within_a_stream)
    engine.go_on.set()
    gateway = await start_gateway(engine, hold_timeout_nonstream_seconds=0.1, max_queued_requests=1)
    clients.append(client := Client(gateway.url))
    stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    assert (await anext(stream)).choices[0].delta.content == "Hello"
    with pytest.raises(openai.APIError, match="closed the connection before completing") as died:
        await anext(stream)
    assert died.value.code == "engine_failed"
    await gateway.ready()
    engine.behaviour = fake_engine.refuse
    with pytest.raises(openai.BadRequestError, match="max_tokens is too large"):
        await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    engine.behaviour = fake_engine.reset
    with pytest.raises(openai.InternalServerError) as broken:
        await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert broken.value.status_code == 502
    await engine.stop()
    with pytest.raises(openai.InternalServerError) as cold:
        await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert cold.value.status_code == 503
    assert cold.value.response.headers["retry-after"]
