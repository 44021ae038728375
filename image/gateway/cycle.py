"""One request and its answer as uvicorn keeps them, and what becomes of a body that nobody has read."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Cycle(RequestResponseCycle):
    """uvicorn's state of one request, which also decides whether its connection survives it."""

    rest_can_be_dropped = False

    def answer_begins(self) -> None:
        """Decide whether the connection survives an answer that is given before the body is here: not where the client may
        leave the body out (it was not told to continue), and not where the rest may be long.
        """
        if self.more_body and (self.waiting_for_100_continue or not self.rest_can_be_dropped):
            self.keep_alive = False

    async def send(self, message: Any) -> None:
        """ASGI's `send`, for the metrics; what clients are answered goes through `writer`."""
        if not self.response_started:
            self.answer_begins()
        await super().send(message)
