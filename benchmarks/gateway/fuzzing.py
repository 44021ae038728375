"""Mutated requests to the gateway, with vLLM's own HTTP servers behind it and other parsers beside it.

Each case is some bytes on one connection. What must hold, whatever they are: see `Found`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
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
from fakes.fake_engine import MODEL
from image.gateway.backends import FixedDiscovery, InlineKeys
from image.gateway.headers import KEY_HEADERS
from image.gateway.service import Service
from image.gateway.settings import Settings
from image.gateway.telemetry import Telemetry

# Every connection is closed by a timeout of the gateway's before this, also on a busy machine.
_LONGEST_SECONDS = 20
_RESPONSE_HEADERS = frozenset(
    b"date content-type content-length transfer-encoding connection x-request-id allow www-authenticate retry-after vary "
    b"access-control-allow-origin access-control-expose-headers access-control-allow-methods access-control-allow-headers "
    b"access-control-max-age cache-control x-accel-buffering accept-encoding server".split()
)


_CASE = re.compile(rb"case-\d+-\d+-[0-9a-f]+-")


class Recorder:
    """An ASGI application in the engine's place: keeps every body, and answers with its case."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[tuple[int, bytes]]] = {}
        self.count = 0
        self.problems: list[str] = []

    def take(self, case: Case) -> list[bytes]:
        """The bodies with the name of a case, or with what a mutation made of it, in their order; they are forgotten."""
        return [body for _, body in sorted(entry for name in names_of(case) for entry in self.bodies.pop(name, ()))]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
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
    """The case whose request this is, as far as it can be read."""
    match = _CASE.search(data)
    return match[0].decode() if match else ""


def names_of(case: Case) -> set[str]:
    """What its requests may be called: a mutation may have changed the name, also where it lies in chunks of a byte."""
    plain = b" ".join((case.data, *as_h11_reads(case.data)[0]))
    return {case.name, *(name.decode() for name in _CASE.findall(plain))}


async def ask(port: int, case: Case) -> bytes | None:
    """All that is answered until the connection is closed; None if it never is."""
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
    """Status and body of each answer; raises ValueError for what is not a whole answer, or holds a header nobody made."""
    found = []
    while data:
        if behind_nginx and not data.startswith(b"HTTP/1.1 "):
            break  # HTTP/0.9, which nginx still answers: no head, and nothing behind it
        head, end, data = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+", lines[0])
        if not end or status is None:
            raise ValueError(f"not the head of an answer: {head[:200]!r}")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        if strange := headers.keys() - _RESPONSE_HEADERS:
            raise ValueError(f"headers that nobody made: {strange}")
        if status[1] == b"100":
            continue
        body = b""
        if b"content-length" in headers and not data.startswith(b"HTTP/1.1 "):  # else of HEAD
            length = int(headers[b"content-length"])
            body, data = data[:length], data[length:]
            if data == b"" and body == b"":
                length = 0  # of HEAD, the last one
            if len(body) != length:
                raise ValueError(f"an answer cut off: {head[:200]!r}")
        found.append((int(status[1]), body))
    return found


def as_h11_reads(data: bytes) -> tuple[list[bytes], bool]:
    """The bodies of the requests in some bytes as another parser finds them, and whether it found an error."""
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
    """What came of all cases. `problems` must be empty."""

    behind_nginx: bool = False
    cases: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    engine_requests: int = 0
    stricter: Counter[str] = field(default_factory=Counter)
    """Bodies that the gateway passed on, and another parser had refused the bytes before."""
    problems: list[str] = field(default_factory=list)

    def judge(self, case: Case, answer: bytes, engine: list[bytes]) -> None:
        """One case: its bytes, its answers, and the bodies that the engine got with its name."""
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
            plain = re.sub(rb',"model":"fake/model-1"\}$', b"}", body)  # what the name of a deployment adds
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
    """The two servers that vLLM may run on, on free ports: uvicorn's with httptools and with h11."""
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


# All connections share those to the gateway: what one of them smuggles, another one is answered.
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
    """Run all cases against a gateway with short timeouts, or one that a real nginx stands before; `folder` gets its log."""
    found, recorder = Found(behind_nginx), Recorder()
    complaints = _Complaints(found.problems)
    logging.getLogger("uvicorn.error").addHandler(complaints)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.problems.append(f"the loop: {context}"))
    async with engines(recorder) as ports:
        settings = Settings(
            model=MODEL,
            discovery=FixedDiscovery(tuple(("127.0.0.1", port) for port in ports)),
            keys=InlineKeys(KEYS),
            allowed_origins=("http://page.example",),
            trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),),
            host="127.0.0.1",
            port=0,
            metrics_port=0,
            header_timeout_seconds=1,
            body_timeout_seconds=1,
            keep_alive_seconds=1,
            drain_delay_seconds=0,
            concurrency_per_replica=1000,
        )
        with (folder / "log").open("w") as log:
            service = Service(settings, telemetry=Telemetry(log.fileno()))
            running = asyncio.create_task(service.run())
            try:
                await _until(lambda: len(service.fleet.rotation) == 2)
                await ask(_port(service), next(cases(1, seed)))  # so that all is loaded that ever is
                recorder.bodies.clear()
                await _until(lambda: not service.app.active)
                files, tasks = _open_files(), len(asyncio.all_tasks())
                if behind_nginx:
                    async with nginx(folder, _FRONT.format(port=_port(service))) as port:
                        await _send_all(count, seed, at_once, port, recorder, found)
                else:
                    await _send_all(count, seed, at_once, _port(service), recorder, found)
                await _at_rest(service, found, files, tasks)
            finally:
                service.stop()
                await running
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
            await _until(functools.partial(_is_none, left), 10)
        except TimeoutError:
            found.problems.append(f"{name} left over: {left()}")


def _is_none(left: Callable[[], int]) -> bool:
    return not left()


def _port(service: Service) -> int:
    port: int = service.sockets[0].getsockname()[1]
    return port


async def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what changes is the gateway's, and tells nobody
            await asyncio.sleep(0.01)
