"""uvicorn's state of one request and its answer, and the handling of an unread body."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Cycle(RequestResponseCycle):
    """uvicorn's state of one request; also decides whether its connection is reused."""

    rest_can_be_dropped = False

    def answer_begins(self) -> None:
        """Decide whether the connection can be reused if the answer begins before the whole body has arrived. It cannot if
        the client may omit the body (it never received 100 Continue) or if the rest may be long.
        """
        if self.more_body and (self.waiting_for_100_continue or not self.rest_can_be_dropped):
            self.keep_alive = False

    async def send(self, message: Any) -> None:
        """ASGI's `send`, used for the metrics port; answers to clients go through `writer`."""
        if not self.response_started:
            self.answer_begins()
        await super().send(message)
