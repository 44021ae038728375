"""The gateway's settings: environment variables GATEWAY_*, read once, every problem reported at once."""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

Address = tuple[str, int]
"""Host (a name or an IP) and port of one engine replica."""

# Kubernetes sets GATEWAY_PORT=tcp://... in every pod of a namespace that has a Service called "gateway".
_SERVICE_LINK = "; Kubernetes made this from a Service called gateway: set enableServiceLinks: false in the pod"


class SettingsError(ValueError):
    """The environment does not make a gateway; `problems` says everything that is wrong with it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


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
class FixedCapacity:
    """Somebody else decides how many replicas run."""


@dataclass(frozen=True, slots=True)
class EcsCapacity:
    """Replicas are tasks of an ECS service on instances of an auto scaling group."""

    cluster: str
    service: str
    auto_scaling_group: str


@dataclass(frozen=True, slots=True)
class NoKeys:
    """Every request is let in."""


@dataclass(frozen=True, slots=True)
class InlineKeys:
    """A keys document that was in an environment variable."""

    document: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileKeys:
    """A keys document in a file, read again when it changes."""

    path: Path


@dataclass(frozen=True, slots=True)
class SecretsManagerKeys:
    """A keys document in AWS Secrets Manager, read again every minute."""

    secret_id: str


DiscoverySetting = FixedDiscovery | DnsDiscovery
CapacitySetting = FixedCapacity | EcsCapacity
KeysSetting = NoKeys | InlineKeys | FileKeys | SecretsManagerKeys


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"\d{1,18}", value) or not low <= int(value) <= high:
            raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
        return int(value)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value) or not low <= float(value) <= high:
            raise ValueError(f"{value!r} is not a number of seconds from {low:g} to {high:g}")
        return float(value)

    return parse


def _json_object(value: str) -> dict[str, Any]:
    try:
        document = json.loads(value)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise ValueError('is not a JSON object; set e.g. {"gpu": "A10G"}')
    return document


def _address(url: str) -> Address:
    parts = urllib.parse.urlsplit(url.strip())
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError(f"{url!r} is not of the form http://HOST:PORT")
    return parts.hostname, parts.port or 80


def _discovery(value: str) -> DiscoverySetting:
    kind, _, rest = value.partition(":")
    if kind == "fixed" and rest:
        return FixedDiscovery(tuple(dict.fromkeys(_address(url) for url in rest.split(","))))
    host, _, port = rest.rpartition(":")
    if kind == "dns" and host and port.isdigit() and 0 < int(port) < 65536:
        return DnsDiscovery(host, int(port))
    raise ValueError(f"{value!r} is neither fixed:http://HOST:PORT[,http://HOST:PORT...] nor dns:NAME:PORT")


def _capacity(value: str) -> CapacitySetting:
    kind, _, rest = value.partition(":")
    if value == "fixed":
        return FixedCapacity()
    # An auto scaling group's name may hold slashes; a cluster's and a service's may not.
    names = rest.split("/", 2)
    if kind == "ecs" and len(names) == 3 and all(names):
        return EcsCapacity(*names)
    raise ValueError(f"{value!r} is neither fixed nor ecs:CLUSTER/SERVICE/AUTO_SCALING_GROUP")


def _keys(value: str, environment: Mapping[str, str]) -> KeysSetting:
    kind, _, rest = value.partition(":")
    if value == "none":
        return NoKeys()
    if kind == "env" and rest:
        if not environment.get(rest):
            raise ValueError(f"names the variable {rest}, which is not set or empty")
        return InlineKeys(environment[rest])
    if kind == "file" and rest:
        return FileKeys(Path(rest))
    if kind == "secretsmanager" and rest:
        return SecretsManagerKeys(rest)
    # Never the value itself: a person may have put the key where its source belongs.
    raise ValueError("is none of: none, env:VARIABLE, file:/PATH, secretsmanager:ARN")


def _host(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"{value!r} is not an IP address to listen on; set 0.0.0.0, 127.0.0.1 or ::") from None


def _setting(parse: Callable[[str], Any], default: Any = MISSING) -> Any:
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the gateway was told. Field `x` is the environment variable GATEWAY_X, in the unit of its name."""

    model: str = _setting(_text)
    """Name the model is served under; always listed in /v1/models, and the only one a body may name."""
    discovery: DiscoverySetting = _setting(_discovery)  # noqa: RUF009 - a dataclass field
    """Where replicas are found: `fixed:http://HOST:PORT,...` or `dns:NAME:PORT`."""
    capacity: CapacitySetting = _setting(_capacity, FixedCapacity())  # noqa: RUF009 - a dataclass field
    """What starts the first replica: `fixed` (nothing) or `ecs:CLUSTER/SERVICE/AUTO_SCALING_GROUP`."""
    keys: KeysSetting = _setting(_text, NoKeys())  # noqa: RUF009 - a dataclass field
    """Where API keys come from: `none`, `env:VARIABLE`, `file:/PATH`, `secretsmanager:ARN`; see `keys`."""
    info: dict[str, Any] = field(default_factory=dict, metadata={"parse": _json_object})
    """JSON object shown at /info beside what the gateway knows itself. Anybody may read it."""

    host: str = _setting(_host, "0.0.0.0")  # noqa: S104 - a container's port is published by its network
    port: int = _setting(_whole(1, 65535), 8080)
    metrics_port: int = _setting(_whole(1, 65535), 9090)

    concurrency_per_replica: int = _setting(_whole(1, 100_000), 16)
    """Requests in flight to one replica from this gateway; the rest wait here."""
    max_queued_requests: int = _setting(_whole(0, 1_000_000), 256)
    """Requests waiting, for a free slot or for a cold engine; beyond it, 429."""
    max_queued_bytes: int = _setting(_whole(0, 1 << 40), 64 << 20)
    """Bytes of body held for those that wait and for those still being received; beyond it, 429."""
    max_body_bytes: int = _setting(_whole(1, 1 << 34), 20 << 20)
    """Beyond it, 413."""
    max_header_bytes: int = _setting(_whole(1024, 1 << 20), 64 << 10)
    """Request line and headers together; beyond it, 431."""

    header_timeout_seconds: float = _setting(_seconds(0.01, 3600), 20.0)
    """From the first byte of a request (or the opening of a connection) to the end of its headers."""
    body_timeout_seconds: float = _setting(_seconds(0.01, 3600), 120.0)
    """From the end of the headers to the end of the body; beyond it, 408."""
    stalled_reader_seconds: float = _setting(_seconds(0.01, 3600), 60.0)
    """A client that takes nothing of its answer for so long is disconnected."""
    keep_alive_seconds: int = _setting(_whole(1, 100_000), 4000)
    """Idle connections from clients; must outlast the load balancer's idle timeout."""
    hold_timeout_seconds: float = _setting(_seconds(0.01, 86_400), 900.0)
    """How long a streaming request waits for a replica; beyond it, 503."""
    hold_timeout_nonstream_seconds: float = _setting(_seconds(0.01, 86_400), 840.0)
    """The same for all others; must be below the load balancer's idle timeout."""
    request_timeout_seconds: float = _setting(_seconds(0.01, 86_400), 3600.0)
    """From a slot on a replica to the end of the answer; beyond it, 504."""
    connect_timeout_seconds: float = _setting(_seconds(0.01, 60), 3.0)
    sse_comment_seconds: float = _setting(_seconds(0.01, 3600), 15.0)
    """How often a waiting stream is sent a comment line."""

    discovery_seconds: float = _setting(_seconds(0.01, 600), 2.0)
    """How often discovery is asked for addresses."""
    probe_seconds: float = _setting(_seconds(0.01, 60), 1.0)
    """How often each replica's /health is asked."""
    probe_timeout_seconds: float = _setting(_seconds(0.01, 60), 5.0)
    keys_reload_seconds: float = _setting(_seconds(0.01, 3600), 0.0)
    """How often keys are read again; 0, the default: 2 for a file, 60 for Secrets Manager."""

    drain_delay_seconds: float = _setting(_seconds(0, 600), 0.0)
    """After SIGTERM: time for a load balancer to see the failing readiness while requests are still taken."""
    drain_timeout_seconds: float = _setting(_seconds(0, 3600), 100.0)
    """From SIGTERM to the end of what still runs; then it is ended with an error."""

    emf_namespace: str = _setting(_text, "")
    """When set, demand is also printed as CloudWatch embedded metrics in this namespace."""
    stack: str = _setting(_text, "")
    """Value of the embedded metrics' dimension Stack."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from the variables GATEWAY_*; raises SettingsError with every problem found."""
        values: dict[str, Any] = {}
        problems = []
        known = {f"GATEWAY_{f.name.upper()}": f for f in fields(cls)}
        for variable, setting in known.items():
            value = environment.get(variable)
            if not value:
                if setting.default is MISSING and setting.default_factory is MISSING:
                    problems.append(f"{variable} is not set; {_EXAMPLES[setting.name]}")
                continue
            try:
                if setting.name == "keys":
                    values["keys"] = _keys(value, environment)
                else:
                    values[setting.name] = setting.metadata["parse"](value)
            except ValueError as error:
                link = _SERVICE_LINK if value.startswith("tcp://") else ""
                problems.append(f"{variable} {error}{link}")
        keys_variable = environment.get("GATEWAY_KEYS", "").removeprefix("env:")
        for variable in sorted(environment):
            if variable.startswith("GATEWAY_") and variable not in known and variable != keys_variable:
                close = difflib.get_close_matches(variable, known, 1)
                problems.append(f"{variable} is not a setting" + (f"; meant {close[0]}?" if close else ""))
        if values.get("emf_namespace") and not values.get("stack"):
            problems.append("GATEWAY_EMF_NAMESPACE is set without GATEWAY_STACK; set both or neither")
        if values.get("port", 8080) == values.get("metrics_port", 9090):
            problems.append(
                f"GATEWAY_PORT and GATEWAY_METRICS_PORT are both {values.get('port', 8080)}; set two different ports"
            )
        if problems:
            raise SettingsError(problems)
        return cls(**values)


_EXAMPLES = {
    "model": "set the name to serve the model under, e.g. Qwen/Qwen3-4B-Instruct-2507",
    "discovery": "set e.g. fixed:http://127.0.0.1:8000 or dns:engine.example.local:8000",
}
