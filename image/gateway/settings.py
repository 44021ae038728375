"""The gateway's settings: the environment variables GATEWAY_*, read once. All problems are reported together."""

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
    """The environment is invalid; `problems` has one line per problem."""

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
    """A value that needs no tuning: it is not read from the environment, and only tests change it."""
    return field(default=value)


def _setting(parse: Callable[[str], Any], default: Any = MISSING) -> Any:
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The gateway's settings. Field `x` is the environment variable GATEWAY_X, in the unit of its name. Constants have no
    variable.
    """

    model: str = _setting(_text)
    """The name under which the model is served; always listed in /v1/models. Requests may use this name and those in
    `aliases` and `adapters`."""
    aliases: tuple[str, ...] = _setting(_names, ())
    """Other names of the same model, separated by commas. All of them are listed and accepted."""
    adapters: tuple[str, ...] = _setting(_names, ())
    """Names of the LoRA adapters that the engine serves, separated by commas."""
    media_hosts: tuple[str, ...] = _setting(_names, ())
    """Hosts from which the engine may fetch images in addition to public hosts, separated by commas."""
    discovery: DiscoverySetting = _setting(backends.discovery)  # noqa: RUF009 - a dataclass field
    """How replicas are discovered: `fixed:http://HOST:PORT,...`, `dns:NAME:PORT` or `file:/PATH`."""
    capacity: CapacitySetting = _setting(backends.capacity, FixedCapacity())  # noqa: RUF009 - a dataclass field
    """What starts the first replica: `fixed` (nothing), `ecs:CLUSTER/SERVICE/AUTO_SCALING_GROUP`,
    `kubernetes:NAMESPACE/DEPLOYMENT` or `local:http://HOST:PORT`."""
    keys: KeysSetting = _setting(_text, NoKeys())  # noqa: RUF009 - a dataclass field
    """The source of API keys: `none`, `env:VARIABLE`, `file:/PATH`, `secretsmanager:ARN`; see `keys`."""
    allowed_origins: tuple[str, ...] = _setting(cors.parse_origins, ())
    """Origins whose pages may use the endpoint from a browser, separated by commas, such as `https://app.example.com`; `*`
    allows all."""
    info: dict[str, Any] = field(default_factory=dict, metadata={"parse": _json_object})
    """JSON object that /info returns in addition to the gateway's own state. It is readable without a key."""

    chat_page: bool = _setting(_switch, False)
    """1: serve a chat page at `/`. `make local` sets it; deployments do not."""

    host: str = _setting(_host, "0.0.0.0")  # noqa: S104 - a container's port is published by its network
    port: int = _setting(_whole(1, 65535), 8080)
    metrics_port: int = _setting(_whole(1, 65535), 9090)

    count: int = _setting(_whole(1, 1000), 1)
    """Number of gateways that share the engine. Each applies its share of the common limits."""
    trusted_proxies: tuple[Network, ...] = _setting(_networks, ())
    """Networks of the load balancers whose X-Forwarded-For is trusted, e.g. `10.0.0.0/16`."""

    concurrency_per_replica: int = _setting(_whole(1, 100_000), 16)
    """Requests in flight to one replica from all gateways; further requests are queued."""
    max_queued_requests: int = _setting(_whole(0, 1_000_000), 256)
    """Requests waiting for a free slot or for a cold engine; above the limit, 429."""
    max_queued_per_slot: float = _setting(_number(0, 1000), 0.25)
    """Requests waiting while a replica is ready, as a multiple of the ready replicas' slots; above the limit, 429. With
    0.25, no request waits longer than about a quarter of an average response. 0: only max_queued_requests applies, which
    is the default if max_queued_requests is set.
    """
    max_queued_bytes: int = _setting(_whole(0, 1 << 40), 64 << 20)
    """Bytes of the bodies of requests that are waiting or being received; above the limit, 429."""
    max_body_bytes: int = _setting(_whole(1, 1 << 34), 20 << 20)
    """Above the limit, 413."""
    max_json_depth: int = _constant(100)
    """Nested arrays and objects in a body; above the limit, 400."""
    max_tokens: int = _setting(_whole(0, 1 << 31), 0)
    """The most tokens that a request may ask for; above the limit, 400. Added to requests without a limit. 0: no cap."""
    max_header_bytes: int = _setting(_whole(1024, 1 << 20), 64 << 10)
    """Request line and headers together; above the limit, 431."""

    header_timeout_seconds: float = _setting(_seconds(0.01, 3600), 20.0)
    """From the first byte of a request (or from opening the connection) to the end of its headers; then, 408."""
    body_timeout_seconds: float = _setting(_seconds(0.01, 3600), 120.0)
    """From the end of the headers to the end of the body; then, 408."""
    stalled_reader_seconds: float = _setting(_seconds(0.01, 3600), 60.0)
    """A client that reads nothing of its answer for this long is disconnected."""
    keep_alive_seconds: int = _setting(_whole(1, 100_000), 4000)
    """Timeout of idle client connections; must be longer than the load balancer's idle timeout."""
    hold_timeout_seconds: float = _setting(_seconds(0.01, 86_400), 900.0)
    """How long a streaming request waits for a replica; then, 503."""
    hold_timeout_nonstream_seconds: float = _setting(_seconds(0.01, 86_400), 840.0)
    """The same for non-streaming requests; must be shorter than the load balancer's idle timeout."""
    request_timeout_seconds: float = _setting(_seconds(0.01, 86_400), 3600.0)
    """From a slot on a replica to the end of the answer; then, 504."""
    request_timeout_nonstream_seconds: float = _setting(_seconds(0.01, 86_400), 3600.0)
    """For non-streaming requests, from arrival to the end of the answer, including the wait; then, 504. Must be shorter than
    the load balancer's idle timeout, because no byte is sent until then.
    """
    connect_timeout_seconds: float = _constant(3.0)
    sse_comment_seconds: float = _setting(_seconds(0.01, 3600), 15.0)
    """An idle stream is sent a comment line at this interval."""

    discovery_seconds: float = _setting(_seconds(0.01, 600), 2.0)
    """Interval between discoveries."""
    probe_seconds: float = _setting(_seconds(0.01, 60), 1.0)
    """Interval between probes of each replica's /health."""
    probe_timeout_seconds: float = _constant(5.0)
    eject_after_failures: int = _constant(5)
    """Consecutive failed requests after which a replica is ejected, even if its /health succeeds."""
    eject_seconds: float = _constant(10.0)
    """Duration of the first ejection; each further one is twice as long, up to 300."""
    keys_reload_seconds: float = _setting(_seconds(0.01, 3600), 0.0)
    """Interval between reloads of the keys. 0, the default, means 2 for a file and 60 for Secrets Manager."""

    drain_delay_seconds: float = _setting(_seconds(0, 600), 0.0)
    """After SIGTERM: how long requests are still accepted while readiness fails, so that load balancers notice."""
    drain_timeout_seconds: float = _setting(_seconds(0, 3600), 100.0)
    """From SIGTERM until running requests are aborted with an error."""

    emf_namespace: str = _setting(_text, "")
    """If set, demand is also written as CloudWatch embedded metrics in this namespace."""
    stack: str = _setting(_text, "")
    """Value of the embedded metrics' dimension Stack."""

    @property
    def concurrency_share(self) -> int:
        """This gateway's share of the requests in flight to one replica."""
        return max(1, self.concurrency_per_replica // self.count)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings from the variables GATEWAY_*; raises SettingsError with all problems."""
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
                f"GATEWAY_MODEL, GATEWAY_ALIASES and GATEWAY_ADAPTERS contain {name!r} twice; set each name once"
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
