"""Event loops that Pulumi leaves open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from unittest import mock


@contextlib.contextmanager
def closing_event_loops() -> Iterator[None]:
    """Pulumi makes an event loop in each thread that has none and closes not one; an unclosed one is a warning."""
    made: list[asyncio.AbstractEventLoop] = []
    make = asyncio.new_event_loop

    def new_event_loop() -> asyncio.AbstractEventLoop:
        made.append(make())
        return made[-1]

    with mock.patch.object(asyncio, "new_event_loop", new_event_loop):
        try:
            yield
        finally:
            for loop in made:
                loop.run_until_complete(loop.shutdown_default_executor())
                loop.close()
