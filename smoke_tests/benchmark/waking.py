"""`--cold-start`: one request to a stack that is scaled to zero, its time to the first token, and the gateway's ledger."""

import asyncio
import time
from typing import Any

from smoke_tests.benchmark.deployment import gateway_info
from smoke_tests.benchmark.record import ColdStart, Phase
from smoke_tests.benchmark.stream_client import Endpoint
from smoke_tests.benchmark.timeline import RequestResult, Timeline
from smoke_tests.benchmark.workload import PATHS, request_body
from smoke_tests.errors import TargetError
from smoke_tests.progress import ProgressLine
from smoke_tests.target import Target

POLL_SECONDS = 1.0
# The gateway asks the platform when each phase ended, which takes a moment after the first answer.
LEDGER_WAIT_SECONDS = 30.0


def require_zero(target: Target) -> dict[str, Any]:
    """Return the document at /info of a cold endpoint. Raises TargetError if it is not cold or does not report its state."""
    info = gateway_info(target)
    if "state" not in info:
        raise TargetError(f"--cold-start: {target.endpoint}/info does not report whether the stack is scaled to zero")
    if info["state"] != "cold":
        ready = (info.get("replicas") or {}).get("ready")
        raise TargetError(
            f"--cold-start: the stack is not scaled to zero ({info['state']}, {ready} replicas ready, idle for "
            f"{info.get('idle_seconds')} s); send nothing until it has scaled down, then run this again"
        )
    return info


def measure_cold_start(target: Target, wait_seconds: float, progress: ProgressLine) -> ColdStart:
    """Wake the stack with one streamed request and return how long its first token took.

    Raises TargetError if the stack is not scaled to zero, or no token arrives within `wait_seconds`.
    """
    before = require_zero(target)
    if not target.model and not before.get("model"):
        raise TargetError("--cold-start: found no --model, which the request requires. Set --model")
    result = asyncio.run(_first_token(target, target.model or str(before["model"]), wait_seconds, progress))
    if result.failure:
        raise TargetError(f"--cold-start: no answer: {result.failure}: {result.detail}")
    ledger = _ledger(target, before.get("cold_start"))
    if ledger is None:
        note = "the gateway reported no ledger of this start; another gateway may have woken the stack"
        return ColdStart(seconds_to_first_token=result.ttft_seconds, note=note)
    return ColdStart(
        seconds_to_first_token=result.ttft_seconds,
        ledger_seconds=ledger["seconds"],
        phases=tuple(Phase.model_validate(phase) for phase in ledger["phases"]),
    )


async def _first_token(target: Target, model: str, wait_seconds: float, progress: ProgressLine) -> RequestResult:
    endpoint = Endpoint(target.endpoint, target.api_key, target.user)
    messages = ({"role": "user", "content": "Hello"},)
    # Streamed, because a held stream is kept alive through every hop.
    body = request_body(model, "chat", messages, 1, 0.0) | {"stream": True, "stream_options": {"include_usage": True}}
    timeline, started = Timeline(), time.perf_counter()
    reporting = asyncio.create_task(_report(target, started, wait_seconds, progress))
    try:
        async with asyncio.timeout(wait_seconds):
            connection = await endpoint.connect()
            try:
                response = await connection.request(endpoint.json_message(PATHS["chat"], body), timeline.feed)
            finally:
                connection.close()
    except TimeoutError:
        raise TargetError(f"--cold-start: no first token within {wait_seconds:g} s; see --wait-seconds") from None
    except OSError as error:
        raise TargetError(f"--cold-start: {type(error).__name__}: {error}") from None
    finally:
        reporting.cancel()
        progress.close()
    return timeline.result(response, started, time.perf_counter(), started)


async def _report(target: Target, started: float, wait_seconds: float, progress: ProgressLine) -> None:
    while True:
        await asyncio.sleep(POLL_SECONDS)
        info = await asyncio.to_thread(gateway_info, target)
        why = f" ({info['wake_error']})" if info.get("wake_error") else ""
        elapsed = time.perf_counter() - started
        progress.update(
            f"cold start: {info.get('state', 'waiting')}{why}, {elapsed:.0f} of at most {wait_seconds:.0f} s"
        )


def _ledger(target: Target, before: Any) -> dict[str, Any] | None:
    """Return the new ledger, None if none is reported."""
    until = time.monotonic() + LEDGER_WAIT_SECONDS
    while True:
        ledger = gateway_info(target).get("cold_start")
        if isinstance(ledger, dict) and ledger != before:
            return ledger
        if time.monotonic() >= until:
            return None
        time.sleep(POLL_SECONDS)
