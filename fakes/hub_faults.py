"""A Hub that misbehaves by a table: each fault is a response that replaces the Hub's own, a number of times."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LISTING, HUB, CONTENT = "listing", "hub", "content"
"""Where a fault happens: the list of files, the Hub's own address of a file, the content host to which it redirects."""
FILE, SMALL, MODEL = "model.safetensors", "config.json", "acme/tiny"
CONTENTS = {FILE: bytes(range(256)) * 1024, SMALL: b'{"model_type": "tiny"}'}
COMMIT = "c" * 40


@dataclass(frozen=True)
class Fault:
    """A response.

    Attributes:
        where: LISTING, HUB or CONTENT.
        status: its status; 0 closes the connection without one.
        headers: replace the right ones; None removes one.
        body: replaces the right body.
        cut: send so many bytes of the body, then close the connection.
        times: how many requests get it; the next ones get the right response.
        ignores_range: send the whole file although a range was requested.
        of_ranges: only requests for a range get the response.
    """

    where: str
    status: int = 200
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    times: int = 1
    ignores_range: bool = False
    of_ranges: bool = False


class FaultyHub:
    """The requests of a Hub with one fault."""

    def __init__(self, fault: Fault | None) -> None:
        self.fault = fault
        self.left = fault.times if fault else 0
        self.requests: list[str] = []
        self.sent = 0
        self.address = self.content_address = ""


@contextlib.contextmanager
def faulty_hub(fault: Fault | None = None) -> Iterator[FaultyHub]:
    """Serve a Hub and a content host until the block ends."""
    hub = FaultyHub(fault)
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub)) for _ in range(2)]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    hub.address, hub.content_address = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def siblings() -> list[dict[str, Any]]:
    """The list of files."""
    small, large = CONTENTS[SMALL], CONTENTS[FILE]
    git = hashlib.sha1(f"blob {len(small)}\0".encode() + small, usedforsecurity=False).hexdigest()
    lfs = {"sha256": hashlib.sha256(large).hexdigest(), "size": len(large), "pointerSize": 134}
    return [
        {"rfilename": SMALL, "size": len(small), "blobId": git},
        {"rfilename": FILE, "size": len(large), "blobId": "0" * 40, "lfs": lfs},
    ]


def _handler(hub: FaultyHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            where, name = self._where()
            hub.requests.append(where)
            fault = None
            if (
                hub.fault
                and hub.fault.where == where
                and hub.left > 0
                and name != SMALL
                and ("Range" in self.headers) >= hub.fault.of_ranges
            ):
                hub.left -= 1
                fault = hub.fault
            if where == LISTING:
                body = json.dumps({"id": MODEL, "sha": COMMIT, "siblings": siblings()}).encode()
                return self._answer(200, {}, body, fault)
            if where == HUB and name == FILE:
                return self._answer(302, {"Location": f"{hub.content_address}/content/{name}"}, b"", fault)
            return self._send(name, fault)

        def _where(self) -> tuple[str, str]:
            if self.path.startswith("/api/"):
                return LISTING, ""
            found = re.fullmatch(r"/(?P<content>content/)?.*?(?P<name>[^/]+)", self.path)
            assert found
            return (CONTENT if found["content"] else HUB), found["name"]

        def _send(self, name: str, fault: Fault | None) -> None:
            content = CONTENTS[name]
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked and not (fault and fault.ignores_range) else 0
            headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            self._answer(206 if start else 200, headers, content[start:], fault)

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes, fault: Fault | None) -> None:
            if fault and fault.status == 0:
                self.close_connection = True
                return
            if fault and fault.body is not None:
                body = fault.body
            if fault and fault.status != 200:
                status, headers = fault.status, {}
                body = fault.body or b""
            told: dict[str, str | None] = {
                "Content-Length": str(len(body)),
                **headers,
                **(fault.headers if fault else {}),
            }
            self.send_response(status)
            for header, value in told.items():
                if value is not None:
                    self.send_header(header, value.replace("CONTENT", hub.content_address))
            if told["Content-Length"] is None or (fault and fault.cut is not None):
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            sent = body if fault is None or fault.cut is None else body[: fault.cut]
            with contextlib.suppress(OSError):
                self.wfile.write(sent)
                hub.sent += len(sent) if status in (200, 206) and not self.path.startswith("/api/") else 0

    return Handler
