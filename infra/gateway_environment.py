"""``gatewayEnvironment``: gateway settings that are passed through unchanged, validated by the gateway's own parser."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from image.gateway.settings import Settings as GatewaySettings
from image.gateway.settings import SettingsError as GatewaySettingsError

# Variables that the plan and the targets set, by the stack's setting that each is derived from; "" if there is no setting.
SET_BY_THE_STACK: Mapping[str, str] = {
    "AWS_REGION": "aws:region",
    "GATEWAY_ADAPTERS": "loraAdapters",
    "GATEWAY_ALIASES": "servedModelName",
    "GATEWAY_ALLOWED_ORIGINS": "allowedOrigins",
    "GATEWAY_CAPACITY": "",
    "GATEWAY_CHAT_PAGE": "",
    "GATEWAY_CONCURRENCY_PER_REPLICA": "concurrencyPerReplica",
    "GATEWAY_COUNT": "gatewayCount",
    "GATEWAY_DISCOVERY": "",
    "GATEWAY_DRAIN_DELAY_SECONDS": "",
    "GATEWAY_DRAIN_TIMEOUT_SECONDS": "",
    "GATEWAY_EMF_NAMESPACE": "",
    "GATEWAY_HOLD_TIMEOUT_NONSTREAM_SECONDS": "startupTimeoutMinutes",
    "GATEWAY_HOLD_TIMEOUT_SECONDS": "startupTimeoutMinutes",
    "GATEWAY_HOST": "",
    "GATEWAY_INFO": "",
    "GATEWAY_KEEP_ALIVE_SECONDS": "startupTimeoutMinutes",
    "GATEWAY_KEYS": "apiKeys or apiKeysDocument",
    "GATEWAY_MEDIA_HOSTS": "mediaHosts",
    "GATEWAY_METRICS_PORT": "",
    "GATEWAY_MODEL": "servedModelName",
    "GATEWAY_PORT": "",
    "GATEWAY_REQUEST_TIMEOUT_NONSTREAM_SECONDS": "",
    "GATEWAY_STACK": "",
    "GATEWAY_TRUSTED_PROXIES": "",
}
# Anyone with permission to describe the task definition or pod could read it there.
_CREDENTIAL = re.compile(
    r"OTEL_EXPORTER_OTLP_(\w+_)?HEADERS|\w*(SECRET|PASSWORD|TOKEN|API_KEY|ACCESS_KEY\w*)", re.IGNORECASE
)
_OTLP_PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
_OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# The minimum of a valid gateway configuration; the real values are known only when the target is deployed.
_SAMPLE = {"GATEWAY_MODEL": "model", "GATEWAY_DISCOVERY": "dns:engine:8000", "GATEWAY_KEYS": "file:/run/keys"}


def variables(pairs: Sequence[str]) -> dict[str, str]:
    """NAME=value pairs by name."""
    return dict(pair.split("=", 1) for pair in pairs)


def problems(pairs: Sequence[str]) -> Iterator[str]:
    """The problems in ``gatewayEnvironment``, one line each, with what to set instead; credentials are never included."""
    names = [pair.split("=", 1)[0] for pair in pairs]
    passed = {}
    for name, value in variables(pairs).items():
        if names.count(name) > 1:
            yield f"gatewayEnvironment: found {name} twice. Set it once"
        elif name in SET_BY_THE_STACK:
            setting = SET_BY_THE_STACK[name]
            advice = f"Set {setting} instead" if setting else "Remove it"
            yield f"gatewayEnvironment: found {name}, which the stack sets itself. {advice}"
        elif name.startswith("GATEWAY_"):
            passed[name] = value
        elif _CREDENTIAL.fullmatch(name):
            yield (
                f"gatewayEnvironment: found {name}, a credential, which would be stored in plain text. Set "
                "OTEL_EXPORTER_OTLP_ENDPOINT to a collector in your network that adds it, and API keys with apiKeysDocument"
            )
        elif name in _OTLP_PROTOCOLS and value != "http/protobuf":
            yield f"gatewayEnvironment: found {name}={value}, but the gateway exports traces over HTTP only. Set {name}=http/protobuf, and the collector's port for it (4318)"
        elif name in _OTLP_ENDPOINTS and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", value):
            yield f"gatewayEnvironment: found {name}={value}, which is not an http(s) URL without credentials. Set for example {name}=http://collector.internal:4318"
    try:
        GatewaySettings.from_environment(_SAMPLE | passed)
    except GatewaySettingsError as error:
        for problem in error.problems:
            unknown = " is not a setting" in problem
            advice = (
                "Set a name of image/gateway/settings.py" if unknown else "Set another value, or none for the default"
            )
            yield f"gatewayEnvironment: {problem}. {advice}".replace("?.", "?")
    for name in sorted(passed):
        if not passed[name]:
            yield f"gatewayEnvironment: {name} is empty. Set a value, or remove it for the gateway's default"
