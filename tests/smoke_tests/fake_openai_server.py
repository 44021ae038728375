"""A fake OpenAI-compatible server that answers deterministic nonsense, optionally with exactly one fault.

It tests the conformance tests: without a fault it passes all of them; with a fault from `faults`, it fails exactly the
tests that the table names. `fake_model` generates the answers.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from image.gateway.keys import parse_document
from tests.smoke_tests import fake_model
from tests.smoke_tests.fake_answers import chat_chunks, chat_document
from tests.smoke_tests.fake_model import CONTEXT_TOKENS, MODEL, RefusalError, answer_tokens
from tests.smoke_tests.fake_responses import embeddings_document, response_document, response_events
from tests.smoke_tests.faults import FAULTS

__all__ = ["KEY", "MODEL", "FakeOpenAIServer", "answer_tokens", "serving"]

KEY = "sk-right-key"
GOES_ON_SECONDS = 2.0
APIS = {"/v1/chat/completions": "chat", "/v1/completions": "completions", "/v1/responses": "responses"}


class FakeOpenAIServer(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1.

    `api_key` None requires no key. The first `cold_requests` requests are answered with 503. `keys_file` is the keys
    document, if keys can be rotated.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        fault: str = "",
        *,
        api_key: str | None = KEY,
        token_seconds: float = 0.0002,
        cold_requests: int = 0,
        keys_file: Path | None = None,
        port: int = 0,
    ) -> None:
        assert not fault or fault in FAULTS, f"unknown fault: {fault}"
        super().__init__(("127.0.0.1", port), _Handler)
        self.fault = fault
        self.embeds = bool(fault) and FAULTS[fault].is_embedding
        self.api_key = api_key
        self.keys_file = keys_file
        self.token_seconds = token_seconds
        self.cold_requests = cold_requests
        self.refuse_ignore_eos = False
        self.dead = False
        self.refuses_pictures = False
        self.generates = True
        self.plan: dict[str, Any] = {}
        self.connections = 0
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.running = 0
        self.last_usage: dict[str, int] | None = None
        self.last_id = ""
        self._ever_good = set(parse_document(keys_file.read_text())) if keys_file else set()
        self._first = set(self._ever_good)

    def changed(self, part: str, value: Any) -> Any:
        """Return what the fault makes of one part of the traffic: documents change in place, the rest may be replaced."""
        fault = FAULTS.get(self.fault)
        if fault is None or fault.change is None or fault.part != part:
            return value
        result = fault.change(value)
        if isinstance(value, dict):
            return value
        is_new = bool(result) and (not isinstance(value, list) or all(isinstance(each, dict) for each in result))
        return result if is_new else value

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def keys(self) -> set[str | None]:
        """The keys that are valid now."""
        if self.keys_file is None:
            return {self.api_key}
        now = list(parse_document(self.keys_file.read_text()))
        self._ever_good |= set(now)
        if self.fault == "reads_its_keys_once":
            return {*self._first}
        if self.fault == "keeps_keys_that_were_taken_out":
            return {*self._ever_good}
        return {now[-1]} if self.fault == "takes_the_last_key_alone" else {*now}


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


class _Handler(BaseHTTPRequestHandler):
    server: FakeOpenAIServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self._handle(b"")

    do_OPTIONS = do_GET  # noqa: N815 - the name is the base class's

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _has(self, fault: str) -> bool:
        return self.server.fault == fault

    def _handle(self, body: bytes) -> None:
        try:
            self._route(body)
        except RefusalError as refusal:
            if self._has("refuses_within_the_stream") and b'"stream":true' in body:
                self._events([({"error": {"message": str(refusal), "type": "invalid_request_error"}}, 0.0)])
                return
            error = {"message": str(refusal), "type": "invalid_request_error", "param": None, "code": refusal.status}
            reply = self.server.changed("error", {"status": refusal.status, "body": {"error": error}})
            self._send(reply["status"], reply["body"])

    def _route(self, body: bytes) -> None:
        path = (self.command, self.path)
        if path == ("GET", "/health"):
            self._send(503 if self._has("is_unhealthy") else 200, {})
        elif path == ("GET", "/info"):
            info: dict[str, Any] = {"model": "other/model" if self._has("info_names_another_model") else MODEL}
            info |= (
                self.server.plan
                | {"requests": {"running": self.server.running}}
                | ({"key": KEY} if self._has("info_shows_the_key") else {})
            )
            self._send(200, info)
        elif self._leaks(path):
            self._send(200, {"vllm:num_requests_running": 0})
        elif path == ("GET", "/v1/models"):
            self._check_key()
            listed = {"object": "list", "data": [self._card("lists_another_model")]}
            self._send(200, self.server.changed("models", listed))
        elif path[0] == "GET" and path[1].startswith("/v1/models/"):
            self._check_key()
            name = unquote(path[1].removeprefix("/v1/models/"))
            known = name == MODEL or (self._has("finds_any_model") and ".." not in name)
            if not known or self._has("knows_no_model_by_name"):
                raise RefusalError(404, "no such model")
            self._send(200, self._card(""))
        elif self.path in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
            if self.command == "POST":
                self._check_key()
                self._complete(body)
            elif self._has("answers_any_method"):
                self._send(200, {})
            else:
                raise RefusalError(405, "use POST")
        elif self.path in ("/v1/embeddings", "/v1/rerank", "/v1/score"):
            self._check_key()
            if self.server.embeds and self.path == "/v1/embeddings":
                request = self.server.changed("embeddings request", json.loads(body))
                answer = embeddings_document(request, self._has)
                self._send(200, self.server.changed("embeddings answer", answer))
                return
            if self._has("refuses_embeddings_as_vllm_does"):
                self._send(404, {"detail": "Not Found"})
            else:
                raise RefusalError(404, "the model does not embed")
        elif self._has("refuses_in_plain_text"):
            self._start(404, "text/plain", 9)
            self.wfile.write(b"not found")
        else:
            raise RefusalError(404, f"no such path: {self.path}")

    def _leaks(self, path: tuple[str, str]) -> bool:
        return (
            (path == ("GET", "/metrics") and self._has("leaks_metrics"))
            or (path == ("GET", "/tokenizer_info") and self._has("leaks_tokenizer_info"))
            or (path == ("POST", "/sleep") and self._has("can_be_put_to_sleep"))
            or (path[0] == "GET" and path[1].endswith("/metrics") and self._has("looks_at_the_end_of_a_path"))
        )

    def _card(self, fault: str) -> dict[str, Any]:
        name = "other/model" if fault and self._has(fault) else MODEL
        return {
            "id": name,
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": "fake",
            "max_model_len": CONTEXT_TOKENS,
        }

    def _check_key(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        good = self.server.keys()
        right = None in good or given in good
        right = right or (self._has("accepts_any_key") and given != "")
        right = right or (self._has("accepts_longer_keys") and given.startswith(KEY))
        right = right or (self._has("accepts_no_key") and given == "")
        right = right or (self._has("guards_only_chat") and self.path != "/v1/chat/completions" and given == "")
        if not right:
            raise RefusalError(403 if self._has("refuses_keys_with_403") else 401, "wrong API key")

    def _complete(self, body: bytes) -> None:
        with self.server.lock:
            self.server.running += 1
            parallel = self.server.running > 1
            cold = self.server.cold_requests > 0
            self.server.cold_requests -= cold
        try:
            if cold:
                raise RefusalError(503, "no replica is ready")
            if self.server.dead:
                raise RefusalError(500, "the engine is dead")
            if parallel and self._has("refuses_parallel_requests") and b"ignore_eos" not in body:
                raise RefusalError(429, "one at a time")
            request = self._checked(body)
            if self._has("answers_200_with_an_error"):
                self._send(200, {"error": {"message": "the engine is dead", "type": "server_error", "code": 500}})
            elif request.get("stream") and not self._has("streams_as_json"):
                self._stream(request)
            else:
                self._answer(request)
        except (BrokenPipeError, ConnectionResetError):
            if self._has("goes_on_without_its_client"):
                time.sleep(GOES_ON_SECONDS)
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.running -= 1

    def _checked(self, body: bytes) -> dict[str, Any]:
        try:
            request: dict[str, Any] = json.loads(body)
        except ValueError:
            raise RefusalError(500 if self._has("fails_on_malformed_json") else 400, "the body is no JSON") from None
        if not isinstance(request, dict):
            raise RefusalError(400, "the body is no JSON object")
        self.server.bodies.append(request)
        request = self.server.changed(f"{APIS[self.path]} request", request)
        if request.get("previous_response_id"):
            raise RefusalError(404, "no such response")
        if request.get("model") != MODEL and not self._has("serves_any_model"):
            raise RefusalError(404, f"no such model: {request.get('model')}")
        if not self.server.generates:
            raise RefusalError(404, f"This model does not support {self.path}.")
        bad = fake_model.is_bad(request) or (self.server.refuse_ignore_eos and "ignore_eos" in request)
        if bad and self._has("accepts_bad_parameters"):
            return {"model": MODEL, "messages": [], "stream": request.get("stream") is True}
        if bad:
            raise RefusalError(400, "a parameter is out of range")
        if fake_model.has_wrong_schema(request) and not self._has("accepts_wrong_schemas"):
            raise RefusalError(400, "the schema is none")
        if fake_model.prompt_tokens(request, self._has) > CONTEXT_TOKENS:
            self.server.dead = self._has("dies_of_long_prompts")
            if not self._has("cuts_long_prompts"):
                raise RefusalError(400, f"the context is {CONTEXT_TOKENS} tokens")
        try:
            if self.server.refuses_pictures and "_url" in str(request.get("messages")):
                raise RefusalError(400, "this model takes no pictures")
            fake_model.check_pictures(request, self._has)
        except RefusalError as refusal:
            self.server.dead = refusal.status == 500 and self._has("dies_of_broken_addresses")
            raise
        return request

    def _answer(self, request: dict[str, Any]) -> None:
        if self.path == "/v1/responses":
            self._send(200, self.server.changed("responses answer", response_document(request, self._has)))
            return
        document = chat_document(request, self._has)
        time.sleep(document["usage"]["completion_tokens"] * self.server.token_seconds)
        if self._has("mixes_up_answers") and "word word" in str(request):
            with self.server.lock:
                before, self.server.last_usage = self.server.last_usage, document["usage"]
            document["usage"] = before or document["usage"]
        self._send(200, self.server.changed(f"{APIS[self.path]} answer", document))

    def _stream(self, request: dict[str, Any]) -> None:
        gap = self.server.token_seconds
        is_response = self.path == "/v1/responses"
        events = (response_events if is_response else chat_chunks)(request, self._has, gap)
        fault = FAULTS.get(self.server.fault)
        if fault and fault.part == f"{APIS[self.path]} stream":
            events = ((event, 0.0) for event in self.server.changed(fault.part, [event for event, _ in events]))
        if self._has("mixes_up_streams"):
            events = self._mixed(events)
        self._events(events, done=not is_response)

    def _mixed(self, events: Iterator[tuple[dict[str, Any], float]]) -> Iterator[tuple[dict[str, Any], float]]:
        for event, gap in events:
            with self.server.lock:
                another, self.server.last_id = self.server.last_id or event["id"], event["id"]
            yield event | {"id": another}, gap

    def _events(self, events: Any, done: bool = True) -> None:
        self._start(200, "text/event-stream", None)
        held_back = b""
        for event, made_after in events:
            time.sleep(made_after)
            name = f"event: {event['type']}\n" if "type" in event else ""
            line = self.server.changed("lines", f"{name}data: {json.dumps(event)}\n\n".encode())
            if self._has("buffers_the_stream"):
                held_back += _chunk(line)
            else:
                self.wfile.write(_chunk(line))
        last = self.server.changed("last line", b"data: [DONE]\n\n")
        end = b"" if self._has("drops_done") or not done else _chunk(last)
        self.wfile.write(held_back + end + b"0\r\n\r\n")

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self._start(status, "application/json", len(content))
        self.wfile.write(content)

    def _start(self, status: int, content_type: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", self.server.changed("content type", content_type))
        self.send_header(*(("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))))
        given = None if self._has("makes_its_own_request_id") else self.headers.get("X-Request-Id")
        made = "1" if self._has("repeats_request_ids") else uuid.uuid4().hex
        self.send_header("X-Request-Id", given or made)
        if self._has("lets_other_sites_in"):
            self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
