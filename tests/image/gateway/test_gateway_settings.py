from __future__ import annotations

from pathlib import Path

import pytest

from image.gateway.backends import (
    DnsDiscovery,
    EcsCapacity,
    FileKeys,
    FixedCapacity,
    FixedDiscovery,
    InlineKeys,
    KubernetesCapacity,
    LocalCapacity,
    NoKeys,
    SecretsManagerKeys,
)
from image.gateway.settings import Settings, SettingsError
from infra.planning import make_plan
from infra.stack_files import load_stack

LEAST = {"GATEWAY_MODEL": "org/model", "GATEWAY_DISCOVERY": "fixed:http://127.0.0.1:8000"}


def test_two_variables_are_enough() -> None:
    settings = Settings.from_environment({**LEAST, "PATH": "/bin", "GATEWAY_KEYS": ""})
    assert settings.model == "org/model"
    assert settings.discovery == FixedDiscovery((("127.0.0.1", 8000),))
    assert settings.capacity == FixedCapacity()
    assert settings.keys == NoKeys()
    assert (settings.host, settings.port, settings.metrics_port) == ("0.0.0.0", 8080, 9090)
    assert (settings.concurrency_per_replica, settings.max_queued_requests) == (16, 256)
    assert settings.max_queued_per_slot == 0.25
    assert (settings.max_queued_bytes, settings.max_body_bytes) == (67108864, 20971520)
    assert (settings.hold_timeout_seconds, settings.hold_timeout_nonstream_seconds) == (900, 840)
    assert (settings.request_timeout_seconds, settings.drain_timeout_seconds) == (3600, 100)
    assert settings.keep_alive_seconds == 4000


def test_whoever_says_how_many_may_wait_is_taken_at_the_word() -> None:
    told = Settings.from_environment({**LEAST, "GATEWAY_MAX_QUEUED_REQUESTS": "5"})
    assert (told.max_queued_requests, told.max_queued_per_slot) == (5, 0)
    both = {**LEAST, "GATEWAY_MAX_QUEUED_REQUESTS": "5", "GATEWAY_MAX_QUEUED_PER_SLOT": "0.5"}
    assert Settings.from_environment(both).max_queued_per_slot == 0.5


def test_every_kind_of_seam() -> None:
    settings = Settings.from_environment(
        {
            "GATEWAY_MODEL": "m",
            "GATEWAY_DISCOVERY": "dns:engine.stack.local:8000",
            "GATEWAY_CAPACITY": "ecs:cluster/service/group/with/slashes",
            "GATEWAY_KEYS": "env:GATEWAY_API_KEYS",
            "GATEWAY_API_KEYS": "sk-secret",
            "GATEWAY_INFO": '{"gpu": "A10G"}',
            "GATEWAY_DRAIN_TIMEOUT_SECONDS": "2.5",
        }
    )
    assert settings.discovery == DnsDiscovery("engine.stack.local", 8000)
    assert settings.capacity == EcsCapacity("cluster", "service", "group/with/slashes")
    assert settings.keys == InlineKeys("sk-secret")
    assert "sk-secret" not in repr(settings)
    assert settings.info == {"gpu": "A10G"}
    assert settings.drain_timeout_seconds == 2.5
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:keys-AbCdEf"
    assert Settings.from_environment({**LEAST, "GATEWAY_KEYS": f"secretsmanager:{arn}"}).keys == SecretsManagerKeys(arn)
    assert Settings.from_environment({**LEAST, "GATEWAY_KEYS": "file:/run/keys"}).keys == FileKeys(Path("/run/keys"))


def test_the_other_capacities_and_networks() -> None:
    settings = Settings.from_environment(
        {**LEAST, "GATEWAY_CAPACITY": "kubernetes:vllm/engine", "GATEWAY_TRUSTED_PROXIES": "10.0.0.0/16, fd00::/8"}
    )
    assert settings.capacity == KubernetesCapacity("vllm", "engine")
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/16", "fd00::/8"]
    local = Settings.from_environment({**LEAST, "GATEWAY_CAPACITY": "local:http://127.0.0.1:8999"})
    assert local.capacity == LocalCapacity(("127.0.0.1", 8999))


@pytest.mark.parametrize(("concurrency", "count", "share"), [(16, 1, 16), (16, 2, 8), (16, 3, 5), (2, 3, 1)])
def test_gateways_share_a_replicas_slots(concurrency: int, count: int, share: int) -> None:
    variables = {"GATEWAY_CONCURRENCY_PER_REPLICA": str(concurrency), "GATEWAY_COUNT": str(count)}
    assert Settings.from_environment({**LEAST, **variables}).concurrency_share == share


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_what_the_plan_and_its_rendering_set_is_what_the_gateway_takes(stack: str) -> None:
    plan = make_plan(load_stack(stack)).gateway
    settings = Settings.from_environment(
        {
            **plan.environment,
            # What only the AWS rendering knows.
            "AWS_REGION": "eu-west-1",
            "GATEWAY_CAPACITY": "ecs:cluster/service/group",
            "GATEWAY_DISCOVERY": "dns:engine.stack.local:8000",
            "GATEWAY_EMF_NAMESPACE": "VllmEndpoint",
            "GATEWAY_KEYS": "secretsmanager:arn:aws:secretsmanager:eu-west-1:123456789012:secret:keys-AbCdEf",
            "GATEWAY_STACK": "organization/stack",
        }
    )
    assert settings.port == plan.port
    assert settings.metrics_port == plan.metrics_port
    assert settings.drain_timeout_seconds == plan.drain_timeout_seconds
    assert plan.drain_timeout_seconds < plan.stop_timeout_seconds
    assert settings.keep_alive_seconds > plan.idle_timeout_seconds > settings.hold_timeout_nonstream_seconds


def test_all_problems_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(
            {
                "GATEWAY_DISCOVERY": "http://127.0.0.1:8000",
                "GATEWAY_KEYS": "sk-put-here-by-mistake",
                "GATEWAY_PORT": "70000",
                "GATEWAY_HOLD_TIMEOUT_SECONDS": "15m",
                "GATEWAY_MAX_QUEUED_REQUEST": "1",
                "GATEWAY_INFO": "[]",
                "GATEWAY_CAPACITY": "ecs:cluster/service",
                "GATEWAY_HOST": "localhost",
                "GATEWAY_EMF_NAMESPACE": "x",
            }
        )
    text = "\n".join(raised.value.problems)
    assert len(raised.value.problems) == 10
    for part in (
        "GATEWAY_MODEL is not set",
        "GATEWAY_DISCOVERY 'http://127.0.0.1:8000' is neither fixed:",
        "GATEWAY_KEYS is not none, env:VARIABLE",
        "GATEWAY_PORT '70000' is not a whole number from 1 to 65535",
        "GATEWAY_HOLD_TIMEOUT_SECONDS '15m' is not a number of seconds",
        "GATEWAY_MAX_QUEUED_REQUEST is not a setting; meant GATEWAY_MAX_QUEUED_REQUESTS?",
        "GATEWAY_INFO is not a JSON object",
        "GATEWAY_CAPACITY 'ecs:cluster/service' is neither",
        "GATEWAY_HOST 'localhost' is not an IP address",
        "GATEWAY_EMF_NAMESPACE is set without GATEWAY_STACK",
    ):
        assert part in text
    assert "sk-put-here-by-mistake" not in text


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("GATEWAY_PORT", "tcp://10.0.0.1:8080", "enableServiceLinks: false"),
        ("GATEWAY_DISCOVERY", "fixed:https://127.0.0.1:8000", "http://HOST:PORT"),
        ("GATEWAY_DISCOVERY", "fixed:http://user@host:8000", "http://HOST:PORT"),
        ("GATEWAY_DISCOVERY", "dns:host:0", "dns:NAME:PORT"),
        ("GATEWAY_KEYS", "env:NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE"),
        ("GATEWAY_CAPACITY", "kubernetes:Engine", "kubernetes:NAMESPACE/DEPLOYMENT"),
        ("GATEWAY_CAPACITY", "local:127.0.0.1:8999", "http://HOST:PORT"),
        ("GATEWAY_TRUSTED_PROXIES", "10.0.0.1/16", "networks like 10.0.0.0/16"),
        ("GATEWAY_METRICS_PORT", "8080", "two different ports"),
        ("GATEWAY_CONCURRENCY_PER_REPLICA", "0", "from 1"),
        ("GATEWAY_REQUEST_TIMEOUT_SECONDS", "nan", "number of seconds"),
    ],
)
def test_each_problem_says_what_to_set(variable: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Settings.from_environment({**LEAST, variable: value})
