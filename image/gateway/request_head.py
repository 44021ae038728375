"""Parses and validates a request's headers (RFC 9112).

llhttp checks the syntax. Each request's headers get a new parser that never receives a byte of a body, so none of the parser's
decisions (an upgrade, a tunnel, the end of a message) can change where the next request begins.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import httptools

_END = b"\r\n\r\n"
# Headers that determine the connection's state or the body's length.
_FRAMING = frozenset((b"connection", b"content-length", b"content-type", b"expect", b"host", b"transfer-encoding"))
# Once parsed, a header takes 25 times its bytes in memory.
_MOST_HEADERS = 256
_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}
_TARGET = re.compile(rb'[!"$-~]+')  # printable ASCII, without a fragment
_ABSOLUTE = re.compile(rb"https?://([^/?@]+)(/[^?]*)?(\?.*)?", re.IGNORECASE)
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class BadRequestError(Exception):
    """An invalid request. Nothing after it on its connection can be served either."""

    def __init__(self, message: str, status: int = 400, reason: str = "http") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason


class RequestHead:
    """Parses the headers of successive requests: `feed` until `complete`, read the attributes, then `reset`."""

    __slots__ = (
        "_framing", "_line", "_most_bytes", "_parsed", "_parser", "_tail", "chunked", "complete", "expects_continue", "headers",
        "keep_alive", "length", "method", "path", "query", "raw_path", "size", "version",
    )  # fmt: skip

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.reset()

    def reset(self) -> None:
        """Prepare for the next request."""
        self._parser: httptools.HttpRequestParser | None = None
        self._parsed = self.complete = False
        self._line = self._tail = b""
        self._framing: list[tuple[bytes, bytes]] = []
        self.size = 0
        """Bytes read so far, including empty lines before the request line."""
        self.headers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> int:
        """Parse more bytes; returns how many belong to the headers. Raises BadRequestError."""
        skipped = 0
        if self._parser is None:
            skipped = len(data)
            data = data.lstrip(b"\r\n")  # RFC 9112, 2.2: some clients end a body with an empty line
            skipped -= len(data)
            if not data:
                self._count(skipped)
                return skipped
            self._parser = httptools.HttpRequestParser(self)
        joined = self._tail + data if self._tail else data
        at = joined.find(_END)
        if at < 0:
            self._count(skipped + len(data))
            if b"\n" not in self._line:
                self._line += data
            self._parse(data)
            if self._parsed:
                raise BadRequestError("The request's headers do not end in an empty line.")
            self._tail = joined[-3:]
            return skipped + len(data)
        end = at + len(_END) - len(self._tail)
        self._count(skipped + end)
        line = (self._line + data if self._line else data).partition(b"\r\n")[0]
        # The parser must find the end of the headers at the same byte as this code.
        self._parse(data[: end - 1])
        if not self._parsed:
            self._parse(data[end - 1 : end])
            self.complete = self._parsed
        if not self.complete:
            raise BadRequestError("The request's headers do not end in an empty line.")
        self._parser = None
        self._understand(line)
        return skipped + end

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > self._most_bytes:
            raise BadRequestError(
                f"The request's headers are larger than {self._most_bytes} bytes.", 431, "header_too_large"
            )

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # raised only after the headers; the parser gets none of the bytes that follow
        except httptools.HttpParserError:
            if len(self.headers) > _MOST_HEADERS:
                message = f"The request has more than {_MOST_HEADERS} headers."
                raise BadRequestError(message, 431, "header_too_large") from None
            raise BadRequestError("The request is not valid HTTP/1.1.") from None

    @property
    def started(self) -> bool:
        """Whether a request line has started."""
        return self._parser is not None

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        name = name.lower()
        header = (name, value.rstrip(b" \t"))
        self.headers.append(header)
        if name in _FRAMING:
            self._framing.append(header)
        if len(self.headers) > _MOST_HEADERS:
            raise ValueError("too many headers")  # stops the parser

    def on_headers_complete(self) -> None:
        """The empty line after the last header."""
        self._parsed = True

    # Semantics

    def _understand(self, line: bytes) -> None:
        parts = line.split(b" ")
        if len(parts) != 3 or parts[2] not in _VERSIONS:
            raise BadRequestError("The request line is not METHOD TARGET HTTP/1.1.")
        self.method = parts[0].decode("ascii")
        self.version = _VERSIONS[parts[2]]
        self._read_target(parts[1])
        self.keep_alive = self.version == "1.1"
        self.expects_continue = self.chunked = False
        self.length = 0
        hosts = lengths = types = codings = 0
        for name, value in self._framing:
            if name == b"host":
                hosts += 1
                if not _HOST.fullmatch(value):
                    raise BadRequestError("The Host header is not a host name or address with an optional port.")
            elif name == b"content-length":
                lengths += 1
                if not _LENGTH.fullmatch(value):
                    raise BadRequestError("The Content-Length is not a whole number.")
                self.length = int(value)
            elif name == b"content-type":
                types += 1
            elif name == b"transfer-encoding":
                codings += 1
                if value.lower() != b"chunked":
                    raise BadRequestError("The only Transfer-Encoding supported is chunked.")
                self.chunked = True
            elif name == b"expect":
                self.expects_continue = value.lower() == b"100-continue" and self.version == "1.1"
            elif b"close" in [token.strip().lower() for token in value.split(b",")]:  # Connection
                self.keep_alive = False
        if hosts != 1 and (hosts or self.version == "1.1"):
            raise BadRequestError(
                "The request must have one Host header." if hosts else "The request has no Host header."
            )
        if lengths + codings > 1:
            raise BadRequestError("The request must have one Content-Length or one Transfer-Encoding header.")
        if codings and self.version == "1.0":
            raise BadRequestError("HTTP/1.0 has no Transfer-Encoding; send a Content-Length.")
        if types > 1:
            raise BadRequestError("The request must have one Content-Type header.")

    def _read_target(self, target: bytes) -> None:
        if not _TARGET.fullmatch(target):
            raise BadRequestError("The request target is not a valid path.")
        if self.method == "CONNECT":
            raise BadRequestError("Tunnels are not supported.")
        if target[:1] == b"/":
            raw_path, _, self.query = target.partition(b"?")
        elif (absolute := _ABSOLUTE.fullmatch(target)) is not None:
            if not _HOST.fullmatch(absolute[1]):
                raise BadRequestError("The request target is not a valid URL.")
            raw_path, self.query = absolute[2] or b"/", (absolute[3] or b"?")[1:]
        elif target == b"*" and self.method == "OPTIONS":
            raw_path, self.query = target, b""
        else:
            raise BadRequestError("The request target is not a path.")
        self.raw_path = raw_path
        self.path = raw_path.decode("ascii")
        if "%" in self.path:
            self.path = unquote(self.path)
