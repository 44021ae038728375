"""The baseline of the gateway's benchmark: a proxy of two asyncio protocols, without ASGI, limits or a log.

    GW_UPSTREAMS=127.0.0.1:9100 GW_KEYS=sk-test python -m benchmarks.gateway.raw_protocol 9200

The benchmark (python -m benchmarks.gateway.bench) starts it.
"""

# ruff: noqa: D101, D102, D103, RET503
# mypy: ignore-errors
from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os

import httptools
import uvloop

UP = [u.split(":") for u in os.environ.get("GW_UPSTREAMS", "127.0.0.1:9100").split(",")]
UP = [(h, int(p)) for h, p in UP]
KEYS = {hashlib.sha256(k.encode()).digest(): "tenant" for k in os.environ.get("GW_KEYS", "sk-test").split(",")}
MODELS = {"fake-model": UP}
BUSY = dict.fromkeys(UP, 0)


def allowed(authorization: bytes) -> bool:
    return authorization[:7].lower() == b"bearer " and hashlib.sha256(authorization[7:]).digest() in KEYS


def route(body: bytes):
    """The replica for this request and whether it streams; None: no such model."""
    doc = json.loads(body)
    pool = MODELS.get(doc.get("model"))
    return (min(pool, key=BUSY.__getitem__) if pool else None), doc.get("stream", False)


POOL = []


class Up(asyncio.Protocol):
    def connection_made(self, tr):
        self.tr, self.client, self.open = tr, None, True

    def start(self, client, up, head, body):
        self.client, self.up, self.parser = client, up, httptools.HttpResponseParser(self)
        self.tr.writelines((head, body))

    def on_message_complete(self):
        self.done = True

    def data_received(self, data):
        self.done = False
        self.parser.feed_data(data)
        c = self.client
        if c is None:
            return self.tr.close()
        c.tr.write(data)
        if self.done:
            BUSY[self.up] -= 1
            self.client = c.up = None
            POOL.append(self) if self.parser.should_keep_alive() else self.tr.close()
            c.tr.resume_reading()

    def connection_lost(self, exc):
        self.open = False
        if self.client:
            BUSY[self.up] -= 1
            self.client.tr.close()


class Client(asyncio.Protocol):
    def connection_made(self, tr):
        self.tr, self.parser, self.up = tr, httptools.HttpRequestParser(self), None

    def on_url(self, u):
        self.url, self.auth, self.body = u, b"", []

    def on_header(self, k, v):
        if len(k) == 13 and k.lower() == b"authorization":
            self.auth = v

    def on_body(self, b):
        self.body.append(b)

    def data_received(self, data):
        self.parser.feed_data(data)

    def reply(self, status, body=b""):
        self.tr.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))

    def on_message_complete(self):
        if self.url != b"/v1/chat/completions":
            return self.reply(200)
        if not allowed(self.auth):
            return self.reply(401, b'{"error":{"message":"bad key"}}')
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        up, _ = route(body)
        if up is None:
            return self.reply(404, b'{"error":{"message":"no such model"}}')
        BUSY[up] += 1
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: %b:%d\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            % (up[0].encode(), up[1], len(body))
        )
        self.tr.pause_reading()
        while POOL:
            u = POOL.pop()
            if u.open:
                self.up = u
                return u.start(self, up, head, body)
        self.task = asyncio.get_running_loop().create_task(self.dial(up, head, body))

    async def dial(self, up, head, body):
        _, u = await asyncio.get_running_loop().create_connection(Up, *up)
        self.up = u
        u.start(self, up, head, body)

    def connection_lost(self, exc):
        if self.up:
            self.up.client = None
            self.up.tr.close()


async def main(port):
    s = await asyncio.get_running_loop().create_server(Client, "127.0.0.1", port)
    await s.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int, help="port to listen on, at 127.0.0.1")
    uvloop.run(main(parser.parse_args().port))
