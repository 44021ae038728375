"""An OpenAI-compatible server that says deterministic nonsense, and can be told to be wrong in one way at a time.

It exists so that the tests of an endpoint can be tested: right, it passes all of them; with one fault, it
fails the test that is there for that fault. A token is a word.
"""

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "fake/model"
KEY = "sk-right-key"
CONTEXT_TOKENS = 2048
TOKENS_OF_TEMPLATE = 4
LONGEST_ANSWER_TOKENS = 200

FAULTS = frozenset({
    "is_unhealthy", "info_names_another_model", "info_shows_the_key", "lists_another_model",
    "leaks_metrics", "leaks_tokenize", "refuses_in_plain_text",
    "accepts_any_key", "accepts_longer_keys", "accepts_no_key", "refuses_keys_with_403",
    "answers_200_with_an_error", "answers_as_another_model", "answers_nothing", "forgets_the_conversation",
    "counts_wrong", "ignores_max_tokens", "hides_how_much_it_says",
    "refuses_parallel_requests", "reuses_answer_ids", "mixes_up_answers",
    "makes_its_own_request_id", "repeats_request_ids", "serves_any_model", "accepts_bad_parameters",
    "cuts_long_prompts", "fails_on_malformed_json",
    "buffers_the_stream", "drops_done", "drops_usage", "repeats_usage", "reorders_the_stream",
    "drops_the_finish_reason", "changes_ids_within_a_stream", "streams_no_role", "streams_as_json",
    "loses_part_of_the_stream", "completions_stream_without_usage",
})  # fmt: skip


class FakeOpenAIServer(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1. `api_key` None asks for none; `cold_requests` of them get a 503."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, fault: str = "", *, api_key: str | None = KEY, token_seconds: float = 0.0002, cold_requests: int = 0
    ) -> None:
        assert not fault or fault in FAULTS, f"unknown fault: {fault}"
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault = fault
        self.api_key = api_key
        self.token_seconds = token_seconds
        self.cold_requests = cold_requests
        self.refuse_ignore_eos = False
        self.connections = 0
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.running = 0
        self.last_usage: dict[str, int] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(server: FakeOpenAIServer) -> Iterator[FakeOpenAIServer]:
    """Serve in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer_tokens(request: dict[str, Any]) -> list[str]:
    """Return the words that answer a request: the same for the same conversation."""
    asked = json.dumps(request.get("messages") or request.get("prompt"))
    limit = request.get("max_tokens") or 16
    seed = hashlib.sha256(asked.encode()).hexdigest()
    return [f" {seed[position % 60 : position % 60 + 4]}" for position in range(min(limit, LONGEST_ANSWER_TOKENS))]


def _chunk(data: str) -> bytes:
    line = f"data: {data}\n\n".encode()
    return f"{len(line):x}\r\n".encode() + line + b"\r\n"


class _RefusalError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: FakeOpenAIServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _has(self, fault: str) -> bool:
        return self.server.fault == fault

    def _handle(self, body: bytes) -> None:
        try:
            self._route(body)
        except _RefusalError as refusal:
            error = {"message": str(refusal), "type": "invalid_request_error", "param": None, "code": refusal.status}
            self._send(refusal.status, {"error": error})

    def _route(self, body: bytes) -> None:
        path = (self.command, self.path)
        if path == ("GET", "/health"):
            self._send(503 if self._has("is_unhealthy") else 200, {})
        elif path == ("GET", "/info"):
            info = {"model": "other/model" if self._has("info_names_another_model") else MODEL}
            self._send(200, info | ({"key": KEY} if self._has("info_shows_the_key") else {}))
        elif path == ("GET", "/metrics") and self._has("leaks_metrics"):
            self._send(200, {"vllm:num_requests_running": 0})
        elif path == ("POST", "/tokenize") and self._has("leaks_tokenize"):
            self._send(200, {"tokens": [1]})
        elif path == ("GET", "/v1/models"):
            self._check_key()
            name = "other/model" if self._has("lists_another_model") else MODEL
            self._send(
                200, {"object": "list", "data": [{"id": name, "object": "model", "max_model_len": CONTEXT_TOKENS}]}
            )
        elif path in (("POST", "/v1/chat/completions"), ("POST", "/v1/completions")):
            self._check_key()
            self._complete(body)
        elif self._has("refuses_in_plain_text"):
            self._start(404, "text/plain", 9)
            self.wfile.write(b"not found")
        else:
            raise _RefusalError(404, f"no such path: {self.path}")

    def _check_key(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        right = self.server.api_key in (None, given)
        right = right or (self._has("accepts_any_key") and given != "")
        right = right or (self._has("accepts_longer_keys") and given.startswith(KEY))
        right = right or (self._has("accepts_no_key") and given == "")
        if not right:
            raise _RefusalError(403 if self._has("refuses_keys_with_403") else 401, "wrong API key")

    def _complete(self, body: bytes) -> None:
        with self.server.lock:
            self.server.running += 1
            parallel = self.server.running > 1
            cold = self.server.cold_requests > 0
            self.server.cold_requests -= cold
        try:
            if cold:
                raise _RefusalError(503, "no replica is ready")
            if parallel and self._has("refuses_parallel_requests"):
                raise _RefusalError(429, "one at a time")
            request = self._checked(body)
            if self._has("answers_200_with_an_error"):
                self._send(200, {"error": {"message": "the engine is dead", "type": "server_error", "code": 500}})
            elif request.get("stream") and not self._has("streams_as_json"):
                self._stream(request)
            else:
                self._answer(request)
        finally:
            with self.server.lock:
                self.server.running -= 1

    def _checked(self, body: bytes) -> dict[str, Any]:
        try:
            request: dict[str, Any] = json.loads(body)
        except ValueError:
            raise _RefusalError(500 if self._has("fails_on_malformed_json") else 400, "the body is no JSON") from None
        self.server.bodies.append(request)
        if request.get("model") != MODEL and not self._has("serves_any_model"):
            raise _RefusalError(404, f"no such model: {request.get('model')}")
        bad = (
            not 0 <= request.get("temperature", 1) <= 2
            or not 0 < request.get("top_p", 1) <= 1
            or request.get("max_tokens", 1) < 1
            or not isinstance(request.get("messages", []), list)
            or (self.server.refuse_ignore_eos and "ignore_eos" in request)
        )
        if bad and not self._has("accepts_bad_parameters"):
            raise _RefusalError(400, "a parameter is out of range")
        if self._usage(request, 0)["prompt_tokens"] > CONTEXT_TOKENS and not self._has("cuts_long_prompts"):
            raise _RefusalError(400, f"the context is {CONTEXT_TOKENS} tokens")
        return request

    def _tokens(self, request: dict[str, Any]) -> list[str]:
        if self._has("answers_nothing"):
            return []
        if self._has("ignores_max_tokens") or self._has("hides_how_much_it_says"):
            request = request | {"max_tokens": 100}
        return answer_tokens(request)

    def _usage(self, request: dict[str, Any], completion_tokens: int) -> dict[str, int]:
        messages = request.get("messages")
        if not isinstance(messages, list):
            prompt_tokens = len(str(request.get("prompt", "")).split())
        else:
            heard = messages[-1:] if self._has("forgets_the_conversation") else messages
            prompt_tokens = sum(len(message["content"].split()) + TOKENS_OF_TEMPLATE for message in heard)
        if self._has("hides_how_much_it_says"):
            completion_tokens = min(completion_tokens, request.get("max_tokens", 16))
        total = prompt_tokens + completion_tokens + (1 if self._has("counts_wrong") else 0)
        return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}

    def _frame(self, request: dict[str, Any], suffix: str = "") -> dict[str, Any]:
        is_chat = "messages" in request
        kind = f"chat.completion{suffix}" if is_chat else "text_completion"
        number = "1" if self._has("reuses_answer_ids") else uuid.uuid4().hex
        name = "other/model" if self._has("answers_as_another_model") else MODEL
        return {"id": f"chatcmpl-{number}", "object": kind, "created": int(time.time()), "model": name}

    def _answer(self, request: dict[str, Any]) -> None:
        tokens = self._tokens(request)
        time.sleep(len(tokens) * self.server.token_seconds)
        usage = self._usage(request, len(tokens))
        if self._has("mixes_up_answers") and "word word" in str(request):
            with self.server.lock:
                usage, self.server.last_usage = self.server.last_usage or usage, usage
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        text = "".join(tokens)
        choice |= {"message": {"role": "assistant", "content": text}} if "messages" in request else {"text": text}
        self._send(200, self._frame(request) | {"choices": [choice], "usage": usage})

    def _stream(self, request: dict[str, Any]) -> None:
        self._start(200, "text/event-stream", None)
        frame = self._frame(request, ".chunk")
        held_back = b""
        for event, made_after in self._events(request):
            time.sleep(made_after)
            if self._has("changes_ids_within_a_stream"):
                frame["id"] = uuid.uuid4().hex
            if self._has("buffers_the_stream"):
                held_back += _chunk(json.dumps(frame | event))
            else:
                self.wfile.write(_chunk(json.dumps(frame | event)))
        end = b"" if self._has("drops_done") else _chunk("[DONE]")
        self.wfile.write(held_back + end + b"0\r\n\r\n")

    def _events(self, request: dict[str, Any]) -> Iterator[tuple[dict[str, Any], float]]:
        """Yield every event but [DONE], each with the seconds it takes to make."""
        is_chat = "messages" in request
        tokens = self._tokens(request)
        usage = self._usage(request, len(tokens))
        gap = self.server.token_seconds
        if self._has("reorders_the_stream"):
            tokens = [*tokens[:2], *reversed(tokens[2:])]
        if self._has("loses_part_of_the_stream"):
            tokens = tokens[: len(tokens) // 2]
        if is_chat and not self._has("streams_no_role"):
            yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}, 0.0
        for position, token in enumerate(tokens):
            is_last = position == len(tokens) - 1 and not self._has("drops_the_finish_reason")
            text = {"delta": {"content": token}} if is_chat else {"text": token}
            event = {"choices": [{"index": 0, **text, "finish_reason": "length" if is_last else None}]}
            yield event | ({"usage": usage} if self._has("repeats_usage") else {}), gap
        without = self._has("drops_usage") or (not is_chat and self._has("completions_stream_without_usage"))
        if request.get("stream_options", {}).get("include_usage") and not without:
            yield {"choices": [], "usage": usage}, 0.0

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self._start(status, "application/json", len(content))
        self.wfile.write(content)

    def _start(self, status: int, content_type: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header(*(("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))))
        given = None if self._has("makes_its_own_request_id") else self.headers.get("X-Request-Id")
        made = "1" if self._has("repeats_request_ids") else uuid.uuid4().hex
        self.send_header("X-Request-Id", given or made)
        self.end_headers()
