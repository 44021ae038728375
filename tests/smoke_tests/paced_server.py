"""A server that emits tokens at exact moments and writes down when: what a benchmark's figures are held against."""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MODEL = "paced/model"
Clock = float  # time.perf_counter(), one clock for all processes of a machine


@dataclass
class SentAnswer:
    """When a streamed request had been read and when each chunk with tokens was written."""

    received: Clock
    chunks: list[Clock] = field(default_factory=list)

    @property
    def ttft_seconds(self) -> float:
        return self.chunks[0] - self.received

    @property
    def latency_seconds(self) -> float:
        return self.chunks[-1] - self.received

    @property
    def gaps_seconds(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.chunks, self.chunks[1:], strict=False)]


@dataclass
class PacedServer:
    """Answers `max_tokens` tokens, `tokens_per_chunk` a chunk, the first after `ttft_seconds`, each `gap_seconds` apart.

    Like a gateway that holds a request it sends a comment and the role long before the first token. Prompt
    tokens are words, plus 7 for a template. `info` is what /info tells; where its state is "cold", the first stream
    wakes it, and `ledger` is told from then on.
    """

    ttft_seconds: float = 0.06
    gap_seconds: float = 0.008
    tokens_per_chunk: int = 1
    endpoint: str = ""
    sent: list[SentAnswer] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    info: dict[str, Any] | None = None
    ledger: dict[str, Any] | None = None

    async def serve(self, started: Future[Callable[[], object]], tls: ssl.SSLContext | None) -> None:
        """Serve until what is set in `started` is called."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=tls)
        self.endpoint = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set_result(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
                await self._answer(head.split(b" ")[1], json.loads(body or b"{}"), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.connections -= 1
            writer.close()

    async def _answer(self, path: bytes, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if path == b"/v1/models":
            _whole(writer, 200, {"data": [{"id": MODEL, "object": "model"}]})
        elif path == b"/info" and self.info is not None:
            _whole(writer, 200, self.info)
        elif path != b"/v1/chat/completions":
            _whole(writer, 404, {"error": {"message": "no such path"}})
        elif request.get("stream"):
            await self._stream(request, writer)
        else:
            _whole(writer, 200, {"choices": [], "usage": _usage(request, 1)})

    async def _stream(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        answer = SentAnswer(time.perf_counter())
        self.sent.append(answer)
        self.bodies.append(request)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        _chunk(writer, b": held\n\n")
        _event(writer, {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
        chunks = request["max_tokens"] // self.tokens_per_chunk
        for number in range(chunks):
            due = answer.received + self.ttft_seconds + number * self.gap_seconds
            await asyncio.sleep(due - time.perf_counter())
            text = "" if number == 1 else " word" * self.tokens_per_chunk
            _event(writer, {"choices": [{"delta": {"content": text}, "finish_reason": None}]})
            answer.chunks.append(time.perf_counter())
        if self.info and self.info.get("state") == "cold":
            self.info |= {"state": "ready", "replicas": {"ready": 1}, "cold_start": self.ledger}
        _event(writer, {"choices": [{"delta": {}, "finish_reason": "length"}]})
        _event(writer, {"choices": [], "usage": _usage(request, chunks * self.tokens_per_chunk)})
        _chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")


@contextmanager
def paced(server: PacedServer, tls: ssl.SSLContext | None = None) -> Iterator[PacedServer]:
    """Serve on a free port of 127.0.0.1, in a thread with a loop of its own, until the block ends."""
    started: Future[Callable[[], object]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(started, tls)))
    thread.start()
    stop = started.result(timeout=10)
    try:
        yield server
    finally:
        stop()
        thread.join()


def _usage(request: dict[str, Any], completion_tokens: int) -> dict[str, int]:
    prompt_tokens = 7 + sum(len(message["content"].split()) for message in request["messages"])
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}


def _whole(writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    writer.write(
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    )
    writer.write(content)


def _event(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    _chunk(writer, f"data: {json.dumps(event)}\n\n".encode())


def _chunk(writer: asyncio.StreamWriter, content: bytes) -> None:
    writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
