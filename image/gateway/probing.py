"""Health checks in the form of inference requests, which LiteLLM and other routers send all day.

A request for a few tokens is a probe if its key is marked `"health": true` in the keys document. Probes are not demand:
they neither wake a cold engine nor keep an idle one running, and no metric of requests counts them. While no replica is
ready and no wake has failed, the gateway answers them itself: the endpoint works, and the first real request wakes it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection
from typing import Any

import orjson

from image.gateway import errors
from image.gateway.admission import Admission, Ticket
from image.gateway.exchange import Exchange
from image.gateway.fleet import Fleet, Replica
from image.gateway.proxy import Proxy
from image.gateway.routes import Route
from image.gateway.settings import Settings
from image.gateway.telemetry import Telemetry
from image.gateway.waking import Waker

# LiteLLM used to ask for 1 token and now asks for 16, the minimum of OpenAI's Responses API.
MOST_TOKENS = 16
# OpenAI's and vLLM's default if a body sets no limit. On other paths the default is the rest of the context length.
_TOKENS_UNASKED = {"/v1/completions": 16}
_COLD = (b"x-engine-state", b"cold")
_RETRY_AFTER_SECONDS = 30


# A health check sends about a sentence. A request with several inputs or choices is real work.
_MOST_BYTES = 4096


def is_probe(exchange: Exchange, route: Route) -> bool:
    """Whether a request with a health key asks for so little that it must be a health check."""
    if exchange.stream or route.path not in _ANSWERS or len(exchange.body) > _MOST_BYTES:
        return False
    document = orjson.loads(exchange.body)
    if any(document.get(name) not in (None, 1) for name in ("n", "best_of")):
        return False
    if any(_is_several(document.get(name)) for name in ("prompt", "input") if route.path != "/v1/responses"):
        return False
    if not route.max_tokens:
        return True
    asked = [document[name] for name in route.max_tokens if document.get(name) is not None]
    asked = asked or [_TOKENS_UNASKED.get(route.path, math.inf)]
    return all(isinstance(tokens, int) and tokens <= MOST_TOKENS for tokens in asked)


def _is_several(value: Any) -> bool:
    """Whether a prompt or input is a list of several; a list of numbers is one input, given as tokens."""
    return isinstance(value, list) and len(value) > 1 and not all(isinstance(item, int) for item in value)


class Probes:
    """Answers probes."""

    def __init__(
        self, settings: Settings, fleet: Fleet, admission: Admission, waker: Waker, telemetry: Telemetry
    ) -> None:
        self._fleet = fleet
        self._admission = admission
        self._waker = waker
        self._uncounted = Proxy(settings, fleet, _Uncounted(settings, fleet, admission), waker, telemetry)

    async def answer(self, exchange: Exchange, proxy: Proxy) -> None:
        """Answer from the engine if a replica is ready, else from the gateway; raises ApiError. `proxy`: for all requests."""
        if self._fleet.rotation:
            # While other requests run, a probe waits in turn like them.
            await (proxy if self._admission.demand else self._uncounted).forward(exchange)
        elif self._waker.last_error:
            raise errors.unavailable(
                f"The engine cannot start: {self._waker.last_error}.", "not_ready", _RETRY_AFTER_SECONDS
            )
        else:
            exchange.stage = "answering"
            document = _ANSWERS[exchange.label](exchange)
            await exchange.answer(200, json.dumps(document, separators=(",", ":")).encode(), headers=(_COLD,))


class _Uncounted(Admission):
    """Slots on the same replicas that do not count as demand. Requests never wait here."""

    def __init__(self, settings: Settings, fleet: Fleet, counted: Admission) -> None:
        super().__init__(settings, lambda: fleet.rotation, lambda: None)
        self._counted = counted

    def enqueue(
        self,
        size_bytes: int,
        key: str = "",
        affinity: bytes = b"",
        excluded: Collection[Replica] = (),
        *,
        again: bool = False,
    ) -> Ticket:
        """Raise the 503: no replica is ready any more."""
        raise errors.unavailable("The engine does not answer.", "not_ready", _RETRY_AFTER_SECONDS)

    def release(self, replica: Replica, key: str = "") -> None:
        """Release a slot, also for waiting requests."""
        super().release(replica, key)
        self._counted.dispatch()


# Answers without tokens, in the format of engine answers that were cut off at their limit.


def _chat(exchange: Exchange) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}
    return _completion(exchange, "chat.completion") | {"choices": [choice]}


def _text(exchange: Exchange) -> dict[str, Any]:
    choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
    return _completion(exchange, "text_completion") | {"choices": [choice]}


def _completion(exchange: Exchange, kind: str) -> dict[str, Any]:
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {"id": _id(exchange), "object": kind, "created": int(time.time()), "model": exchange.model, "usage": usage}


def _response(exchange: Exchange) -> dict[str, Any]:
    usage = {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    }
    return {
        "id": _id(exchange),
        "object": "response",
        "created_at": int(time.time()),
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "error": None,
        "instructions": None,
        "metadata": {},
        "model": exchange.model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }


def _message(exchange: Exchange) -> dict[str, Any]:
    return {
        "id": _id(exchange),
        "type": "message",
        "role": "assistant",
        "model": exchange.model,
        "content": [],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def _embedding(exchange: Exchange) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.0]}],
        "model": exchange.model,
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


def _id(exchange: Exchange) -> str:
    return f"probe-{exchange.request_id}"


_ANSWERS: dict[str, Callable[[Exchange], dict[str, Any]]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _text,
    "/v1/responses": _response,
    "/v1/messages": _message,
    "/v1/embeddings": _embedding,
}
