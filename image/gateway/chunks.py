"""Decodes a chunked body (RFC 9112, 7.1) strictly, and limits everything in it that is not body."""

from __future__ import annotations

import re

from image.gateway.request_head import BadRequestError

# Chunk extensions and trailers together: clients do not send them, and nothing here reads them.
_MOST_OVERHEAD_BYTES = 16 << 10

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;([^\x00-\x08\x0a-\x1f\x7f]*))?\r\n")
_PART_OF_SIZE = re.compile(rb"[0-9A-Fa-f]{0,16}|[0-9A-Fa-f]{1,16}(?:[ \t]*|[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)\r?")
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TRAILER = re.compile(rb"(?:%b:[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n" % _NAME)
_PART_OF_TRAILER = re.compile(rb"(?:%b(?::[^\x00-\x08\x0a-\x1f\x7f]*)?)?\r?" % _NAME)


class Chunks:
    """The decoder of one body. Trailers are checked, counted and dropped: they never become headers."""

    __slots__ = ("_after_data", "_in_trailers", "_kept", "_left", "_overhead", "complete")

    def __init__(self) -> None:
        self._left = 0  # bytes left in the current chunk
        self._after_data = self._in_trailers = False
        self._kept = b""  # an incomplete line
        self._overhead = 0
        self.complete = False

    def feed(self, data: bytes, body: bytearray) -> int:
        """Append decoded bytes to `body`; returns how many input bytes belong to the message. Raises BadRequestError."""
        kept = len(self._kept)
        if kept:
            data, self._kept = self._kept + data, b""
        at, size = 0, len(data)
        while at < size and not self.complete:
            if self._left:
                part = data[at : at + self._left]
                body += part
                at += len(part)
                self._left -= len(part)
                continue
            if self._after_data:
                if data[at : at + 2] != b"\r\n":
                    if data[at:] == b"\r":
                        return self._keep(data, at, kept)
                    raise BadRequestError("A chunk of the body is longer than its size.")
                self._after_data = False
                at += 2
                continue
            line = (_TRAILER if self._in_trailers else _SIZE).match(data, at)
            if line is None:
                part_of = _PART_OF_TRAILER if self._in_trailers else _PART_OF_SIZE
                if not part_of.fullmatch(data, at):
                    raise BadRequestError(
                        f"The body's {'trailers are' if self._in_trailers else 'chunks are'} malformed."
                    )
                return self._keep(data, at, kept)
            if self._in_trailers:
                self.complete = line.end() - at == 2
                self._count(line.end() - at)
            else:
                self._left = int(line[1], 16)
                self._in_trailers = not self._left
                self._after_data = not self._in_trailers
                if line[2] is not None:
                    self._count(len(line[2]) + 1)
            at = line.end()
        return at - kept

    def _keep(self, data: bytes, at: int, kept: int) -> int:
        self._kept = data[at:]
        if self._overhead + len(self._kept) > _MOST_OVERHEAD_BYTES:
            self._count(len(self._kept))
        return len(data) - kept

    def _count(self, size: int) -> None:
        self._overhead += size
        if self._overhead > _MOST_OVERHEAD_BYTES:
            message = f"The body's chunk extensions and trailers are larger than {_MOST_OVERHEAD_BYTES} bytes."
            raise BadRequestError(message, 431, "header_too_large")
