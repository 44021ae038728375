"""Waits until an endpoint answers. Waking a stack from zero takes minutes and is not a failure."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import httpx2

from smoke_tests.connections import async_client
from smoke_tests.errors import TargetError
from smoke_tests.progress import ProgressLine
from smoke_tests.target import API_KEY_VARIABLE, Target

POLL_SECONDS = 2.0
# Status codes of a load balancer or gateway before any replica is ready.
NOT_YET_STATUSES = frozenset({408, 429, 502, 503, 504})


@dataclass(frozen=True)
class Answering:
    """An endpoint that answers: its target with the model filled in, and the seconds it took to answer."""

    target: Target
    waited_seconds: float


def wait_for_answer(target: Target, wait_seconds: float, progress: ProgressLine | None = None) -> Answering:
    """Wake the endpoint with a one-token request and wait until it answers, at most `wait_seconds`.

    The response itself is not checked, except for a rejected key: the tests do that. Raises TargetError on a timeout, if
    the key is rejected, or if no model is given and none is listed.
    """
    waiter = _Waiter(target, progress or ProgressLine())
    started = time.monotonic()
    try:
        answered = asyncio.run(waiter.wait(wait_seconds))
    finally:
        waiter.progress.close()
    return Answering(answered, time.monotonic() - started)


class _Waiter:
    def __init__(self, target: Target, progress: ProgressLine) -> None:
        self.target = target
        self.progress = progress
        self.last_problem = "no answer yet"

    async def wait(self, wait_seconds: float) -> Target:
        # No read timeout: a held request may be silent for minutes; the deadline below bounds it.
        timeout = httpx2.Timeout(10.0, read=None)
        async with async_client(self.target, timeout=timeout) as http:
            reporting = asyncio.create_task(self._report(http, wait_seconds))
            try:
                async with asyncio.timeout(wait_seconds):
                    self.target = await self._with_model(http)
                    await self._until(http, self._answers)
            except TimeoutError:
                raise TargetError(
                    f"{self.target.endpoint} did not answer within {wait_seconds:g} s ({self.last_problem}); "
                    "look at the gateway's and the engine's logs, or give a longer --wait-seconds"
                ) from None
            finally:
                reporting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reporting
        return self.target

    async def _with_model(self, http: httpx2.AsyncClient) -> Target:
        if self.target.model:
            return self.target
        listed: list[str] = []

        async def lists_models(http: httpx2.AsyncClient) -> bool:
            response = await http.get("/v1/models")
            self._refuse_bad_key(response.status_code)
            if response.status_code in NOT_YET_STATUSES:
                self.last_problem = f"/v1/models: HTTP {response.status_code}"
                return False
            with contextlib.suppress(ValueError, KeyError, TypeError):
                listed.extend(str(entry["id"]) for entry in response.json()["data"])
            if not listed:
                raise TargetError(
                    f"{self.target.endpoint}/v1/models lists no model (HTTP {response.status_code}); name one with --model"
                )
            return True

        await self._until(http, lists_models)
        return replace(self.target, model=listed[0])

    async def _until(
        self, http: httpx2.AsyncClient, condition: Callable[[httpx2.AsyncClient], Awaitable[bool]]
    ) -> None:
        while True:
            try:
                if await condition(http):
                    return
            except httpx2.TransportError as error:
                self.last_problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            await asyncio.sleep(POLL_SECONDS)

    async def _answers(self, http: httpx2.AsyncClient) -> bool:
        body = {
            "model": self.target.model,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 1,
            # Streamed: every hop keeps a held stream alive, but not a held response.
            "stream": True,
        }
        async with http.stream("POST", "/v1/chat/completions", json=body) as response:
            self._refuse_bad_key(response.status_code)
            if response.status_code in NOT_YET_STATUSES:
                self.last_problem = f"HTTP {response.status_code}"
                return False
            problem = None
            # Read to the end: closing early would count as a client disconnect.
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    problem = problem or _error_in(line.removeprefix("data:"))
        self.last_problem = problem or self.last_problem
        return problem is None

    def _refuse_bad_key(self, status: int) -> None:
        if status in (401, 403):
            if self.target.user:
                raise TargetError(
                    f"{self.target.endpoint} rejected the user name and password of --endpoint (HTTP {status}); correct them"
                )
            given = "the API key" if self.target.api_key else "a request without an API key"
            raise TargetError(
                f"{self.target.endpoint} rejected {given} (HTTP {status}); give --api-key-file (make local's is .local/api-key) or set {API_KEY_VARIABLE}"
            )

    async def _report(self, http: httpx2.AsyncClient, wait_seconds: float) -> None:
        started = time.monotonic()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            state = await _replicas(http) or self.last_problem
            elapsed = time.monotonic() - started
            self.progress.update(
                f"waiting for {self.target.endpoint}: {state}, {elapsed:.0f} of at most {wait_seconds:.0f} s"
            )


def _error_in(data: str) -> str | None:
    """Return the message of a streamed error event, None if `data` is not an error."""
    try:
        event = json.loads(data)
    except ValueError:
        return None
    error = event.get("error") if isinstance(event, dict) else None
    if not error:
        return None
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


async def _replicas(http: httpx2.AsyncClient) -> str | None:
    """Return the replicas' state from /info, None if it is not reported."""
    try:
        info = (await http.get("/info", timeout=5.0)).json()
    except (httpx2.TransportError, ValueError):
        return None
    replicas = info.get("replicas") if isinstance(info, dict) else None
    if isinstance(replicas, dict):
        return ", ".join(f"{count} {state}" for state, count in replicas.items())
    ready = info.get("replicas_ready") if isinstance(info, dict) else None
    return f"{ready} replicas ready" if ready is not None else None
