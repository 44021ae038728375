"""Settings of the three backends: discovery of replicas, starting the first one, and the source of API keys."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Address = tuple[str, int]
"""Host (a name or an IP) and port of one engine replica."""

_KUBERNETES = re.compile(r"([a-z0-9-]{1,63})/([a-z0-9.-]{1,253})")


@dataclass(frozen=True, slots=True)
class FixedDiscovery:
    """Replicas at addresses that never change."""

    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class DnsDiscovery:
    """Replicas at every A record of a name, all on one port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class FileDiscovery:
    """Replicas at the addresses in a file, which the process that starts and stops them keeps up to date."""

    path: Path


@dataclass(frozen=True, slots=True)
class FixedCapacity:
    """Another process or an operator decides how many replicas run."""


@dataclass(frozen=True, slots=True)
class EcsCapacity:
    """Replicas are tasks of an ECS service on instances of an Auto Scaling group."""

    cluster: str
    service: str
    auto_scaling_group: str


@dataclass(frozen=True, slots=True)
class NoKeys:
    """Every request is accepted."""


@dataclass(frozen=True, slots=True)
class InlineKeys:
    """A keys document from an environment variable."""

    document: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileKeys:
    """A keys document in a file, reloaded when it changes."""

    path: Path


@dataclass(frozen=True, slots=True)
class SecretsManagerKeys:
    """A keys document in AWS Secrets Manager, reloaded every minute."""

    secret_id: str


@dataclass(frozen=True, slots=True)
class KubernetesCapacity:
    """Replicas are the pods of a Deployment, scaled through the API server."""

    namespace: str
    deployment: str


@dataclass(frozen=True, slots=True)
class LocalCapacity:
    """The replica is a process on this machine, started by a local runner; see docs/gateway.md."""

    runner: Address


DiscoverySetting = FixedDiscovery | DnsDiscovery | FileDiscovery
CapacitySetting = FixedCapacity | EcsCapacity | KubernetesCapacity | LocalCapacity
KeysSetting = NoKeys | InlineKeys | FileKeys | SecretsManagerKeys


def address(url: str) -> Address:
    """Host and port of `http://HOST:PORT`; raises ValueError."""
    parts = urllib.parse.urlsplit(url.strip())
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError(f"{url!r} is not of the form http://HOST:PORT")
    return parts.hostname, parts.port or 80


def discovery(value: str) -> DiscoverySetting:
    """`fixed:http://HOST:PORT,...`, `dns:NAME:PORT` or `file:/PATH`; raises ValueError."""
    kind, _, rest = value.partition(":")
    if kind == "fixed" and rest:
        return FixedDiscovery(tuple(dict.fromkeys(address(url) for url in rest.split(","))))
    host, _, port = rest.rpartition(":")
    if kind == "dns" and host and port.isdigit() and 0 < int(port) < 65536:
        return DnsDiscovery(host, int(port))
    if kind == "file" and rest:
        return FileDiscovery(Path(rest))
    raise ValueError(f"{value!r} is neither fixed:http://HOST:PORT[,http://HOST:PORT...], dns:NAME:PORT nor file:/PATH")


def capacity(value: str) -> CapacitySetting:
    """`fixed`, `ecs:...`, `kubernetes:...` or `local:...`; raises ValueError."""
    kind, _, rest = value.partition(":")
    if value == "fixed":
        return FixedCapacity()
    # The name of an Auto Scaling group may contain slashes; the names of clusters and services may not.
    names = rest.split("/", 2)
    if kind == "ecs" and len(names) == 3 and all(names):
        return EcsCapacity(*names)
    if kind == "kubernetes" and (match := _KUBERNETES.fullmatch(rest)):
        return KubernetesCapacity(match[1], match[2])
    if kind == "local" and rest:
        return LocalCapacity(address(rest))
    raise ValueError(
        f"{value!r} is neither fixed, ecs:CLUSTER/SERVICE/AUTO_SCALING_GROUP, kubernetes:NAMESPACE/DEPLOYMENT nor "
        "local:http://HOST:PORT"
    )


def keys(value: str, environment: Mapping[str, str]) -> KeysSetting:
    """`none`, `env:VARIABLE`, `file:/PATH` or `secretsmanager:ARN`; raises ValueError, without the value."""
    kind, _, rest = value.partition(":")
    if value == "none":
        return NoKeys()
    if kind == "env" and rest:
        if not environment.get(rest):
            raise ValueError(f"names the variable {rest}, which is unset or empty")
        return InlineKeys(environment[rest])
    if kind == "file" and rest:
        return FileKeys(Path(rest))
    if kind == "secretsmanager" and rest:
        return SecretsManagerKeys(rest)
    # Never print the value: it may be a key that was set in place of its source.
    raise ValueError("is not none, env:VARIABLE, file:/PATH or secretsmanager:ARN")
