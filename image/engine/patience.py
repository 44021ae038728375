"""How long a download waits for a Hub that does not respond or asks to wait."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Mapping
from email.message import Message

from image.engine.arguments import EngineError

DEFAULT_LIMIT_SECONDS = 1200.0
LIMIT = "ENGINE_START_LIMIT_SECONDS"
TRIES_WITHOUT_PROGRESS = 8
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
WORTH_A_LINE_SECONDS = 2.0
# A test sets others.
clock: Callable[[], float] = time.monotonic
sleep: Callable[[float], None] = time.sleep


class HubUnreachableError(EngineError):
    """The Hub does not respond or reports a server error; a retry may succeed.

    Args:
        message: one line.
        retry_after_seconds: how long the server asks to wait, or None.
        tries: how often a request without progress is worth repeating.
        status: the HTTP status, 0 without one.
    """

    def __init__(
        self,
        message: str,
        retry_after_seconds: float | None = None,
        tries: int = TRIES_WITHOUT_PROGRESS,
        status: int = 0,
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds, self.tries, self.status = retry_after_seconds, tries, status


class Patience:
    """The time that a start may wait without receiving anything; shared by all requests of a download.

    Args:
        tell: logs a line.
        limit_seconds: the start's limit.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        limit_seconds: float = DEFAULT_LIMIT_SECONDS,
    ) -> None:
        self._tell, self._limit = tell, limit_seconds
        self._told = -WORTH_A_LINE_SECONDS
        self.progressed()

    def progressed(self) -> None:
        """Something was received: the limit counts from now."""
        self._since = clock()

    def wait(self, error: HubUnreachableError, failed: int, pause: Callable[[float], None] | None = None) -> None:
        """Wait before the next try; as long as the server asks, otherwise longer each time.

        Args:
            error: why the last try failed.
            failed: the number of tries in a row that received nothing.
            pause: waits; ``time.sleep`` by default.

        Raises:
            HubUnreachableError: another try is not worth it.
        """
        asked = error.retry_after_seconds
        seconds = min(FIRST_PAUSE_SECONDS * 2.0 ** (failed - 1), LONGEST_PAUSE_SECONDS) if asked is None else asked
        left = self._limit - (clock() - self._since)
        if asked is not None and seconds > left:
            raise HubUnreachableError(
                f"{error}; it asks to wait {seconds:.0f} s, and this start waits for at most {self._limit:.0f}"
            ) from error
        if seconds > left or (asked is None and failed >= error.tries):
            raise error
        if seconds >= WORTH_A_LINE_SECONDS and clock() - self._told >= WORTH_A_LINE_SECONDS:
            self._told = clock()
            self._tell(f"{error}; waiting {seconds:.0f} s, {'as it asks' if asked else f'try {failed}'}")
        (pause or sleep)(seconds)


def limit_seconds(environment: Mapping[str, str]) -> float:
    """The start's limit, which the deployment sets from startupTimeoutMinutes.

    Raises:
        EngineError: it is not a number.
    """
    text = environment.get(LIMIT, "").strip()
    if not text:
        return DEFAULT_LIMIT_SECONDS
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise EngineError(f"{LIMIT}: found {text!r}; set seconds, such as 1200")
    return float(text)


def retry_after_seconds(headers: Mapping[str, str] | Message) -> float | None:
    """How long a server asks to wait: ``Retry-After`` in seconds or as a date, or the Hub's ``RateLimit``; None if it does not."""
    text = (headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if text:
        try:
            when = email.utils.parsedate_to_datetime(text).timestamp()
        except (ValueError, TypeError, OverflowError):
            return None
        return max(0.0, when - time.time())
    found = re.search(r"\br=0\b.*?\bt=(\d+)", headers.get("RateLimit") or "")
    return float(found[1]) if found else None
