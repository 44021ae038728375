"""The gateway behind a real nginx that reuses connections, and compared with one that gets the same bytes."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from benchmarks.gateway import differential
from benchmarks.gateway.differences import REASONS
from benchmarks.gateway.nginx import NGINX, nginx
from benchmarks.gateway.raw_requests import REQUESTS
from tests.image.gateway.conftest import StartEngine, StartGateway, until

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed; on Debian: apt-get install nginx-light")

# ingress-nginx's template: keep-alive to the upstream, Upgrade passed on, Connection "upgrade" where there is one, else none.
INGRESS = """
map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
upstream gateway {{ server 127.0.0.1:{port}; keepalive 320; }}
server {{
  listen 127.0.0.1:PORT;
  client_max_body_size 10m;
  location / {{
    proxy_pass http://gateway;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_request_buffering {buffering};
    proxy_buffering off;
  }}
}}
"""
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
ATTEMPTS = 100


@pytest.mark.parametrize("buffering", ["on", "off"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_nothing_is_smuggled_through_a_proxy_that_reuses_connections(
    start_engine: StartEngine, start_gateway: StartGateway, tmp_path: Path, method: str, framing: str, buffering: str
) -> None:
    """Attackers without a key send requests in bodies; every other client gets its own answer."""
    gateway = await start_gateway(await start_engine())
    # Empty lines before a request are skipped: wherever a parser that has lost the body begins, it finds the request.
    body = b"\r\n" * 40_000 + SMUGGLED
    header = f"content-length: {len(body)}" if framing == "length" else "transfer-encoding: chunked"
    if framing == "chunks":
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    attack = f"{method} /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n{header}\r\n\r\n".encode()

    async with nginx(tmp_path, INGRESS.format(port=gateway.port, buffering=buffering)) as port:

        async def attacker() -> None:
            for _ in range(ATTEMPTS // 4):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(attack + body)
                assert re.match(rb"HTTP/1.1 (401|405) ", await reader.readline())
                writer.close()

        async def victim(name: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for number in range(ATTEMPTS):
                writer.write(f"GET /victim/{name}/{number} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
                message = json.loads(await reader.readexactly(length))["error"]["message"]
                assert f"'/victim/{name}/{number}'" in message
            writer.close()

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for name in range(4):
                group.create_task(attacker())
                group.create_task(victim(name))
        await until(lambda: not gateway.service.app.active)
    # A request that was smuggled but reached nobody would be one more.
    assert await gateway.metric('gateway_requests_total{path="other",status="404"}') == 4 * ATTEMPTS


async def test_every_difference_to_nginx_is_justified(tmp_path: Path) -> None:
    """The same bytes to both: which answers come, what an engine receives, and whether the connection survives."""
    assert len(REQUESTS) >= 200
    assert all(name in REQUESTS for reason in REASONS for name in reason.ours)
    ours, theirs = await differential.both(tmp_path)
    unlike = differential.unjustified(ours, theirs)
    # A timeout may come late on a busy machine: what is wrong with the gateway is so twice.
    if unlike:
        ours, theirs = await differential.both(tmp_path)
        unlike = [name for name in differential.unjustified(ours, theirs) if name in unlike]
    assert not unlike, [(name, str(ours[name]), str(theirs[name])) for name in unlike]
