"""A fake engine of known truth: it streams tokens at scheduled times, so that every figure of a benchmark is known.

It runs no model. `Pattern` sets the prefill time, the time per step, the tokens of each chunk, the cached share, the
length of the answers and what goes wrong; `truth` computes the figures from them alone.
"""

import argparse
import asyncio
import itertools
import json
import re
import sys
from dataclasses import asdict, dataclass
from typing import Any

MODEL = "fake"


@dataclass(frozen=True)
class Pattern:
    """What the engine does with each request.

    `chunks` is the number of tokens of each chunk, in order; the last number repeats, and 0 takes all tokens that are
    left. vLLM sends the chunk with the role together with the first token; with `role_at_once`, it
    is sent when the request arrives, as a gateway does that holds the request. `finish` lists the finish reason of each request in turn; `http_error_every` fails every n-th request with 500.
    """

    name: str = "a token a chunk"
    prefill_ms: float = 100.0
    step_ms: float = 10.0
    chunks: tuple[int, ...] = (1,)
    cached_share: float | None = None
    answer_tokens: int | None = None
    counts_each_chunk: bool = True
    reasoning_tokens: int = 0
    role_at_once: bool = False
    finish: tuple[str | None, ...] = ("length",)
    after_finish: bool = False
    error_mid_stream: bool = False
    http_error_every: int = 0

    def sizes(self, wanted: int) -> list[int]:
        """Return the tokens of each chunk of an answer."""
        left = wanted if self.answer_tokens is None else min(wanted, self.answer_tokens)
        found: list[int] = []
        for size in itertools.chain(self.chunks, itertools.repeat(self.chunks[-1])):
            if left <= 0:
                return found
            found.append(min(left, size or left))
            left -= found[-1]
        return found


class Engine(asyncio.Protocol):
    """One connection. Requests are read whole; each streams its chunks from `loop.call_at`."""

    served = itertools.count()

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.buffer = b""
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        """Part of asyncio.Protocol."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head.lower())
        size = int(length[1]) if length else 0
        if not found or len(rest) < size:
            return
        self.buffer = rest[size:]
        self.answer(head.split(b" ")[1].decode(), json.loads(rest[:size] or b"{}"))

    def answer(self, path: str, request: dict[str, Any]) -> None:
        """Answer one request."""
        if path == "/v1/models":
            self.whole(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        elif "completions" not in path:
            self.whole(404, {"error": {"message": "no such path"}})
        elif not request.get("stream"):
            self.whole(200, {"choices": [], "usage": self.usage(request, 1)})
        else:
            self.stream(request, next(Engine.served))

    def stream(self, request: dict[str, Any], number: int) -> None:
        """Schedule an answer."""
        pattern, started = self.pattern, self.loop.time()
        wanted = request.get("max_completion_tokens") or request.get("max_tokens") or 16
        # Request 0 is the first check of every tool: it is not part of the load.
        if pattern.http_error_every and number and number % pattern.http_error_every == 0:
            self.whole(500, {"error": {"message": "the fake engine failed"}})
            return
        counts = pattern.counts_each_chunk and (request.get("stream_options") or {}).get("continuous_usage_stats")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.transport.write(head)
        if "messages" in request:
            role = {"role": "assistant", "content": ""}
            at = started + (0 if pattern.role_at_once else pattern.prefill_ms / 1000 - 1e-5)
            self.loop.call_at(at, self.choice, role, None, self.usage(request, 0) if counts else None)
        sent, due = 0, started + pattern.prefill_ms / 1000
        for size in pattern.sizes(wanted):
            sent += size
            field = "reasoning" if sent <= pattern.reasoning_tokens else "content"
            text = " tok" * size
            delta = {field: text} if "messages" in request else text
            self.loop.call_at(due, self.choice, delta, None, self.usage(request, sent) if counts else None)
            due += pattern.step_ms / 1000
        last = max(started, due - pattern.step_ms / 1000)
        self.loop.call_at(last + 1e-5, self.end, request, sent, pattern.finish[number % len(pattern.finish)])

    def end(self, request: dict[str, Any], sent: int, finish: str | None) -> None:
        """End an answer as the pattern says."""
        chat = "messages" in request
        if self.pattern.error_mid_stream and sent > 1:
            self.event({"error": {"message": "the fake engine died", "code": 500}})
        else:
            if finish is not None:
                self.choice({} if chat else "", finish, None)
            if self.pattern.after_finish:
                self.choice({"content": " more"} if chat else " more", None, None)
            self.event({"choices": [], "usage": self.usage(request, sent)})
        self.chunk(b"data: [DONE]\n\n")
        self.transport.write(b"0\r\n\r\n")

    def usage(self, request: dict[str, Any], tokens: int) -> dict[str, Any]:
        """Return the usage object. A word is a token, and the template adds 7."""
        texts = [str(message["content"]) for message in request.get("messages") or ()] or [str(request.get("prompt"))]
        prompt = 7 + sum(len(text.split()) for text in texts)
        usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
        if self.pattern.cached_share is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": round(prompt * self.pattern.cached_share)}
        return usage

    def choice(self, delta: dict[str, Any] | str, finish: str | None, usage: dict[str, Any] | None) -> None:
        """Send a chunk with a choice."""
        content = {"text": delta} if isinstance(delta, str) else {"delta": delta}
        event: dict[str, Any] = {"choices": [{"index": 0, **content, "finish_reason": finish}]}
        self.event(event | ({"usage": usage} if usage else {}))

    def event(self, event: dict[str, Any]) -> None:
        """Send an event."""
        self.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def chunk(self, content: bytes) -> None:
        """Send an HTTP chunk."""
        self.transport.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    def whole(self, status: int, body: dict[str, Any]) -> None:
        """Send a JSON response."""
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self.transport.write(head.encode() + content)


def truth(pattern: Pattern, wanted: int) -> dict[str, float | None]:
    """Return the true figures of one answer, in milliseconds, by the definitions of docs/benchmark.md."""
    sizes = pattern.sizes(wanted)
    decode, rest = (len(sizes) - 1) * pattern.step_ms, sum(sizes[1:])
    return {
        "ttft_ms": pattern.prefill_ms,
        "tpot_ms": decode / rest if rest else None,
        "itl_ms": pattern.step_ms if rest else None,
        "e2el_ms": pattern.prefill_ms + decode,
        "output_tokens": sum(sizes),
    }


async def serve(pattern: Pattern) -> None:
    """Serve on a free port until standard input is closed, and print the port."""
    server = await asyncio.get_running_loop().create_server(lambda: Engine(pattern), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


def as_argument(pattern: Pattern) -> str:
    """Return the pattern as the argument of this program."""
    return json.dumps(asdict(pattern))


def main() -> None:
    """Serve one pattern until standard input is closed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.client.fake_engine",
        description="A fake engine of known truth on a free port of 127.0.0.1, which it prints. It runs no model.",
    )
    parser.add_argument("pattern", nargs="?", default="{}", help="the fields of the pattern as a JSON object")
    fields = json.loads(parser.parse_args().pattern)
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    # asyncio's own loop: uvloop's timers round to a millisecond in either direction.
    asyncio.run(serve(Pattern(**fields)))


if __name__ == "__main__":
    main()
