"""What one key may use of a gateway: requests at once, and requests and tokens in any sixty seconds."""

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
    """A value of a keys document for a message, unless it may be a key in the wrong place."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN and "sk-" not in text else "a value that may be a key"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of all gateways together; None: without limit."""

    concurrency: int | None = None
    """Requests running and waiting at once."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Tokens of prompts and answers, counted when an answer is over."""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Limits:
        """Limits from a keys document's object; raises ValueError."""
        known = [field.name for field in fields(cls)]
        for name, value in document.items():
            if name not in known:
                raise ValueError(f"{shown(name)} is not a limit; set {', '.join(known)}")
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {shown(value)}; set a whole number above 0")
        return cls(**document)

    def share(self, count: int) -> Limits:
        """One gateway's part of what holds for `count` of them together; at least one of each."""
        parts = (getattr(self, field.name) for field in fields(self))
        return Limits(*(None if part is None else max(1, part // count) for part in parts))


@dataclass(frozen=True, slots=True)
class Key:
    """Whom a request comes from."""

    name: str
    limits: Limits | None = None
    expires: float | None = None
    """When the key is good no longer, in seconds since the epoch."""
    priority: int = 0
    """A free slot goes to the waiting name of the highest priority."""
    health: bool = False
    """For health checks: what it asks for does not count as demand; see `probing`."""


class _Window:
    """A sum over the last sixty seconds, exact: what was added leaves it sixty seconds later."""

    def __init__(self) -> None:
        self._entries: deque[tuple[float, int]] = deque()
        self.sum = 0

    def add(self, now: float, amount: int) -> None:
        self._entries.append((now, amount))
        self.sum += amount

    def seconds_until_below(self, now: float, limit: int) -> float:
        """0 when the sum is below the limit, else how long until it is if nothing is added."""
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
    """What one key uses, and its limits here."""

    def __init__(self) -> None:
        self.whole: Limits | None = None
        self.limits = Limits()
        self.running = 0
        self.requests = _Window()
        self.tokens = _Window()


class Limiter:
    """Meters of the keys that have limits. By name, so that a rotated key goes on where the old one was."""

    def __init__(self, count: int, clock: Callable[[], float] = monotonic) -> None:
        """`count`: how many gateways share the limits. `clock` in seconds."""
        self._count = count
        self._clock = clock
        self._meters: dict[str, _Meter] = {}

    def enter(self, key: Key) -> None:
        """A request begins; raises the 429 when the key has used up a limit. What is refused counts for nothing."""
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
            raise errors.key_limit("concurrency", f"{limits.concurrency} requests at once", 1)
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
        """A request that entered is over, and used so many tokens."""
        if key.limits is None:
            return
        meter = self._meters[key.name]
        meter.running -= 1
        if key.limits.tokens_per_minute is not None and tokens:
            meter.tokens.add(self._clock(), tokens)
