"""The gateway's settings from a stack file: each is rendered, configurable or constant, and the result is a valid gateway."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from image.gateway import keys_document
from image.gateway.limits import Key, Limits
from image.gateway.settings import Settings as GatewaySettings
from infra.errors import SettingsError
from infra.gateway_environment import SET_BY_THE_STACK
from infra.settings_problems import parse_settings
from tests.infra.kubernetes.rendering import render
from tests.infra.planning.plans import argument, plan
from tests.infra.program import run_program

EVERYTHING: dict[str, Any] = {
    "servedModelName": "chat, gpt-4o ,ours/chat",
    "loraAdapters": ["sql=acme/sql"],
    "mediaHosts": ["media.internal"],
    "allowedOrigins": ["https://app.example.com", "http://localhost:5173"],
    "gatewayEnvironment": ["GATEWAY_MAX_TOKENS=900", "OTEL_EXPORTER_OTLP_ENDPOINT=http://otel.internal:4318", "TZ=UTC"],
}
# Every setting that a stack file reaches by gatewayEnvironment, and a value that is not its default.
REACHABLE = {
    "GATEWAY_BODY_TIMEOUT_SECONDS": "60",
    "GATEWAY_DISCOVERY_SECONDS": "1",
    "GATEWAY_HEADER_TIMEOUT_SECONDS": "10",
    "GATEWAY_KEYS_RELOAD_SECONDS": "30",
    "GATEWAY_MAX_BODY_BYTES": "1000000",
    "GATEWAY_MAX_HEADER_BYTES": "32768",
    "GATEWAY_MAX_QUEUED_BYTES": "1000000",
    "GATEWAY_MAX_QUEUED_PER_SLOT": "0.5",
    "GATEWAY_MAX_QUEUED_REQUESTS": "64",
    "GATEWAY_MAX_TOKENS": "900",
    "GATEWAY_PROBE_SECONDS": "2",
    "GATEWAY_REQUEST_TIMEOUT_SECONDS": "1200",
    "GATEWAY_SSE_COMMENT_SECONDS": "5",
    "GATEWAY_STALLED_READER_SECONDS": "30",
}
CONSTANTS = {
    "connect_timeout_seconds", "eject_after_failures", "eject_seconds", "max_json_depth", "probe_timeout_seconds",
}  # fmt: skip
# The same on every stack, without being rendered.
NOT_RENDERED = {"GATEWAY_HOST", "GATEWAY_CHAT_PAGE"}


def on_aws(**values: Any) -> dict[str, str]:
    return run_program("dev", **values).one("TaskDefinition", "gateway").environment()


def on_kubernetes(**values: Any) -> dict[str, str]:
    return render(**values).environment("gateway")


def test_each_setting_of_the_gateway_is_rendered_reachable_or_a_constant() -> None:
    variables = {f"GATEWAY_{f.name.upper()}" for f in dataclasses.fields(GatewaySettings) if f.metadata}
    constants = {f.name for f in dataclasses.fields(GatewaySettings) if not f.metadata}
    rendered = {name for name in on_aws(**EVERYTHING) | on_kubernetes(**EVERYTHING) if name.startswith("GATEWAY_")}
    by_the_stack = {name for name in SET_BY_THE_STACK if name.startswith("GATEWAY_")}
    assert constants == CONSTANTS
    assert not by_the_stack & set(REACHABLE)
    assert by_the_stack | set(REACHABLE) == variables, "a new setting belongs into one of the two"
    assert by_the_stack - rendered == NOT_RENDERED, "this table says what the stack sets itself"
    assert rendered - by_the_stack <= set(REACHABLE), "the stack sets it: say from which setting in SET_BY_THE_STACK"


def test_what_is_reachable_reaches_the_gateway_on_both_targets() -> None:
    given = [f"{name}={value}" for name, value in REACHABLE.items()]
    for environment in (on_aws(gatewayEnvironment=given), on_kubernetes(gatewayEnvironment=given)):
        changed = GatewaySettings.from_environment(environment)
        usual = GatewaySettings.from_environment({n: v for n, v in environment.items() if n not in REACHABLE})
        for name, value in REACHABLE.items():
            field = name.removeprefix("GATEWAY_").lower()
            assert getattr(changed, field) == float(value) != getattr(usual, field), name


@pytest.mark.parametrize("environment", [on_aws, on_kubernetes])
def test_a_gateway_made_of_what_is_rendered_has_it_all(environment: Any) -> None:
    found = environment(**EVERYTHING)
    settings = GatewaySettings.from_environment(found)
    assert (settings.model, settings.aliases, settings.adapters) == ("chat", ("gpt-4o", "ours/chat"), ("sql",))
    assert settings.allowed_origins == ("https://app.example.com", "http://localhost:5173")
    assert settings.max_tokens == 900
    assert (found["OTEL_EXPORTER_OTLP_ENDPOINT"], found["TZ"]) == ("http://otel.internal:4318", "UTC")
    assert GatewaySettings.from_environment(environment(allowedOrigins=["*"])).allowed_origins == ("*",)
    one = GatewaySettings.from_environment(environment())
    assert (one.aliases, one.allowed_origins, one.max_tokens) == ((), (), 0)


def test_each_name_is_an_argument_of_vllm_and_the_first_is_the_stacks() -> None:
    several = plan(servedModelName="chat,gpt-4o")
    at = several.engine.args.index("--served-model-name")
    assert several.engine.args[at + 1 : at + 4] == ("chat", "gpt-4o", "--max-model-len")
    assert several.served_model_name == json.loads(several.gateway.environment["GATEWAY_INFO"])["model"] == "chat"
    program = run_program("dev", servedModelName="chat,gpt-4o")
    assert program.outputs["model"] == "chat"
    command = program.one("TaskDefinition", "engine").container()["command"]
    assert command[command.index("--served-model-name") + 1 :][:2] == ["chat", "gpt-4o"]
    assert argument(plan(servedModelName="one").engine.args, "--served-model-name") == "one"
    assert "GATEWAY_ALIASES" not in plan(servedModelName="one").gateway.environment


def test_a_document_of_keys_is_the_secret_on_both_targets() -> None:
    document = '{"alice": {"key": "sk-very-secret", "limits": {"concurrency": 2}, "priority": 5, "health": true}}'
    version = run_program("dev", apiKeysDocument=document).one("SecretVersion", "api-keys")
    assert version.inputs["secretString"] == document
    assert version.secret_inputs == ("secretString",)
    assert render(apiKeysDocument=document).secret("secrets-api-keys") == {"keys.json": document}
    assert keys_document.parse(document) == {"sk-very-secret": Key("alice", Limits(2), None, 5, True)}
    assert "sk-very-secret" not in repr(parse_settings({"apiKeysDocument": document}))


def test_a_stack_that_gives_its_keys_keeps_them_and_another_leaves_them_to_make_key() -> None:
    given: tuple[tuple[dict[str, Any], str], ...] = (
        ({"apiKeys": "a=sk-1"}, "apiKeys"),
        ({"apiKeysDocument": '{"a": "sk-1"}'}, "apiKeysDocument"),
    )
    for values, setting in given:
        program = run_program("dev", **values)
        assert program.one("SecretVersion", "api-keys").ignore_changes == ()
        assert program.outputs["apiKeysSetBy"] == setting
    program = run_program("dev", hfToken="hf_1")
    assert program.one("SecretVersion", "api-keys").ignore_changes == ("secretString",)
    assert program.one("SecretVersion", "hub-token").ignore_changes == ()
    assert program.outputs["apiKeysSetBy"] == "make key"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"gatewayEnvironment": ["GATEWAY_MAX_TOKENS=many"]}, "GATEWAY_MAX_TOKENS 'many' is not a whole number"),
        ({"gatewayEnvironment": ["GATEWAY_MAX_TOKEN=5"]}, "GATEWAY_MAX_TOKEN is not a setting; meant GATEWAY_MAX_TOKENS?"),
        ({"gatewayEnvironment": ["GATEWAY_EJECT_SECONDS=5"]}, "GATEWAY_EJECT_SECONDS is not a setting"),
        ({"gatewayEnvironment": ["GATEWAY_COUNT=2"]}, "which the stack sets itself. Set gatewayCount instead"),
        ({"gatewayEnvironment": ["GATEWAY_KEYS=none"]}, "Set apiKeys or apiKeysDocument instead"),
        ({"gatewayEnvironment": ["GATEWAY_PORT=81"]}, "which the stack sets itself. Remove it"),
        ({"gatewayEnvironment": ["AWS_REGION=us-east-2"]}, "Set aws:region instead"),
        ({"gatewayEnvironment": ["TZ=UTC", "TZ=CET"]}, "found TZ twice"),
        ({"gatewayEnvironment": ["GATEWAY_MAX_TOKENS="]}, "GATEWAY_MAX_TOKENS is empty"),
        ({"gatewayEnvironment": ["OTEL_EXPORTER_OTLP_HEADERS=x-api-key=very-hidden"]}, "Set OTEL_EXPORTER_OTLP_ENDPOINT to a collector"),
        ({"gatewayEnvironment": ["OTEL_EXPORTER_OTLP_TRACES_HEADERS=k=very-hidden"]}, "a credential"),
        ({"gatewayEnvironment": ["AWS_SECRET_ACCESS_KEY=very-hidden"]}, "a credential"),
        ({"gatewayEnvironment": ["OTEL_EXPORTER_OTLP_PROTOCOL=grpc"]}, "Set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
        ({"gatewayEnvironment": ["OTEL_EXPORTER_OTLP_ENDPOINT=collector:4317"]}, "not an http(s) URL"),
        ({"gatewayEnvironment": ["NO_EQUALS"]}, "NAME=value"),
        ({"allowedOrigins": ["app.example.com"]}, "set SCHEME://HOST[:PORT]"),
        ({"allowedOrigins": ["*", "https://a.example.com"]}, "set * alone"),
        ({"allowedOrigins": ["null"]}, "sandboxed frame"),
        ({"servedModelName": "a,,b"}, "empty name"),
        ({"servedModelName": "a,b,a"}, "contains a duplicate name"),
        ({"servedModelName": "a,sql", "loraAdapters": ["sql=acme/sql"]}, "the name sql twice"),
        ({"apiKeysDocument": '{"alice": {"key": "very-hidden", "prio": 1}}'}, "'prio' is not a field; the fields are key, limits"),
        ({"apiKeysDocument": '{"alice": "very-hidden", "bob": "very-hidden"}'}, "are the same key"),
        ({"apiKeysDocument": '{"alice": "' + "x" * 513 + '"}'}, "1 to 512"),
        ({"apiKeysDocument": "\n".join(f"a{n}={n:0>500}" for n in range(140))}, "65,536 bytes"),
        ({"apiKeysDocument": '{"a": "very-hidden"}', "apiKeys": "sk-1"}, "Set only one of the two"),
    ],
)  # fmt: skip
def test_each_refusal_says_what_to_set_and_shows_no_secret(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_settings(values)
    (found,) = raised.value.problems
    assert says in found
    assert "very-hidden" not in found
    assert found.startswith(
        ("gatewayEnvironment: ", "allowedOrigins: ", "servedModelName: ", "loraAdapters: ", "apiKeys")
    )


def test_plans_differ_in_nothing_where_nothing_of_it_is_set() -> None:
    assert plan().gateway.environment.keys() <= set(SET_BY_THE_STACK) | set(REACHABLE)


def test_no_deployed_gateway_serves_the_chat_page_of_make_local() -> None:
    for environment in (on_aws(), on_kubernetes()):
        assert "GATEWAY_CHAT_PAGE" not in environment
        assert not GatewaySettings.from_environment({**environment, "GATEWAY_KEYS": "none"}).chat_page
    repository = Path(__file__).resolve().parents[2]
    for file in (
        "image/compose.yaml",
        "image/gateway.Dockerfile",
        "image/engine.Dockerfile",
        "image/engine/standalone.py",
    ):
        assert "CHAT_PAGE" not in (repository / file).read_text()
    with pytest.raises(SettingsError, match=r"found GATEWAY_CHAT_PAGE, which the stack sets itself\. Remove it"):
        parse_settings({"gatewayEnvironment": ["GATEWAY_CHAT_PAGE=1"]})
