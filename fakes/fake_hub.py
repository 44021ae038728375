"""A fake Hugging Face Hub on loopback: model information, range requests, redirects to a "CDN", and faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FakeModel:
    """The files of a model, and its faults. Files of 1 KiB or more are served as LFS files."""

    files: dict[str, bytes]
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    cuts: dict[str, int] = field(default_factory=dict)
    """File -> number of bytes after which the connection is closed, once."""
    breaking: set[str] = field(default_factory=set)
    """Files whose connection is always closed before the first byte."""
    damaged: dict[str, int] = field(default_factory=dict)
    """File -> number of times it is sent with a wrong byte."""
    stalled: dict[str, threading.Event] = field(default_factory=dict)
    """File -> event; half of the file is sent at once, the rest when the event is set."""

    @property
    def commit(self) -> str:
        """The revision: a hash of all files."""
        return _sha1(json.dumps({name: _sha1(content) for name, content in self.files.items()}).encode())


@dataclass
class Served:
    """A request that was answered with a file."""

    name: str
    start: int
    host: str
    token: str


class FakeHub:
    """Models by name, the requests received, and the number of bytes of files sent.

    ``older``: earlier commits of a model. ``broken``: answers 503. ``busy``: answers 429, and asks to wait for so many seconds.
    ``stalled``: answers nothing until it is set; ``stall`` is an event for this that is set at the end. ``asked`` is set by the
    first request.
    """

    def __init__(self) -> None:
        self.models: dict[str, FakeModel] = {}
        self.older: dict[str, dict[str, FakeModel]] = {}
        self.served: list[Served] = []
        self.broken = False
        self.busy = 0
        self.stalled: threading.Event | None = None
        self.stall = threading.Event()
        self.asked = threading.Event()
        self.sent = 0
        self.address = ""
        self.sending = threading.Event()
        self.lock = threading.Lock()

    def names(self) -> list[str]:
        """Names of the files sent, in order."""
        return [one.name for one in self.served]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # tests kill clients on purpose


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Serve a Hub until the block ends."""
    hub = FakeHub()
    server = _Server(("127.0.0.1", 0), _handler(hub))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.stall.set()
        for model in hub.models.values():
            for event in model.stalled.values():
                event.set()
        server.shutdown()
        server.server_close()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            hub.asked.set()
            if hub.stalled:
                hub.stalled.wait(30)
            if hub.broken:
                return self._refuse(503, "")
            if hub.busy:
                return self._refuse(429, "", {"Retry-After": str(hub.busy)})
            if found := re.fullmatch(
                r"/api/models/(?P<model>[^/]+/[^/]+)/revision/(?P<revision>[^?]+)\?blobs=true", self.path
            ):
                return self._information(found["model"], found["revision"])
            if found := re.fullmatch(
                r"(?P<cdn>/cdn)?/(?P<model>[^/]+/[^/]+)/resolve/(?P<commit>[^/]+)/(?P<name>.+)", self.path
            ):
                model = hub.models[found["model"]]
                older = hub.older.get(found["model"], {}).get(found["commit"])
                if older and found["name"] not in (*model.stalled, *model.cuts, *model.breaking, *model.damaged):
                    model = older
                if found["cdn"]:
                    return self._send(model, found["name"], token)
                if model.gated and token not in model.readers:
                    return self._refuse(403 if token else 401, "GatedRepo")
                if len(model.files[found["name"]]) < 1024:
                    return self._send(model, found["name"], token)
                # Redirect to another host name, as the Hub redirects to its CDN.
                self.send_response(302)
                self.send_header("Location", f"{hub.address.replace('127.0.0.1', 'localhost')}/cdn{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            return self._refuse(404, "")

        def _refuse(self, code: int, told: str, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if told:
                self.send_header("X-Error-Code", told)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _information(self, name: str, revision: str) -> None:
            if name not in hub.models:
                return self._refuse(401, "RepoNotFound")
            model = hub.older.get(name, {}).get(revision, hub.models[name])
            if revision not in ("main", model.commit):
                return self._refuse(404, "RevisionNotFound")
            siblings = []
            for file, content in model.files.items():
                git = _sha1(f"blob {len(content)}\0".encode() + content)
                lfs = (
                    {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
                    if len(content) >= 1024
                    else None
                )
                siblings.append(
                    {"rfilename": file, "size": len(content), "blobId": git, **({"lfs": lfs} if lfs else {})}
                )
            body = json.dumps({"id": name, "sha": model.commit, "gated": model.gated, "siblings": siblings}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return None

        def _write(self, content: bytes) -> None:
            for at in range(0, len(content), 1 << 18):
                self.wfile.write(content[at : at + (1 << 18)])
                with hub.lock:
                    hub.sent += len(content[at : at + (1 << 18)])

        def _send(self, model: FakeModel, name: str, token: str) -> None:
            content = model.files[name]
            found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(found[1]) if found else 0
            hub.served.append(Served(name, start, self.headers.get("Host", ""), token))
            if model.damaged.get(name, 0) > 0:
                model.damaged[name] -= 1
                content = content[:-1] + bytes([content[-1] ^ 1])
            self.send_response(206 if found else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start if name in model.breaking else model.cuts.pop(name, len(content))
            if event := model.stalled.get(name):
                half = max(start, len(content) // 2)
                self._write(content[start:half])
                self.wfile.flush()
                hub.sending.set()
                event.wait(30)
                start = half
            self._write(content[start:end])
            if end < len(content):
                self.close_connection = True

    return Handler
