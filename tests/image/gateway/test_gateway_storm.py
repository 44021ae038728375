"""Many concurrent clients that disconnect at random, and engines that fail at random: no state is left over."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter

from fakes import fake_engine
from fakes.fake_engine import MODEL, Line, Request
from tests.image.gateway.conftest import KEY, StartEngine, StartGateway, until

CLIENTS = 150
STRANGERS = 20  # clients with a wrong key


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - a count, of numbers


async def test_whatever_clients_and_engines_do_nothing_is_left_behind(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    dice = random.Random(11)  # noqa: S311
    behaviours = [fake_engine.answer, fake_engine.stream_for_ever, fake_engine.say_nothing, fake_engine.drip]
    faults = [fake_engine.reset, fake_engine.reset_within_a_stream, fake_engine.break_the_chunking, fake_engine.flood]

    async def anything(request: Request, line: Line) -> None:
        await dice.choice(behaviours + faults)(request, line)

    engines = [await start_engine(anything) for _ in range(3)]
    for engine in engines:
        engine.go_on.set()
    gateway = await start_gateway(
        *engines,
        concurrency_per_replica=8,
        max_queued_requests=40,
        hold_timeout_seconds=0.5,
        hold_timeout_nonstream_seconds=0.4,
        request_timeout_seconds=0.5,
        eject_seconds=0.1,
        sse_comment_seconds=0.02,
        body_timeout_seconds=0.3,
        header_timeout_seconds=0.3,
        stalled_reader_seconds=0.2,
    )
    await gateway.chat()
    before = descriptors()
    statuses: Counter[bytes] = Counter()

    async def client(key: str = KEY) -> None:
        body = json.dumps(
            {"model": MODEL, "stream": dice.random() < 0.7, "pad": "x" * dice.randrange(100_000)}
        ).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
        request = head.encode() + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        try:
            # Leaves in the middle of its request, after a while, or never.
            writer.write(request[: dice.randrange(len(request))] if dice.random() < 0.2 else request)
            patience = dice.choice((0.0, 0.01, 0.1, 0.3, 20.0))
            async with asyncio.timeout(patience):
                statuses[(await reader.read())[9:12]] += 1
        except (TimeoutError, ConnectionError):
            statuses[b"left"] += 1
        finally:
            writer.transport.abort()

    await asyncio.gather(
        *(client() for _ in range(CLIENTS - STRANGERS)), *(client("sk-wrong") for _ in range(STRANGERS))
    )
    admission = gateway.service.admission
    await until(lambda: not gateway.service.app.active)
    assert (admission.running, admission.waiting, admission.waiting_bytes) == (0, 0, 0)
    assert all(replica.outstanding == 0 for replica in gateway.service.fleet._known.values())
    await until(lambda: sum(engine.running for engine in engines) == 0)
    await until(lambda: descriptors() <= before + 3 * 2)  # a kept connection a replica, and its other end
    assert sum(statuses.values()) == CLIENTS
    assert not statuses[b"500"]
    assert len(statuses) > 3, "a storm with all kinds of weather"
    assert not gateway.log("internal_error")
    for engine in engines:
        engine.behaviour = fake_engine.answer
    await gateway.ready(3)
    assert (await gateway.chat()).status_code == 200
