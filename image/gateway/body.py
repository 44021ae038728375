"""Receives a request's body within its limits and parses the fields that the gateway needs.

The bytes are forwarded to the engine unchanged, except that gzip is decompressed and a byte order mark is removed.
"""

from __future__ import annotations

import asyncio
import codecs
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any

import orjson

from image.gateway import errors, form, media, not_json
from image.gateway.admission import Admission
from image.gateway.exchange import Exchange
from image.gateway.routes import BodyKind, Route
from image.gateway.routing import affinity_of
from image.gateway.settings import Settings


@dataclass(slots=True)
class BodyFacts:
    """The fields of a body that the gateway needs."""

    model: str | None
    stream: bool
    modalities: list[str] = field(default_factory=list)
    affinity: bytes = b""
    addition: bytes = b""
    """Replaces the body's closing brace if the gateway has to add a field."""


async def receive(exchange: Exchange, settings: Settings, admission: Admission) -> bytes:
    """The whole body, decompressed; raises the 413, 415 or 429. The exchange's deadline raises the 408."""
    limit = settings.max_body_bytes
    compressed = _is_compressed(exchange)
    announced = exchange.headers.get(b"content-length")
    if announced is not None and int(announced) > limit:
        raise errors.body_too_large(limit)
    if not exchange.received:
        exchange.deadline(settings.body_timeout_seconds, partial(errors.body_timeout, settings.body_timeout_seconds))
    message = await exchange.receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        body = await _receive_rest(exchange, body, limit, admission)
    if len(body) > limit:
        raise errors.body_too_large(limit)
    if compressed:
        body = await _inflate(body, limit, admission)
    # Windows PowerShell 5.1 and editors add a byte order mark. RFC 8259, 8.1 lets parsers ignore it; vLLM's does.
    body = body.removeprefix(codecs.BOM_UTF8)
    exchange.bytes_in = len(body)
    exchange.receiving_seconds = monotonic() - exchange.started
    return body


async def _receive_rest(exchange: Exchange, first: bytes, limit: int, admission: Admission) -> bytes:
    body = bytearray()  # a list would cost 40 bytes per part, and a part may be one byte
    part = first
    try:
        while True:
            admission.reserve(len(part))
            body += part
            if len(body) > limit:
                raise errors.body_too_large(limit)
            message = await exchange.receive()
            part = message.get("body", b"")
            if not message.get("more_body"):
                break
    finally:
        admission.unreserve(len(body))
    body += part
    return bytes(body)


_GZIP = (b"gzip", b"x-gzip")  # RFC 9110, 8.4.1.3: the same


def _is_compressed(exchange: Exchange) -> bool:
    """Whether the body is gzip; raises the 415 for any other coding."""
    if b"content-encoding" not in exchange.headers:
        return False
    values = (value for name, value in exchange.scope["headers"] if name == b"content-encoding")
    codings = [coding.strip().lower() for value in values for coding in value.split(b",")]
    codings = [coding for coding in codings if coding not in (b"", b"identity")]
    if len(codings) > 1 or any(coding not in _GZIP for coding in codings):
        raise errors.unknown_coding()
    return bool(codings)


_INFLATED_FROM_BYTES = 64 << 10
_INFLATED_TO_BYTES = 64 << 10
# Decompressed bytes up to this size are stored while the size is measured.
_COUNTED_AND_KEPT_BYTES = 64 << 10
# A gzip file may contain several members; an empty member of 20 bytes costs as much as a small body.
_MOST_MEMBERS = 64


async def _inflate(body: bytes, limit: int, admission: Admission) -> bytes:
    """Decompress a gzip body; raises the 400, 413 or 429. A large body is decompressed twice, first only to measure it, so
    that a body over the limit is never held in memory.
    """
    kept = bytearray()
    size = 0
    for part in _inflated(body):
        size += len(part)
        if size > limit:
            raise errors.body_too_large(limit)
        if size <= _COUNTED_AND_KEPT_BYTES:
            kept += part
        await asyncio.sleep(0)  # let other requests run
    if size <= _COUNTED_AND_KEPT_BYTES:
        return bytes(kept)
    kept.clear()
    reserved = len(body) + size
    admission.reserve(reserved)
    try:
        for part in _inflated(body):
            kept += part
            await asyncio.sleep(0)
        return bytes(kept)
    finally:
        admission.unreserve(reserved)


def _inflated(body: bytes) -> Iterator[bytes]:
    """The decompressed body in parts of a bounded size; raises the 400."""
    stream = zlib.decompressobj(wbits=31)
    members = 1
    try:
        for start in range(0, len(body), _INFLATED_FROM_BYTES):
            data = body[start : start + _INFLATED_FROM_BYTES]
            while True:
                if stream.eof:
                    if not data:
                        break
                    members += 1
                    if members > _MOST_MEMBERS:
                        raise errors.bad_body(f"The gzip body has more than {_MOST_MEMBERS} members.")
                    stream = zlib.decompressobj(wbits=31)
                part = stream.decompress(data, _INFLATED_TO_BYTES)
                data = stream.unused_data if stream.eof else stream.unconsumed_tail
                if part:
                    yield part
                if not data and len(part) < _INFLATED_TO_BYTES:
                    break
    except zlib.error as error:
        raise errors.bad_body(f"The body is not valid gzip: {error}.") from None
    if not stream.eof:
        raise errors.bad_body("The gzip body is truncated.")


def read(body: bytes, route: Route, content_type: bytes, settings: Settings) -> BodyFacts:
    """Parse a body; raises the 400 or 415 if its path does not accept it."""
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type != route.body.value.encode():
        raise errors.bad_body(f"The Content-Type must be {route.body.value}.", status=415, reason="content_type")
    return _read_json(body, route, settings) if route.body is BodyKind.JSON else _read_form(body, content_type)


# Limits the cost of parsing: an image is one value, a million tokens are a million. Every value but the first is preceded
# by one of these bytes.
_MOST_VALUES = 1_000_000
# Objects, lists and fields cost 20 to 100 times as much as a number, and each is visited here, which blocks the event
# loop.
_MOST_FIELDS = 200_000
_COUNTED_FROM_BYTES = 256 << 10
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def _check_size(body: bytes) -> None:
    """Raise the 413 for a body that takes too long to parse."""
    if len(body) <= _COUNTED_FROM_BYTES:
        return
    opened = body.count(b"[") + body.count(b"{")
    if opened + body.count(b",") > _MOST_VALUES:
        raise errors.bad_body(
            f"The body contains more than {_MOST_VALUES} values.", status=413, reason="body_too_large"
        )
    # Inside strings, these bytes are not limited.
    if (
        opened + body.count(b":") > _MOST_FIELDS
        and sum(map(_STRING.sub(b"", body).count, (b"[", b"{", b":"))) > _MOST_FIELDS
    ):
        raise errors.bad_body(
            f"The body contains more than {_MOST_FIELDS} objects, lists and fields.",
            status=413,
            reason="body_too_large",
        )


def _read_json(body: bytes, route: Route, settings: Settings) -> BodyFacts:
    _check_size(body)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if error.msg.startswith("depth limit"):  # orjson's own limit, above any setting
            raise _too_deep(settings) from None
        raise not_json.explained(body, error) from None
    if not isinstance(document, dict):
        raise errors.bad_body("The body is not a JSON object.")
    if body.count(b"[") + body.count(b"{") > settings.max_json_depth:
        _check_depth(document, settings)
    if media.may_hold_addresses(body):
        media.check(document, settings.media_hosts)
    if route.path == "/pooling" and "data" in document:
        # A vLLM plugin would read it and fetch any URL in it.
        raise errors.bad_body(
            "'data' is for I/O processor plugins, which are not served here; send 'input'.", param="data"
        )
    model = document.get("model")
    if model is not None and not isinstance(model, str):
        raise errors.bad_body("'model' is not a string.", param="model")
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise errors.bad_body("'stream' is neither true nor false.", param="stream")
    addition = _cap_tokens(document, route, settings.max_tokens) if settings.max_tokens else b""
    return BodyFacts(model, bool(stream), _modalities(document), affinity_of(document), addition)


def _check_depth(document: Any, settings: Settings) -> None:
    level = [document]
    for _ in range(settings.max_json_depth):
        values = (value for node in level for value in (node.values() if isinstance(node, dict) else node))
        level = [value for value in values if isinstance(value, dict | list)]
        if not level:
            return
    raise _too_deep(settings)


def _too_deep(settings: Settings) -> errors.ApiError:
    return errors.bad_body(f"The body is nested too deeply: over {settings.max_json_depth} levels.")


def _cap_tokens(document: dict[str, Any], route: Route, cap: int) -> bytes:
    """What to add to the body so that its answer stays within the cap; raises the 400 if it asks for more."""
    asked = {name: document[name] for name in route.max_tokens if document.get(name) is not None}
    for name, value in asked.items():
        if _number(value) > cap:
            raise errors.bad_body(f"'{name}' is {value}; at most {cap} are allowed here.", param=name)
    if asked or not route.max_tokens:
        return b""
    return b'%b"%b":%d}' % (b"," if document else b"", route.max_tokens[0].encode(), cap)


def _number(value: Any) -> float:
    """A number as vLLM parses it, which accepts "100" as 100; minus infinity for values that vLLM rejects."""
    try:
        return float(value) if isinstance(value, int | float | str) else -math.inf
    except (ValueError, OverflowError):
        return -math.inf if isinstance(value, str) else math.inf


def with_model(body: bytes, route: Route, model: str) -> bytes:
    """The body with this model's name added. If the body already has a `model`, the last of two duplicate fields wins.
    Raises the 400 for a form, which would have to be rewritten.
    """
    if route.body is not BodyKind.JSON:
        raise errors.bad_body(
            f"The form's 'model' is not the deployment {model[:128]!r}; send the same.", param="model"
        )
    opened = body.rstrip()[:-1].rstrip()
    return opened + (b"" if opened.endswith(b"{") else b",") + b'"model":' + orjson.dumps(model) + b"}"


# The `type` of a content part, in /v1/chat/completions and /v1/responses, and vLLM's own for video and audio.
_PART_MODALITIES = {
    "image": "image",  # Anthropic's
    "image_url": "image",
    "input_image": "image",
    "image_embeds": "image",
    "video_url": "video",
    "input_audio": "audio",
    "audio_url": "audio",
    "audio_embeds": "audio",
}
_MODALITY_ORDER = ("text", "image", "video", "audio")
_TEXT = ["text"]


def _modalities(document: dict[str, Any]) -> list[str]:
    """The modalities in a conversation, in a fixed order; any other content is text."""
    found: set[str] = set()
    for turns in (document.get("messages"), document.get("input")):
        if not isinstance(turns, list):
            continue
        for turn in turns:
            content = turn.get("content") if isinstance(turn, dict) else None
            if not isinstance(content, list):
                continue
            for part in content:
                kind = part.get("type") if isinstance(part, dict) else None
                if isinstance(kind, str):
                    found.add(_PART_MODALITIES.get(kind, "text"))
    if not found:
        return _TEXT
    return [modality for modality in _MODALITY_ORDER if modality in found or modality == "text"]


def _read_form(body: bytes, content_type: bytes) -> BodyFacts:
    fields = form.fields(body, content_type, (b"model", b"stream"))
    return BodyFacts(fields.get(b"model"), fields.get(b"stream", "").strip().lower() in ("true", "1"), ["audio"])
