"""Mutated requests to the gateway, with vLLM's own HTTP servers behind it and other parsers to compare with.

Each case is a sequence of bytes on one connection. `Found` has the properties that must hold for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import re
import socket
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import uvicorn

from benchmarks.gateway.fuzz_cases import EXPIRED, KEY, KEYS, Case, cases
from benchmarks.gateway.nginx import nginx
from benchmarks.gateway.running import in_process, loopback_settings, port_of, until
from fakes.fake_engine import MODEL
from image.gateway.backends import InlineKeys
from image.gateway.headers import KEY_HEADERS
from image.gateway.service import Service

# The gateway's timeouts close every connection earlier than this, even on a busy machine.
_LONGEST_SECONDS = 20
_RESPONSE_HEADERS = frozenset(
    b"date content-type content-length transfer-encoding connection x-request-id allow www-authenticate retry-after vary "
    b"access-control-allow-origin access-control-expose-headers access-control-allow-methods access-control-allow-headers "
    b"access-control-max-age cache-control x-accel-buffering accept-encoding server".split()
)


_CASE = re.compile(rb"case-\d+-\d+-[0-9a-f]+-")


class Recorder:
    """An ASGI application as the engine: records every body, and responds with the name of its case."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[tuple[int, bytes]]] = {}
        self.count = 0
        self.problems: list[str] = []

    def take(self, case: Case) -> list[bytes]:
        """Remove and return the bodies with the name of a case, or a mutation of the name, in order of arrival."""
        return [body for _, body in sorted(entry for name in names_of(case) for entry in self.bodies.pop(name, ()))]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if scope["path"] not in ("/health", "/version"):
            names = [name for name, _ in scope["headers"]]
            for name in (b"host", b"content-length", b"x-request-id", b"x-forwarded-for"):
                if names.count(name) != 1:
                    self.problems.append(f"{names.count(name)} {name!r} at the engine: {body[:200]!r}")
            if not KEY_HEADERS.isdisjoint(names):
                self.problems.append(f"the key at the engine: {scope['headers']}")
            self.count += 1
            self.bodies.setdefault(case_of(body), []).append((self.count, body))
        answer = json.dumps({"case": case_of(body), "version": "0.33.0"}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def case_of(data: bytes) -> str:
    """The name of the case in some bytes; empty if there is none."""
    match = _CASE.search(data)
    return match[0].decode() if match else ""


def names_of(case: Case) -> set[str]:
    """The names its requests may have: a mutation may change the name, even in a body of one-byte chunks."""
    plain = b" ".join((case.data, *as_h11_reads(case.data)[0]))
    return {case.name, *(name.decode() for name in _CASE.findall(plain))}


async def ask(port: int, case: Case) -> bytes | None:
    """Send a case. Returns everything received until the connection is closed; None if it is never closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""
    try:
        for part in case.parts:
            if not writer.transport.is_closing():
                writer.write(part)
            await asyncio.sleep(0)
        async with asyncio.timeout(_LONGEST_SECONDS):
            while part := await reader.read(65536):
                found += part
    except TimeoutError:
        return None
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return found


def responses(data: bytes, *, behind_nginx: bool = False) -> list[tuple[int, bytes]]:
    """Status and body of each response. Raises ValueError for an incomplete response or an unknown header."""
    found = []
    while data:
        if behind_nginx and not data.startswith(b"HTTP/1.1 "):
            break  # nginx still supports HTTP/0.9, which has no head
        head, end, data = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+", lines[0])
        if not end or status is None:
            raise ValueError(f"not the head of a response: {head[:200]!r}")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        if strange := headers.keys() - _RESPONSE_HEADERS:
            raise ValueError(f"unknown headers: {strange}")
        if status[1] == b"100":
            continue
        body = b""
        if b"content-length" in headers and not data.startswith(b"HTTP/1.1 "):  # otherwise a response to HEAD
            length = int(headers[b"content-length"])
            body, data = data[:length], data[length:]
            if data == b"" and body == b"":
                length = 0  # the last one, to HEAD
            if len(body) != length:
                raise ValueError(f"an incomplete response: {head[:200]!r}")
        found.append((int(status[1]), body))
    return found


def as_h11_reads(data: bytes) -> tuple[list[bytes], bool]:
    """The bodies of the requests in some bytes according to h11, and whether h11 found an error."""
    bodies: list[bytes] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                coded = any(name == b"content-encoding" and value == b"gzip" for name, value in event.headers)
                body = b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                if coded:
                    with_gzip = zlib.decompressobj(wbits=31)
                    body = with_gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
                bodies.append(body)
                connection.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return bodies, False
                connection.start_next_cycle()
            else:
                return bodies, False
    except (h11.ProtocolError, zlib.error):
        return bodies, True


@dataclass
class Found:
    """The results of all cases. `problems` must be empty."""

    behind_nginx: bool = False
    cases: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    engine_requests: int = 0
    stricter: Counter[str] = field(default_factory=Counter)
    """Parser -> bodies that the gateway forwarded although this parser rejects the bytes of the connection."""
    problems: list[str] = field(default_factory=list)

    def judge(self, case: Case, answer: bytes, engine: list[bytes]) -> None:
        """Check one case: its bytes, its responses, and the bodies with its name that the engine received."""
        self.cases += 1
        self.engine_requests += len(engine)
        try:
            answered = responses(answer, behind_nginx=self.behind_nginx)
        except ValueError as error:
            self.problems.append(f"{error}: {case.parts!r}")
            return
        self.answers.update(status for status, _ in answered)
        good = [body for status, body in answered if status < 300]
        if len(engine) > len(good):
            self.problems.append(f"{len(engine)} requests at the engine, {len(good)} answered: {case.parts!r}")
        if engine and not case.has_key:
            self.problems.append(f"a request without a key reached the engine: {case.parts!r}")
        if not {"", *names_of(case)}.issuperset(map(case_of, good)):
            self.problems.append(f"another connection's answer: {case.parts!r} {answer!r}")
        if KEY.encode() in answer:
            self.problems.append(f"the key in an answer: {case.parts!r}")
        theirs, refused = as_h11_reads(case.data)
        left = iter(theirs)
        for body in engine:
            plain = re.sub(rb',"model":"fake/model-1"\}$', b"}", body)  # added when the model is named in the path
            if not any(their in (body, plain) for their in left):
                if refused:
                    self.stricter["h11"] += 1
                else:
                    self.problems.append(f"another body than h11 reads: {body!r} {case.parts!r}")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextlib.asynccontextmanager
async def engines(recorder: Recorder) -> AsyncIterator[list[int]]:
    """The two HTTP servers that vLLM can use, on free ports: uvicorn with httptools and with h11."""
    servers, running, ports = [], [], []
    for http in ("httptools", "h11"):
        listening = socket.create_server(("127.0.0.1", 0))
        ports.append(listening.getsockname()[1])
        servers.append(_Server(uvicorn.Config(recorder, http=http, ws="none", lifespan="off", log_config=None)))
        running.append(asyncio.create_task(servers[-1].serve([listening])))
    try:
        yield ports
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*running)


class _Complaints(logging.Handler):
    def __init__(self, problems: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        if "Invalid HTTP request" not in record.getMessage():
            self._problems.append(f"logged: {record.getMessage()[:300]}")


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


# All clients share the connections to the gateway, so a smuggled request is answered to another client.
_FRONT = """
upstream gateway {{ server 127.0.0.1:{port}; keepalive 4; }}
server {{
  listen 127.0.0.1:PORT; client_header_timeout 1s; keepalive_timeout 1s; client_body_timeout 1s; lingering_timeout 1s; merge_slashes off;
  location / {{
    proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host x;
    proxy_request_buffering off; proxy_next_upstream off;
  }}
}}
"""


async def fuzz(count: int, seed: int, folder: Path, *, at_once: int = 128, behind_nginx: bool = False) -> Found:
    """Run all cases against a gateway with short timeouts, directly or through nginx. The log is written to `folder`."""
    found, recorder = Found(behind_nginx), Recorder()
    complaints = _Complaints(found.problems)
    logging.getLogger("uvicorn.error").addHandler(complaints)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.problems.append(f"the loop: {context}"))
    async with engines(recorder) as ports:
        settings = loopback_settings(
            MODEL,
            ports,
            keys=InlineKeys(KEYS),
            allowed_origins=("http://page.example",),
            trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),),
            header_timeout_seconds=1,
            body_timeout_seconds=1,
            keep_alive_seconds=1,
            drain_delay_seconds=0,
            concurrency_per_replica=1000,
        )
        with (folder / "log").open("w") as log:
            async with in_process(settings, len(ports), log.fileno()) as service:
                await ask(port_of(service), next(cases(1, seed)))  # warm up: everything that is loaded lazily
                recorder.bodies.clear()
                await until(lambda: not service.app.active)
                files, tasks = _open_files(), len(asyncio.all_tasks())
                if behind_nginx:
                    async with nginx(folder, _FRONT.format(port=port_of(service))) as port:
                        await _send_all(count, seed, at_once, port, recorder, found)
                else:
                    await _send_all(count, seed, at_once, port_of(service), recorder, found)
                await _at_rest(service, found, files, tasks)
    found.problems += recorder.problems
    text = (folder / "log").read_text()
    for word in ("Traceback", "internal_error", KEY, EXPIRED):
        if word in text:
            line = next(line for line in text.splitlines() if word in line)
            found.problems.append(f"{word} in the log: {line[:600]}")
    logging.getLogger("uvicorn.error").removeHandler(complaints)
    return found


async def _send_all(count: int, seed: int, at_once: int, port: int, recorder: Recorder, found: Found) -> None:
    waiting = cases(count, seed)

    async def work() -> None:
        for case in waiting:
            answer = await ask(port, case)
            if answer is None:
                found.problems.append(f"never closed: {case.parts!r}")
            else:
                found.judge(case, answer, recorder.take(case))

    await asyncio.gather(*(work() for _ in range(at_once)))
    if strays := [bodies for name, bodies in recorder.bodies.items() if name]:
        found.problems.append(f"requests that reached the engine afterwards: {strays[:3]}")


async def _at_rest(service: Service, found: Found, files: int, tasks: int) -> None:
    admission = service.admission
    limiter = service.app._limiter
    state: dict[str, Callable[[], int]] = {
        "requests": lambda: len(service.app.active) + admission.demand,
        "queued": lambda: admission.queued + admission.held + admission.waiting_bytes,
        "slots": lambda: sum(replica.outstanding for replica in service.fleet.rotation),
        "the key's requests": lambda: sum(meter.running for meter in limiter._meters.values()),
        "files": lambda: max(_open_files() - files, 0),
        "tasks": lambda: max(len(asyncio.all_tasks()) - tasks, 0),
    }
    for name, left in state.items():
        try:
            await until(lambda left=left: not left(), 10)  # type: ignore[misc]
        except TimeoutError:
            found.problems.append(f"{name} left over: {left()}")
