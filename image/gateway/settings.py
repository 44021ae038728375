"""The gateway's settings: environment variables GATEWAY_*, read once, every problem reported at once."""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from image.gateway import backends, cors
from image.gateway.backends import CapacitySetting, DiscoverySetting, FixedCapacity, KeysSetting, NoKeys

# Kubernetes sets GATEWAY_PORT=tcp://... in every pod of a namespace that has a Service called "gateway".
_SERVICE_LINK = "; Kubernetes made this from a Service called gateway: set enableServiceLinks: false in the pod"


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(ValueError):
    """The environment does not make a gateway; `problems` says everything that is wrong with it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


def _names(value: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in value.split(","))
    if not all(names):
        raise ValueError(f"{value!r} has an empty name; set names separated by commas")
    return names


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


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value) or not low <= float(value) <= high:
            raise ValueError(f"{value!r} is not a number from {low:g} to {high:g}")
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


def _networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in value.split(","))
    except ValueError as error:
        raise ValueError(f"{value!r} is not networks like 10.0.0.0/16,fd00::/8 ({error})") from None


def _host(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"{value!r} is not an IP address to listen on; set 0.0.0.0, 127.0.0.1 or ::") from None


def _switch(value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError(f"{value!r} is neither 0 nor 1")
    return value == "1"


def _constant(value: Any) -> Any:
    """Nobody should have to tune it: not read from the environment, shortened by tests alone."""
    return field(default=value)


def _setting(parse: Callable[[str], Any], default: Any = MISSING) -> Any:
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the gateway was told. Field `x` is the environment variable GATEWAY_X, in the unit of its name; constants are
    not variables.
    """

    model: str = _setting(_text)
    """Name the model is served under; always listed in /v1/models. A body may name this one, and those of `aliases` and
    `adapters`."""
    aliases: tuple[str, ...] = _setting(_names, ())
    """Other names of the same model, separated by commas, each listed and accepted."""
    adapters: tuple[str, ...] = _setting(_names, ())
    """Names of LoRA adapters that the engine serves beside the model, separated by commas."""
    media_hosts: tuple[str, ...] = _setting(_names, ())
    """Hosts beside the public ones that the engine may fetch pictures from, separated by commas."""
    discovery: DiscoverySetting = _setting(backends.discovery)  # noqa: RUF009 - a dataclass field
    """Where replicas are found: `fixed:http://HOST:PORT,...` or `dns:NAME:PORT`."""
    capacity: CapacitySetting = _setting(backends.capacity, FixedCapacity())  # noqa: RUF009 - a dataclass field
    """What starts the first replica: `fixed` (nothing), `ecs:CLUSTER/SERVICE/AUTO_SCALING_GROUP`,
    `kubernetes:NAMESPACE/DEPLOYMENT` or `local:http://HOST:PORT`."""
    keys: KeysSetting = _setting(_text, NoKeys())  # noqa: RUF009 - a dataclass field
    """Where API keys come from: `none`, `env:VARIABLE`, `file:/PATH`, `secretsmanager:ARN`; see `keys`."""
    allowed_origins: tuple[str, ...] = _setting(cors.parse_origins, ())
    """Origins whose web pages may use the endpoint from a browser, separated by commas: `https://app.example.com`; `*`: all."""
    info: dict[str, Any] = field(default_factory=dict, metadata={"parse": _json_object})
    """JSON object shown at /info beside what the gateway knows itself. Anybody may read it."""

    chat_page: bool = _setting(_switch, False)
    """1: serve a chat page at `/`. `make local` sets it; no deployed gateway does."""

    host: str = _setting(_host, "0.0.0.0")  # noqa: S104 - a container's port is published by its network
    port: int = _setting(_whole(1, 65535), 8080)
    metrics_port: int = _setting(_whole(1, 65535), 9090)

    count: int = _setting(_whole(1, 1000), 1)
    """How many gateways share the engine. Each takes its share of what holds for all of them together."""
    trusted_proxies: tuple[Network, ...] = _setting(_networks, ())
    """Networks of the load balancers, e.g. `10.0.0.0/16`: whose X-Forwarded-For is believed."""

    concurrency_per_replica: int = _setting(_whole(1, 100_000), 16)
    """Requests in flight to one replica from all gateways; the rest wait here."""
    max_queued_requests: int = _setting(_whole(0, 1_000_000), 256)
    """Requests waiting, for a free slot or for a cold engine; beyond it, 429."""
    max_queued_per_slot: float = _setting(_number(0, 1000), 0.25)
    """Requests waiting while a replica is ready, as a multiple of the ready replicas' slots; beyond it, 429. A queue of
    0.25 lets nobody wait for longer than about a quarter of an answer. 0: only max_queued_requests, and so it is where
    that is set and this is not.
    """
    max_queued_bytes: int = _setting(_whole(0, 1 << 40), 64 << 20)
    """Bytes of body held for those that wait and for those still being received; beyond it, 429."""
    max_body_bytes: int = _setting(_whole(1, 1 << 34), 20 << 20)
    """Beyond it, 413."""
    max_json_depth: int = _constant(100)
    """Arrays and objects within one another in a body; beyond it, 400."""
    max_tokens: int = _setting(_whole(0, 1 << 31), 0)
    """Most tokens a request may ask for; beyond it, 400. Put into a request that names none. 0: no cap."""
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
    request_timeout_nonstream_seconds: float = _setting(_seconds(0.01, 86_400), 3600.0)
    """For all requests but streams, from their arrival to the end of the answer, waiting included; must be below the load
    balancer's idle timeout, because no byte flows until then. Beyond it, 504.
    """
    connect_timeout_seconds: float = _constant(3.0)
    sse_comment_seconds: float = _setting(_seconds(0.01, 3600), 15.0)
    """A stream that has been silent for so long is sent a comment line."""

    discovery_seconds: float = _setting(_seconds(0.01, 600), 2.0)
    """How often discovery is asked for addresses."""
    probe_seconds: float = _setting(_seconds(0.01, 60), 1.0)
    """How often each replica's /health is asked."""
    probe_timeout_seconds: float = _constant(5.0)
    eject_after_failures: int = _constant(5)
    """Failed requests in a row after which a replica is left out, well as its /health may be."""
    eject_seconds: float = _constant(10.0)
    """For how long, the first time; twice as long each time after, up to 300."""
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

    @property
    def concurrency_share(self) -> int:
        """Requests in flight to one replica from this gateway alone, so that all together keep the limit."""
        return max(1, self.concurrency_per_replica // self.count)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from the variables GATEWAY_*; raises SettingsError with every problem found."""
        values: dict[str, Any] = {}
        problems = []
        known = {f"GATEWAY_{f.name.upper()}": f for f in fields(cls) if f.metadata}
        for variable, setting in known.items():
            value = environment.get(variable)
            if not value:
                if setting.default is MISSING and setting.default_factory is MISSING:
                    problems.append(f"{variable} is not set; {_EXAMPLES[setting.name]}")
                continue
            try:
                if setting.name == "keys":
                    values["keys"] = backends.keys(value, environment)
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
        if values.get("allowed_origins") == (cors.EVERY_ORIGIN,) and isinstance(values.get("keys", NoKeys()), NoKeys):
            problems.append(
                "GATEWAY_ALLOWED_ORIGINS is * without keys, so that any web page could use this endpoint through its "
                "visitors' browsers; set GATEWAY_KEYS, or name the origins"
            )
        names = [values.get("model"), *values.get("aliases", ()), *values.get("adapters", ())]
        for name in sorted({name for name in names if name and names.count(name) > 1}):
            problems.append(
                f"GATEWAY_MODEL, GATEWAY_ALIASES and GATEWAY_ADAPTERS hold {name!r} twice; set each name once"
            )
        if "max_queued_requests" in values:
            values.setdefault("max_queued_per_slot", 0.0)
        if problems:
            raise SettingsError(problems)
        return cls(**values)


_EXAMPLES = {
    "model": "set the name to serve the model under, e.g. Qwen/Qwen3-4B-Instruct-2507",
    "discovery": "set e.g. fixed:http://127.0.0.1:8000 or dns:engine.example.local:8000",
}
