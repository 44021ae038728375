"""A replica's answer on its way back to the client, byte for byte: events as they come, all else when it is whole."""

from __future__ import annotations

import json

from image.gateway import errors, usage
from image.gateway.comments import Comments
from image.gateway.exchange import Exchange
from image.gateway.headers import NOT_DOWNSTREAM
from image.gateway.upstream import Connection

# An answer that is no stream is sent on when it is whole, up to this size: so a replica that dies in it is a clean 502.
_WHOLE_ANSWER_BYTES = 1 << 20
# An event cut in two would swallow the error that follows; up to this size it is kept until it is whole.
_WHOLE_EVENT_BYTES = 256 << 10
# Of what was read last, for the usage block; no more, for a client that stalls keeps its exchange's memory.
_TAIL_BYTES = 4096
# An empty line; a line may end in LF, CRLF or CR, and one stream may mix them.
_EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
# What vLLM says of a path that only models of another kind have: no OpenAI client reads it.
_NO_SUCH_PATH = b'{"detail":"Not Found"}'


async def relay(exchange: Exchange, connection: Connection, comment_seconds: float) -> None:
    """Send on the answer whose head is on the connection, a comment every so many seconds of an event stream's silence;
    raises UpstreamError.
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
    """Each event as it comes, straight from the one connection to the other while the client keeps up."""
    if not exchange.answered:
        headers = [header for header in headers if header[0] != b"content-length"]  # an error may have to follow
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
    """What has come of a stream."""

    def __init__(self, exchange: Exchange, comments: Comments) -> None:
        self._exchange = exchange
        self._comments = comments
        self._send = exchange.part
        self._counts = exchange.key.limits is not None
        self._kept = self._older = self._before = self._last = b""

    @property
    def tail(self) -> bytes:
        """The end of the last three reads, for the usage block: cheaper than looking into each."""
        return self._older + self._before + self._last

    def take(self, data: bytes) -> bool:
        """Send on the events in it that are whole; whether the client keeps up."""
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
        """The same bytes behind what was kept of an event before, counted."""
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
    """All at once when it is whole; in parts when it is large."""
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
        # Comments are out already, so the status cannot be sent any more: what it would have been goes as an event.
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
    """An answer that is one JSON document, as the event that the client takes for an error."""
    try:
        document = json.loads(answer)
    except ValueError:
        document = None
    if not isinstance(document, dict) or "error" not in document:
        refused = errors.upstream_failed("The engine refused the request.", "engine_refused")
        return refused.event(exchange.shape, exchange.request_id)
    return errors.as_event(json.dumps(document, separators=(",", ":")).encode(), exchange.shape)
