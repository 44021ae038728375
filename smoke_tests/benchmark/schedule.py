"""The due times of an open loop's requests, drawn from a seed before the first one is sent."""

import itertools
import random
from collections.abc import Iterator


def arrival_times(
    request_rate: float, *, requests: int | None, duration_seconds: float | None, burstiness: float = 1.0, seed: int = 0
) -> list[float]:
    """Return the seconds from the start at which requests are due, rising.

    Gaps are drawn from a gamma distribution of mean 1 / `request_rate` and shape `burstiness`: 1 is a Poisson process,
    less comes in bursts, more is more even (vLLM bench's definition). With `requests` the
    times are stretched so that the last one is due at `requests / request_rate`, as vLLM bench does; otherwise, the
    rate would vary with the seed. With `duration_seconds`, all requests that are due before its end are sent.
    """
    gaps = _gaps(request_rate, burstiness, random.Random(f"arrivals/{seed}"))  # noqa: S311
    times = itertools.accumulate(gaps)
    if requests is None:
        assert duration_seconds is not None
        return list(itertools.takewhile(lambda time: time < duration_seconds, times))
    drawn = list(itertools.islice(times, requests))
    stretch = requests / request_rate / drawn[-1]
    return [time * stretch for time in drawn]


def _gaps(request_rate: float, burstiness: float, source: random.Random) -> Iterator[float]:
    while True:
        yield source.gammavariate(burstiness, 1 / (request_rate * burstiness))
