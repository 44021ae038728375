"""The same raw requests to the gateway and to nginx: their responses, the engine's requests, and the connection's state.

    .venv/bin/python -m benchmarks.gateway.differential > docs/benchmarks/gateway/differential.md

Requires nginx. Prints a Markdown page of all differences.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.gateway.differences import REASONS, reason_of
from benchmarks.gateway.nginx import NGINX, nginx
from benchmarks.gateway.raw_requests import REQUESTS
from benchmarks.gateway.running import in_process, loopback_settings, port_of
from fakes.fake_engine import MODEL, FakeEngine, Line, Request

# As in the gateway, one path leads to an engine and one is answered by the server itself. Timeouts are short.
BESIDE = """
client_header_timeout 1s; client_body_timeout 1s; lingering_timeout 1s; keepalive_timeout 20s;
client_max_body_size 20m; merge_slashes off;
upstream engine {{ server 127.0.0.1:{port}; keepalive 8; }}
server {{
  listen 127.0.0.1:PORT;
  default_type application/json;
  location = /health {{ if ($request_method !~ ^(GET|HEAD)$) {{ return 405; }} return 200 '{{"status":"ok"}}'; }}
  location = /v1/completions {{
    if ($request_method != POST) {{ return 405; }}
    proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
  }}
  location / {{ return 404; }}
}}
"""
QUIET_SECONDS = 3.0
"""A connection that is silent for this long counts as open. Longer than the timeouts for heads and bodies."""


@dataclass(frozen=True)
class Outcome:
    """The result of one request at one server."""

    statuses: tuple[int, ...]
    bodies: tuple[str, ...]
    """Length and hash of each body that the engine received."""
    closed: bool

    def __str__(self) -> str:
        answers = ", ".join(map(str, self.statuses)) or "nothing"
        if len(set(self.statuses)) == 1 and len(self.statuses) > 2:
            answers = f"{len(self.statuses)} x {self.statuses[0]}"
        engine = f"; engine {', '.join(self.bodies)}" if self.bodies else ""
        return f"{answers}{engine}; {'closed' if self.closed else 'open'}"


async def ask(port: int, request: bytes) -> tuple[tuple[int, ...], bool]:
    """Send some bytes. Returns the status of each response, and whether the connection was closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""
    closed = False
    try:
        writer.write(request)
        while part := await asyncio.wait_for(reader.read(65536), QUIET_SECONDS):
            found += part
        closed = True
    except TimeoutError:
        pass
    except ConnectionError:
        closed = True
    writer.transport.abort()
    statuses = (int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", found))
    return tuple(status for status in statuses if status != 100), closed


async def _answer(request: Request, line: Line) -> None:
    """Respond with 200 to any body."""
    line.reply({})


async def outcomes(port: int, engine: FakeEngine) -> dict[str, Outcome]:
    """Send every request to one server, concurrently. A query string identifies each at the engine."""

    async def one(number: int, request: bytes) -> tuple[tuple[int, ...], bool]:
        return await ask(port, request.replace(b"/v1/completions", b"/v1/completions?case=%d" % number))

    answers = await asyncio.gather(*(one(number, request) for number, request in enumerate(REQUESTS.values())))
    bodies: dict[str, list[str]] = {}
    for request in engine.requests:
        case = request.path.partition("case=")[2]
        bodies.setdefault(case, []).append(f"{len(request.body)} B {hashlib.sha256(request.body).hexdigest()[:6]}")
    return {
        name: Outcome(statuses, tuple(bodies.get(str(number), ())), closed)
        for number, (name, (statuses, closed)) in enumerate(zip(REQUESTS, answers, strict=True))
    }


async def both(folder: Path) -> tuple[dict[str, Outcome], dict[str, Outcome]]:
    """The outcomes at the gateway and at nginx."""
    engines = [await FakeEngine(_answer).start() for _ in range(2)]
    timeouts = {"header_timeout_seconds": 1, "body_timeout_seconds": 1}
    settings = loopback_settings(MODEL, [engines[0].port], concurrency_per_replica=1000, **timeouts)
    try:
        with (folder / "log").open("w") as log:
            async with in_process(settings, 1, log.fileno()) as service:
                ours = await outcomes(port_of(service), engines[0])
                async with nginx(folder, BESIDE.format(port=engines[1].port)) as port:
                    theirs = await outcomes(port, engines[1])
    finally:
        for engine in engines:
            await engine.stop()
    return ours, theirs


def unjustified(ours: dict[str, Outcome], theirs: dict[str, Outcome]) -> list[str]:
    """The requests with different outcomes for which `differences` has no reason."""
    return [name for name in REQUESTS if ours[name] != theirs[name] and reason_of(name, str(ours[name])) is None]


def _cell(name: str) -> str:
    return name.replace("|", "\\|")


def report(ours: dict[str, Outcome], theirs: dict[str, Outcome], version: str) -> str:
    """The differences as Markdown, grouped by reason."""
    unlike = [name for name in REQUESTS if ours[name] != theirs[name]]
    lines = [
        "# The gateway and nginx, request by request",
        "",
        f"{len(REQUESTS)} raw requests to both ({version}): {len(REQUESTS) - len(unlike)} have the same outcome, {len(unlike)} differ. Each cell has",
        "the status of each response, the bodies that the engine received, and whether the connection was closed. Written by",
        "`python -m benchmarks.gateway.differential`; `tests/image/gateway/test_gateway_nginx.py` fails on any other difference.",
    ]
    for reason in REASONS:
        rows = [name for name in unlike if reason_of(name, str(ours[name])) is reason]
        if rows:
            lines += ["", f"## {reason.title}", "", reason.why, "", "| request | gateway | nginx |", "|---|---|---|"]
            lines += [f"| `{_cell(name)}` | {ours[name]} | {theirs[name]} |" for name in rows]
    for name in unjustified(ours, theirs):
        lines += ["", f"**Not justified**: `{name}`: {ours[name]}; nginx: {theirs[name]}"]
    lines += ["", "## Same outcome", "", "| request | both |", "|---|---|"]
    lines += [f"| `{_cell(name)}` | {ours[name]} |" for name in REQUESTS if name not in unlike]
    return "\n".join(lines)


def nginx_version() -> str:
    """The name and version of nginx."""
    assert NGINX is not None
    told = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    return told.strip().rpartition(" ")[2]


def main() -> None:
    """Run both, and print the report."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if NGINX is None:
        raise SystemExit("nginx: not found. Install it; on Debian: apt-get install nginx-light")
    with tempfile.TemporaryDirectory() as path:
        print(report(*uvloop.run(both(Path(path))), nginx_version()))


if __name__ == "__main__":
    main()
