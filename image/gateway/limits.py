"""Rate limits of a key: concurrent requests, and requests and tokens per minute (a sliding window)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from time import monotonic
from typing import Any

from image.gateway import errors

_WINDOW_SECONDS = 60.0


_LONGEST_SHOWN = 40


def shown(value: object) -> str:
    """A value from a keys document for an error message, masked if it may be a misplaced key."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN and "sk-" not in text else "a value that may be a key"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for all gateways together; None: unlimited."""

    concurrency: int | None = None
    """Concurrent requests, running or waiting."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Tokens of prompts and answers, counted at the end of each answer."""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Limits:
        """Parse the limits in a keys document; raises ValueError."""
        known = [field.name for field in fields(cls)]
        for name, value in document.items():
            if name not in known:
                raise ValueError(f"{shown(name)} is not a limit; set {', '.join(known)}")
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {shown(value)}; set a whole number above 0")
        return cls(**document)

    def share(self, count: int) -> Limits:
        """One gateway's share of the limits for `count` gateways; each is at least 1."""
        parts = (getattr(self, field.name) for field in fields(self))
        return Limits(*(None if part is None else max(1, part // count) for part in parts))


@dataclass(frozen=True, slots=True)
class Key:
    """The key that a request was sent with."""

    name: str
    limits: Limits | None = None
    expires: float | None = None
    """When the key expires, in seconds since the epoch."""
    priority: int = 0
    """A free slot goes to the waiting key with the highest priority."""
    health: bool = False
    """For health checks: its small requests are neither demand nor counted; see `probing`."""


class _Window:
    """An exact sum over the last 60 seconds."""

    def __init__(self) -> None:
        self._entries: deque[tuple[float, int]] = deque()
        self.sum = 0

    def add(self, now: float, amount: int) -> None:
        self._entries.append((now, amount))
        self.sum += amount

    def seconds_until_below(self, now: float, limit: int) -> float:
        """Seconds until the sum is below the limit if nothing is added; 0 if it already is."""
        entries = self._entries
        while entries and entries[0][0] <= now - _WINDOW_SECONDS:
            self.sum -= entries.popleft()[1]
        if self.sum < limit:
            return 0.0
        left = self.sum
        seconds = 0.0
        for when, amount in entries:
            if left < limit:
                break
            left -= amount
            seconds = when + _WINDOW_SECONDS - now
        return seconds


class _Meter:
    """The usage of one key, and its limits on this gateway."""

    def __init__(self) -> None:
        self.whole: Limits | None = None
        self.limits = Limits()
        self.running = 0
        self.requests = _Window()
        self.tokens = _Window()


class Limiter:
    """Meters of the keys that have limits, by name, so that a rotated key shares the usage of the old one."""

    def __init__(self, count: int, clock: Callable[[], float] = monotonic) -> None:
        """`count`: number of gateways that share the limits. `clock` returns seconds."""
        self._count = count
        self._clock = clock
        self._meters: dict[str, _Meter] = {}

    def enter(self, key: Key) -> None:
        """Begin a request; raises the 429 if the key has reached a limit. Rejected requests do not count."""
        if key.limits is None:
            return
        meter = self._meters.get(key.name)
        if meter is None:
            meter = self._meters[key.name] = _Meter()
        if meter.whole is not key.limits:
            meter.whole, meter.limits = key.limits, key.limits.share(self._count)
        limits = meter.limits
        now = self._clock()
        if limits.concurrency is not None and meter.running >= limits.concurrency:
            raise errors.key_limit("concurrency", f"{limits.concurrency} concurrent requests", 1)
        for reason, window, limit in (
            ("requests_per_minute", meter.requests, limits.requests_per_minute),
            ("tokens_per_minute", meter.tokens, limits.tokens_per_minute),
        ):
            if limit is not None and (seconds := window.seconds_until_below(now, limit)) > 0:
                raise errors.key_limit(reason, f"{limit} {reason.replace('_', ' ')}", math.ceil(seconds))
        meter.running += 1
        if limits.requests_per_minute is not None:
            meter.requests.add(now, 1)

    def leave(self, key: Key, tokens: int) -> None:
        """End a request that used this many tokens."""
        if key.limits is None:
            return
        meter = self._meters[key.name]
        meter.running -= 1
        if key.limits.tokens_per_minute is not None and tokens:
            meter.tokens.add(self._clock(), tokens)
