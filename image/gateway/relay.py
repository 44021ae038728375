"""Relays a replica's answer to the client unchanged: events as they arrive, other answers once they are complete."""

from __future__ import annotations

import json

from image.gateway import errors, usage
from image.gateway.comments import Comments
from image.gateway.exchange import Exchange
from image.gateway.headers import NOT_DOWNSTREAM
from image.gateway.upstream import Connection

# An answer up to this size that is not a stream is sent once it is complete, so that a replica that dies midway is a clean
# 502.
_WHOLE_ANSWER_BYTES = 1 << 20
# Half an event would swallow an error event sent after it, so events up to this size are sent only when complete.
_WHOLE_EVENT_BYTES = 256 << 10
# The most recent bytes, kept for the usage block. Small, because a stalled client keeps its exchange in memory.
_TAIL_BYTES = 4096
# An empty line. Lines may end in LF, CRLF or CR, even within one stream.
_EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
# vLLM's answer for a path that the model does not support, which OpenAI clients cannot parse.
_NO_SUCH_PATH = b'{"detail":"Not Found"}'


async def relay(exchange: Exchange, connection: Connection, comment_seconds: float) -> None:
    """Relay the answer whose headers were read from the connection, with a comment after each idle interval of an event
    stream; raises UpstreamError.
    """
    exchange.stage = "answering"
    content_type = b""
    headers = []
    for header in connection.headers:
        name = header[0]
        if name == b"content-type":
            content_type = header[1]
        if name not in NOT_DOWNSTREAM:
            headers.append(header)
    if content_type.partition(b";")[0].strip().lower() == b"text/event-stream":
        await _relay_events(exchange, connection, headers, exchange.keep_alive(comment_seconds))
    else:
        if not exchange.answered:
            exchange.stop_comments()
        await _relay_whole(exchange, connection, headers)


async def _relay_events(
    exchange: Exchange, connection: Connection, headers: list[tuple[bytes, bytes]], comments: Comments
) -> None:
    """Relay events as they arrive, directly from one connection to the other while the client keeps up."""
    if not exchange.answered:
        headers = [header for header in headers if header[0] != b"content-length"]  # an error event may follow
        exchange.start_events(connection.status, headers)
        if not connection.waiting:
            exchange.flush()
    events = _Events(exchange, comments)
    while not connection.complete:
        await connection.pass_on(events.take)
        await exchange.caught_up()
    last = events.whole(await connection.read())
    exchange.tokens_in, exchange.tokens_out = usage.tokens(events.tail)
    await exchange.last_part(last)


class _Events:
    """The state of a relayed event stream."""

    def __init__(self, exchange: Exchange, comments: Comments) -> None:
        self._exchange = exchange
        self._comments = comments
        self._send = exchange.part
        self._counts = exchange.key.limits is not None
        self._kept = self._older = self._before = self._last = b""

    @property
    def tail(self) -> bytes:
        """The end of the last three reads, for the usage block: cheaper than searching each read."""
        return self._older + self._before + self._last

    def take(self, data: bytes) -> bool:
        """Relay the complete events in the data; returns whether the client keeps up."""
        data = self.whole(data)
        if data.endswith(_EVENT_ENDS):
            self._comments.inside_event = False
        elif len(data) < _WHOLE_EVENT_BYTES:
            at = max((data.rfind(end) + len(end) for end in _EVENT_ENDS if end in data), default=0)
            data, self._kept = data[:at], data[at:]
            if not data:
                return True
            self._comments.inside_event = False
        else:
            self._comments.inside_event = True
        return self._send(data)

    def whole(self, data: bytes) -> bytes:
        """The data, preceded by the stored part of an incomplete event; counts events."""
        exchange = self._exchange
        if not exchange.first_byte:
            exchange.note_first_byte()
        if self._counts:
            exchange.events_out += data.count(b"data:")
        self._older, self._before = self._before, self._last
        self._last = data if len(data) <= _TAIL_BYTES else data[-_TAIL_BYTES:]
        if self._kept:
            data, self._kept = self._kept + data, b""
        return data


async def _relay_whole(exchange: Exchange, connection: Connection, headers: list[tuple[bytes, bytes]]) -> None:
    """Relay an answer at once if it is small, else in parts."""
    data = await connection.read()
    if not connection.drained():
        gathered = bytearray(data)
        while not connection.drained() and len(gathered) < _WHOLE_ANSWER_BYTES:
            gathered += await connection.read()
        data = bytes(gathered)
    if connection.status == 404 and data == _NO_SUCH_PATH:
        data = errors.not_of_this_model(exchange.path).body(exchange.shape, exchange.request_id)
    elif connection.status >= 400 and connection.drained():
        data = errors.reshape(data, exchange.shape, connection.status, exchange.request_id)
    exchange.note_first_byte()
    if exchange.answered:
        # Comments were sent already, so the status cannot be sent any more: send the error as an event.
        exchange.status = connection.status
        exchange.error = f"engine_{connection.status}"
        await exchange.last_part(_as_event(exchange, data))
        return
    if connection.drained():
        exchange.tokens_in, exchange.tokens_out = usage.tokens(data)
        if connection.status not in (204, 304):
            headers = [header for header in headers if header[0] != b"content-length"]
            headers.append((b"content-length", b"%d" % len(data)))
        exchange.start(connection.status, headers)
        await exchange.last_part(data)
        return
    exchange.start(connection.status, headers)
    tail = b""
    while True:
        tail = data[-_TAIL_BYTES:] if len(data) > _TAIL_BYTES else tail[-_TAIL_BYTES:] + data
        if connection.drained():
            break
        exchange.part(data)
        await exchange.caught_up()
        data = await connection.read()
    exchange.tokens_in, exchange.tokens_out = usage.tokens(tail)
    await exchange.last_part(data)


def _as_event(exchange: Exchange, answer: bytes) -> bytes:
    """A JSON answer as an event that the client recognizes as an error."""
    try:
        document = json.loads(answer)
    except ValueError:
        document = None
    if not isinstance(document, dict) or "error" not in document:
        refused = errors.upstream_failed("The engine rejected the request.", "engine_refused")
        return refused.event(exchange.shape, exchange.request_id)
    return errors.as_event(json.dumps(document, separators=(",", ":")).encode(), exchange.shape)
