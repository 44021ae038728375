"""Derives one line from the endpoint before and after, and from Pulumi's steps. Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Properties of an ECS service whose change starts a deployment, which replaces tasks. Other changes do not affect tasks.
DEPLOYS = frozenset({
    "taskDefinition", "networkConfiguration", "capacityProviderStrategies", "launchType", "loadBalancers",
    "platformVersion", "serviceRegistries", "serviceConnectConfiguration", "volumeConfiguration", "forceNewDeployment",
    "triggers", "cluster", "name",
})  # fmt: skip


@dataclass(frozen=True)
class Endpoint:
    """The endpoint from its users' perspective.

    Attributes:
        scheme: http or https.
        host: its domain; empty: the load balancer's DNS name.
        port: its port.
        models: names that clients may send as ``model``.
        clients: networks that may connect.
        weights: models and adapters fetched from the Hub, each with its revision.
        file_system: the adopted file system; empty: the stack's own.
        parts: a digest of its resources' names, which changes when a resource is added or removed.
    """

    scheme: str
    host: str
    port: int
    models: tuple[str, ...]
    clients: tuple[str, ...]
    weights: tuple[str, ...]
    file_system: str
    parts: str = ""

    def record(self) -> dict[str, Any]:
        """The endpoint as JSON, for Pulumi's state."""
        return {
            "scheme": self.scheme,
            "host": self.host,
            "port": self.port,
            "models": list(self.models),
            "clients": list(self.clients),
            "weights": list(self.weights),
            "fileSystem": self.file_system,
            "parts": self.parts,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Endpoint:
        """The endpoint from Pulumi's state; fields that an older version did not record are empty."""
        return cls(
            scheme=str(record.get("scheme", "")),
            host=str(record.get("host", "")),
            port=int(record.get("port", 0)),
            models=tuple(record.get("models", ())),
            clients=tuple(record.get("clients", ())),
            weights=tuple(record.get("weights", ())),
            file_system=str(record.get("fileSystem", "")),
            parts=str(record.get("parts", "")),
        )


@dataclass(frozen=True)
class Step:
    """Pulumi's operation on one resource: create (also for a replacement) or update."""

    op: str
    type: str
    name: str
    changed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Estimate:
    """Duration and cost of a fetch and a cold start.

    Attributes:
        cold_start_minutes: from no instance to the first token.
        fetch_minutes: to fetch all weights.
        fetch_usd: to fetch all weights, including the start afterwards.
        restarts_all: whether no replica serves requests during a rollout of the engine.
        keeps: whether a replaced file system is retained, and billed.
    """

    cold_start_minutes: int
    fetch_minutes: int
    fetch_usd: float
    restarts_all: bool
    keeps: bool


def describe(before: Endpoint, after: Endpoint, steps: Iterable[Step], estimate: Estimate) -> tuple[str, bool]:
    """How a change affects the endpoint's users: (the line, whether it is disruptive); empty if nothing changes for them."""
    steps = list(steps)
    if not steps and before == after:
        return "", False
    rolls = any(_rolls_out(step, "gateway") for step in steps)
    restarts = any(_rolls_out(step, "engine") or _unmounts(step) for step in steps)
    found = [*_weights(before, after, steps, estimate), *_address(before, after, steps), *_access(before, after, steps)]
    if restarts and estimate.restarts_all:
        found.append(f"a cold start (about {estimate.cold_start_minutes} minutes; requests are held meanwhile)")
    hurts = bool(found)
    if not found:
        found = ["a rollout without downtime"] if rolls or restarts else ["nothing"]
    return f"this changes for users of the endpoint: {'; '.join(found)}", hurts


def _weights(before: Endpoint, after: Endpoint, steps: Sequence[Step], estimate: Estimate) -> list[str]:
    cost = f"about {estimate.fetch_minutes} minutes and ${estimate.fetch_usd:.2f}"
    if after.file_system != before.file_system and after.file_system:
        found = [f"weights are read from {after.file_system} (missing ones are fetched: {cost})"]
        if not before.file_system and not estimate.keeps:
            found.append("the stack's own file system is deleted, with the weights on it")
        return found
    made = any(step.op == "create" and step.type in ("FileSystem", "PersistentVolumeClaim") for step in steps)
    if made:
        old = "; the old file system is retained, and billed until you delete it" if estimate.keeps else ""
        if before.file_system:
            old = f"; {before.file_system} is not changed"
        return [f"all weights are fetched again, to a new file system ({cost}{old})"]
    if fresh := [name for name in after.weights if name not in before.weights]:
        return [f"weights are fetched: {', '.join(fresh)} ({cost})"]
    return []


def _address(before: Endpoint, after: Endpoint, steps: Sequence[Step]) -> list[str]:
    replaced = any(
        step.op == "create" and (step.type == "LoadBalancer" or (step.type == "Service" and _kubernetes_front(step)))
        for step in steps
    )
    if replaced and not (before.host or after.host):
        found = ["another address: the load balancer is replaced, and its DNS name changes"]
        if (after.scheme, after.port) != (before.scheme, before.port):
            found = [f"another address: {_url(after)}, with a new DNS name of the load balancer"]
        return found
    if (after.scheme, after.host, after.port) != (before.scheme, before.host, before.port):
        return [f"another address: {_url(after)} instead of {_url(before)}"]
    if replaced:
        return [
            f"another load balancer behind {after.host}: open connections are closed, and new ones work within a minute"
        ]
    return []


def _url(endpoint: Endpoint) -> str:
    usual = {"http": 80, "https": 443}.get(endpoint.scheme)
    port = "" if endpoint.port == usual else f":{endpoint.port}"
    return f"{endpoint.scheme}://{endpoint.host or 'LOAD-BALANCER'}{port}"


def _access(before: Endpoint, after: Endpoint, steps: Sequence[Step]) -> list[str]:
    found = []
    if lost := [name for name in before.models if name not in after.models]:
        found.append(f"another model name: {', '.join(lost)} is no longer served; clients send {after.models[0]}")
    if shut := [cidr for cidr in before.clients if not any(_covers(wide, cidr) for wide in after.clients)]:
        found.append(f"{', '.join(shut)} can no longer connect")
    if any("api-keys" in step.name and _new_text(step) for step in steps):
        found.append("the API keys: keys no longer listed are rejected")
    return found


def _covers(wide: str, narrow: str) -> bool:
    if wide == narrow:
        return True
    try:
        outer, inner = ipaddress.ip_network(wide, strict=False), ipaddress.ip_network(narrow, strict=False)
    except ValueError:
        return False
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _rolls_out(step: Step, part: str) -> bool:
    """Whether a component's tasks or pods are replaced."""
    if step.name.rpartition("-")[2] != part:
        return False
    if step.type == "Service":  # of ECS; a Kubernetes Service does not own pods
        return (
            step.op == "create"
            or bool(step.changed & DEPLOYS)
            or (part == "gateway" and "desiredCount" in step.changed)
        )
    return step.type == "Deployment" and (step.op == "create" or "spec" in step.changed)


def _new_text(step: Step) -> bool:
    """Whether a secret's value changes: its version in AWS, its data in Kubernetes."""
    return step.type == "SecretVersion" or (step.type == "Secret" and bool(step.changed & {"data", "stringData"}))


def _unmounts(step: Step) -> bool:
    return step.op == "create" and step.type in ("AccessPoint", "MountTarget")


def _kubernetes_front(step: Step) -> bool:
    return step.name == "gateway" or step.name.endswith("-gateway")
