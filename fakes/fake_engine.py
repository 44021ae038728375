"""A fake engine on loopback: the part of vLLM's HTTP API that the gateway needs, with faults on demand.

`behaviour` is called with each request and its connection. The behaviours, faults included, are at the end of this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

MODEL = "fake/model-1"


@dataclass
class Request:
    """A request as the engine received it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Line:
    """The engine's side of a connection."""

    def __init__(self, engine: FakeEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.engine = engine
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    def head(self, status: int = 200, content_type: str = "application/json", length: int | None = None) -> None:
        """Send the status line and headers; the body is chunked unless its length is known."""
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        self.write(
            f"HTTP/1.1 {status} Whatever\r\ndate: now\r\nserver: uvicorn\r\ncontent-type: {content_type}\r\n"
            f"x-engine: yes\r\n{framing}\r\n\r\n".encode()
        )

    def chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body."""
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """Send the last chunk."""
        self.write(b"0\r\n\r\n")

    def reply(self, document: Any, status: int = 200) -> None:
        """Send a complete JSON response."""
        body = json.dumps(document).encode()
        self.head(status, length=len(body))
        self.write(body)

    def reset(self) -> None:
        """Reset the connection."""
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the gateway has closed this connection."""
        with contextlib.suppress(OSError):
            while await self.reader.read(65536):
                pass


Behaviour = Callable[[Request, Line], Awaitable[None]]


class FakeEngine:
    """One fake replica."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour: Behaviour = behaviour or answer
        self.requests: list[Request] = []
        self.health = 200
        self.version = "0.32.0"
        self.port = 0
        self.connections = 0
        self.running = 0
        self.most_running = 0
        self.go_on = asyncio.Event()  # set by the test; some behaviours wait for it
        self.reached = asyncio.Event()  # set by behaviours that then wait
        self.abandoned = asyncio.Event()  # the gateway closed a connection before the response was complete
        self.answered: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> FakeEngine:
        """Listen on a port, by default a free one."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Stop like a killed process: stop listening and reset every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def abandoned_after(self, request: asyncio.Task[Any]) -> None:
        """Cancel a request once the engine has received it, and wait until the gateway closes its connection."""
        await self.reached.wait()
        request.cancel()
        await asyncio.wait_for(self.abandoned.wait(), 1)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while (request := await _read(reader)) is not None:
                line = Line(self, reader, writer)
                if request.path == "/health":
                    line.reply({}, self.health)
                elif request.path == "/version":
                    line.reply({"version": self.version})
                else:
                    self.requests.append(request)
                    self.running += 1
                    self.most_running = max(self.most_running, self.running)
                    try:
                        await self.behaviour(request, line)
                    finally:
                        self.running -= 1
                await writer.drain()
        except OSError:
            self.abandoned.set()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            self.connections -= 1
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head[:-4].split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)


# Behaviours


def event(text: str | None, **more: Any) -> bytes:
    """A chat completion chunk as a server-sent event."""
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    return f"data: {json.dumps({'id': 'c', 'object': 'chat.completion.chunk', 'created': 1, 'model': MODEL, 'choices': choices, **more})}\n\n".encode()


EVENTS = [
    event("Hello"),
    event(' wörld \\"usage\\":'),
    event(None, usage={"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}),
    b"data: [DONE]\n\n",
]
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}


async def answer(request: Request, line: Line) -> None:
    """Respond completely, without delay."""
    streams = request.headers.get("content-type") == "application/json" and request.json.get("stream")
    if not streams:
        line.reply(COMPLETION)
        return
    line.head(content_type="text/event-stream; charset=utf-8")
    for data in EVENTS:
        line.chunk(data)
    line.end()


async def answer_when_told(request: Request, line: Line) -> None:
    """Respond completely once `go_on` is set; the first event of a stream is sent before."""
    if request.json.get("stream"):
        line.head(content_type="text/event-stream; charset=utf-8")
        line.chunk(EVENTS[0])
        line.engine.reached.set()
        await line.engine.go_on.wait()
        for data in EVENTS[1:]:
            line.chunk(data)
        line.end()
    else:
        line.engine.reached.set()
        await line.engine.go_on.wait()
        line.reply(COMPLETION)


async def say_nothing(request: Request, line: Line) -> None:
    """Accept the request and never respond."""
    line.engine.reached.set()
    await line.gone()
    line.engine.abandoned.set()


async def stream_for_ever(request: Request, line: Line) -> None:
    """Send one event, and never end the stream."""
    line.head(content_type="text/event-stream")
    line.chunk(EVENTS[0])
    line.engine.reached.set()
    await line.gone()
    line.engine.abandoned.set()


async def flood(request: Request, line: Line) -> None:
    """Stream without end, as fast as the gateway reads."""
    line.head(content_type="text/event-stream")
    while True:
        line.chunk(EVENTS[0] * 500)
        await line.writer.drain()


async def reset(request: Request, line: Line) -> None:
    """Reset the connection before responding."""
    line.reset()
    await line.gone()


async def close_when_asked_again(request: Request, line: Line) -> None:
    """Drop the second request on a connection, like a server whose idle timeout expires as the request arrives."""
    if line.writer in line.engine.answered:
        line.reset()
        await line.gone()
    else:
        line.engine.answered.add(line.writer)
        await answer(request, line)


async def reset_within_a_stream(request: Request, line: Line) -> None:
    """Reset the connection in the middle of an event."""
    line.head(content_type="text/event-stream")
    line.chunk(EVENTS[0])
    line.chunk(EVENTS[1][:20])
    await line.writer.drain()
    await line.engine.go_on.wait()
    line.reset()
    await line.gone()


async def close_within_an_answer(request: Request, line: Line) -> None:
    """Close the connection after part of the body."""
    line.head(length=1000)
    line.write(b'{"id":')
    await line.writer.drain()
    line.writer.close()


async def break_the_chunking(request: Request, line: Line) -> None:
    """Send one event, then bytes that are not a chunk."""
    line.head(content_type="text/event-stream")
    line.chunk(EVENTS[0])
    line.write(b"this is no chunk\r\n")


async def answer_nonsense(request: Request, line: Line) -> None:
    """Respond with another protocol."""
    line.write(b"SMTP ready\r\n\r\n")


async def refuse(request: Request, line: Line) -> None:
    """Respond with 400 and an error in vLLM's format."""
    error = {"message": "max_tokens is too large", "type": "BadRequestError", "param": "max_tokens", "code": 400}
    line.reply({"error": error}, 400)


async def have_no_such_path(request: Request, line: Line) -> None:
    """Respond with 404, as vLLM does for an API that the model does not support."""
    body = b'{"detail":"Not Found"}'
    line.head(404, length=len(body))
    line.write(body)


async def fail(request: Request, line: Line) -> None:
    """Respond with 500 and a body that is not JSON."""
    line.head(500, "text/plain", length=5)
    line.write(b"oops\n")


async def drip(request: Request, line: Line) -> None:
    """Stream completely, one byte per chunk."""
    line.head(content_type="text/event-stream")
    for byte in b"".join(EVENTS):
        line.chunk(bytes([byte]))
        await line.writer.drain()
    line.end()


async def answer_at_length(request: Request, line: Line) -> None:
    """Respond with three megabytes that are not an event stream."""
    line.head(content_type="application/octet-stream")
    for number in range(300):
        line.chunk(bytes([number % 256]) * 10_000)
        await line.writer.drain()
    line.end()


async def answer_until_close(request: Request, line: Line) -> None:
    """Respond with a body of unknown length that ends when the connection closes."""
    line.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nall of it")
    await line.writer.drain()
    line.writer.close()
