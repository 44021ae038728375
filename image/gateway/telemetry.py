"""The gateway's log (one JSON line per request and per event) and its metrics.

Lines are written to stdout in batches of a few milliseconds: a system call per line would cost more than formatting it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any

import orjson

from image.gateway.metrics import Metrics

if TYPE_CHECKING:
    from image.gateway.exchange import Exchange

_FLUSH_SECONDS = 0.02


def _encode(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # such as an unpaired surrogate in a path or a count of 70 bits
        return json.dumps(document, separators=(",", ":")).encode()


class Telemetry:
    """The log and the metrics. Keys, prompts and answers are never passed to it."""

    def __init__(self, output_fd: int = 1) -> None:
        self.metrics = Metrics()
        self._fd = output_fd
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def event(self, event: str, *, level: str = "info", **facts: Any) -> None:
        """Log an event that is not a request: a wake, a lost replica, a drain."""
        self.line({"time": round(time.time(), 3), "level": level, "event": event, **facts})

    def request(self, exchange: Exchange, *, log: bool) -> None:
        """A request is over: count it and, if `log`, write its line."""
        e = exchange
        metrics = self.metrics
        total = time.monotonic() - e.started
        waited = ttft = tokens_per_second = None
        if e.dispatched:
            waited = e.dispatched - e.started - e.receiving_seconds
        if e.first_byte:
            ttft = e.first_byte - e.started
        if e.counted:
            metrics.request(e.label, e.status, total)
            if waited is not None:
                metrics.waited(waited)
            if ttft is not None:
                metrics.first_token(e.label, ttft)
        if e.tokens_in is not None:
            metrics.tokens(e.key.name, "in", e.tokens_in)
        if e.tokens_out is not None:
            metrics.tokens(e.key.name, "out", e.tokens_out)
            tokens_per_second = round(e.tokens_out / max(total - (waited or 0), 1e-6), 1)
        if not log:
            return
        self.line(
            {
                "time": round(time.time(), 3),
                "level": "info" if e.status < 500 else "error",
                "event": "request" if e.counted else "uncounted",
                "request_id": e.request_id,
                "client": e.client,
                "key": e.key.name or None,
                "model": e.model,
                "method": e.method,
                "path": e.path[:256],
                "status": e.status,
                "stream": e.stream,
                "modalities": e.modalities,
                "duration_ms": round(total * 1000, 1),
                "waiting_ms": None if waited is None else round(waited * 1000, 1),
                "ttft_ms": None if ttft is None else round(ttft * 1000, 1),
                "tokens_in": e.tokens_in,
                "tokens_out": e.tokens_out,
                "tokens_per_second": tokens_per_second,
                "bytes_in": e.bytes_in,
                "bytes_out": e.bytes_out,
                "replica": e.replica,
                "retries": e.retries,
                "error": e.error,
            }
        )

    def line(self, document: dict[str, Any]) -> None:
        """Queue one line of JSON for writing."""
        self._lines.append(_encode(document))
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)
            except RuntimeError:  # no running loop
                self.flush()

    def flush(self) -> None:
        """Write all queued lines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        data = b"\n".join([*self._lines, b""]) if self._lines else b""
        self._lines.clear()
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:
                # The log's reader is gone; continue to serve without it.
                return
