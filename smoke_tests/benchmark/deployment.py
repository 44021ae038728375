"""The deployment and its prices, from the stack's outputs and settings, the gateway and the engine."""

import hashlib
import json
import re
from typing import Any

import httpx2

from smoke_tests.benchmark.record import Deployment, Prices
from smoke_tests.connections import sync_client
from smoke_tests.errors import TargetError
from smoke_tests.stack import read_config
from smoke_tests.target import Target

TIMEOUT_SECONDS = 10.0


def gateway_info(target: Target) -> dict[str, Any]:
    """Return the response of /info, empty if the endpoint has none."""
    return _get(target, "/info")


def read_deployment(target: Target) -> Deployment:
    """Return what is known of the deployment. The gateway, which is there now, wins over the stack's outputs."""
    info, outputs = gateway_info(target), target.outputs
    cards = _get(target, "/v1/models").get("data") or [{}]
    card = cards[0] if isinstance(cards, list) and isinstance(cards[0], dict) else {}
    config = _config(target)
    arguments = info.get("engine_arguments") or outputs.get("engineArguments")
    runs_on = info.get("runs_on")
    types = info.get("instance_types")
    return Deployment(
        endpoint=target.endpoint,
        stack=target.stack,
        model=target.model,
        model_revision=info.get("revision") or outputs.get("modelRevision"),
        engine_version=info.get("engine_version") or _get(target, "/version").get("version"),
        engine_arguments=tuple(str(word) for word in arguments) if isinstance(arguments, list) else None,
        engine_image=info.get("engine_image") or outputs.get("engineImage"),
        gateway_version=info.get("gateway_version"),
        gpu=target.gpu or info.get("gpu"),
        gpu_count=target.gpu_count if target.gpu_count is not None else info.get("gpu_count"),
        instance_type=target.instance_type or (types[0] if isinstance(types, list) and types else None),
        region=target.region,
        # How much memory is free is never the same twice.
        runs_on=re.sub(r", [\d.]+ GiB of memory free", "", runs_on) if isinstance(runs_on, str) else None,
        stand_in=bool(info.get("stand_in")),
        max_model_len=info.get("max_model_len") or card.get("max_model_len"),
        concurrency_per_replica=info.get("concurrency_per_replica"),
        config=config,
        config_hash=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16] if config else None,
    )


def ready_replicas(target: Target) -> int | None:
    """Return the number of replicas that the gateway reports as ready, None if it reports none."""
    replicas = gateway_info(target).get("replicas")
    ready = replicas.get("ready") if isinstance(replicas, dict) else None
    return ready if isinstance(ready, int) else None


def prefix_cache_counters(target: Target) -> tuple[float, float] | None:
    """Return the engine's counters of prompt tokens looked up in the prefix cache and found; None without them."""
    try:
        with sync_client(target, timeout=TIMEOUT_SECONDS) as client:
            answer = client.get("/metrics")
        text = answer.text if answer.status_code == 200 else ""
    except httpx2.TransportError:
        return None
    found = [
        [float(value) for value in re.findall(rf"^vllm:prefix_cache_{name}_total(?:{{.*}})? (\S+)", text, re.MULTILINE)]
        for name in ("queries", "hits")
    ]
    return (sum(found[0]), sum(found[1])) if all(found) else None


def prices(target: Target, given: dict[str, float | None], output_to_input_price: float) -> Prices | None:
    """Return the prices, those `given` on the command line before the stack's; None if the hourly price is unknown.

    Raises TargetError where others are given without the hour's.
    """
    outputs = target.outputs
    minutes = outputs.get("scaleDownMinutes")
    known: dict[str, Any] = {
        "usd_per_hour_active": target.usd_per_hour,
        "usd_per_hour_idle": outputs.get("usdPerHourIdle"),
        "usd_per_hour_replica": outputs.get("usdPerHourReplica"),
        "usd_per_cold_start": outputs.get("usdPerColdStart"),
        "scale_down_seconds": float(minutes) * 60 if minutes is not None else None,
        "replicas_in_active": max(1, int(outputs.get("minReplicas") or 1)),
        "priced_on": outputs.get("pricedOn"),
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    known |= chosen
    if known["usd_per_hour_active"] is None:
        if chosen:
            raise TargetError("prices are given, but not what an active hour costs; give --usd-per-hour, too")
        return None
    source = "the command line" if "usd_per_hour_active" in chosen else f"the outputs of stack {target.stack}"
    return Prices(source=source, output_to_input_price=output_to_input_price, **known)


def _config(target: Target) -> dict[str, Any] | None:
    # The configuration of another program's stack is not the endpoint's, and is not for a record.
    if target.stack is None or (target.identity and target.identity.endpoint):
        return None
    try:
        return read_config(target.stack)
    except (TargetError, ValueError):
        return None  # the outputs could be read; a record without the settings is still worth having


def _get(target: Target, path: str) -> dict[str, Any]:
    try:
        with sync_client(target, timeout=TIMEOUT_SECONDS) as http:
            answer = http.get(path)
        document = answer.json() if answer.status_code == 200 else {}
    except (httpx2.TransportError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
