"""Every hop's timeout is longer than that of the hop behind it: client, load balancer, gateway, engine, and their
shutdown. Read from what is deployed: the rendered environment, arguments and annotations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import yaml

from clients import openai_example
from image.gateway import service
from image.gateway.settings import Settings as GatewaySettings
from infra.errors import PlanError, SettingsError
from infra.settings import Settings
from infra.stack_files import ROOT
from policy.matrix import Entry, load_matrix
from smoke_tests import conftest as smoke_tests
from tests.infra.kubernetes.rendering import render
from tests.infra.program import run_program

MATRIX = load_matrix()
CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"
FARGATE_LONGEST_STOP_SECONDS, ALB_LONGEST_IDLE_SECONDS = 120, 4000
# Proxies on the way that are not ours: nginx and ingress-nginx close after 60 s without a byte.
COMMON_PROXY_IDLE_SECONDS = 60
# The same in every configuration: what the gateway still does after its drain, and vLLM after its last answer.
GATEWAY_CLOSE_SECONDS, ENGINE_EXIT_SECONDS = service._CLOSE_SECONDS, 15


@dataclass(frozen=True)
class Chain:
    """A deployment's timeouts in seconds. The timeout of a hop that is not configurable here is infinite."""

    gateway: GatewaySettings
    startup: float
    load_balancer_idle: float
    gateway_stop: float
    engine_drain: float
    engine_stop: float
    leave_rotation: float = 0


def engine_drain(arguments: list[str]) -> float:
    return float(arguments[len(arguments) - arguments[::-1].index("--shutdown-timeout")])


def on_ecs(entry: Entry, startup_minutes: int | None) -> Chain:
    values: dict[str, Any] = entry.values() | (
        {"vllm-endpoint:startupTimeoutMinutes": startup_minutes} if startup_minutes else {}
    )
    program = run_program(entry.stack_name, **values)
    gateway, engine = program.one("TaskDefinition", "gateway"), program.one("TaskDefinition", "engine").container()
    settings = entry.parsed()
    return Chain(
        gateway=GatewaySettings.from_environment(gateway.environment()),
        startup=60 * (startup_minutes or settings.startup_timeout_minutes),
        load_balancer_idle=program.one("LoadBalancer").inputs["idleTimeout"],
        gateway_stop=gateway.container()["stopTimeout"],
        engine_drain=engine_drain(engine["command"]),
        engine_stop=engine["stopTimeout"],
    )


def on_kubernetes(startup_minutes: int | None = None, **values: Any) -> Chain:
    values |= {"startupTimeoutMinutes": startup_minutes} if startup_minutes else {}
    rendered = render(**values)
    annotations = {
        name.rpartition("/")[2]: value
        for kind in ("Ingress/ingress", "Service/gateway")
        for name, value in (rendered.inputs.get(kind, {}).get("metadata", {}).get("annotations") or {}).items()
    }
    idle = [
        float(annotations[name].rpartition("=")[2])
        for name in ("proxy-read-timeout", "proxy-send-timeout", "load-balancer-attributes",
                     "aws-load-balancer-connection-idle-timeout")
        if name in annotations
    ]  # fmt: skip
    engine = rendered.pod("engine")
    (container,) = engine["containers"]
    return Chain(
        gateway=GatewaySettings.from_environment(rendered.environment("gateway")),
        startup=rendered.plan.replicas.startup_timeout_seconds,
        load_balancer_idle=min(idle, default=math.inf),
        gateway_stop=rendered.pod("gateway")["terminationGracePeriodSeconds"],
        engine_drain=engine_drain([*container.get("command", []), *container.get("args", [])]),
        engine_stop=engine["terminationGracePeriodSeconds"],
        leave_rotation=float(container["lifecycle"]["preStop"]["exec"]["command"][-1]),
    )


def broken(chain: Chain) -> Iterator[str]:
    """What does not hold, in words."""
    gateway = chain.gateway
    plain = {
        "a cold start may take": chain.startup,
        "a plain request is held": gateway.hold_timeout_nonstream_seconds,
        "a plain request has, from its arrival to the end of its answer": gateway.request_timeout_nonstream_seconds,
        "the load balancer waits for a byte": chain.load_balancer_idle,
    }
    orders = [
        plain,
        {"the load balancer keeps a connection": chain.load_balancer_idle, "the gateway": gateway.keep_alive_seconds}
        if chain.load_balancer_idle < math.inf
        else {},
        {"a cold start may take": chain.startup, "a stream is held": gateway.hold_timeout_seconds},
        {"comments come each": 2 * gateway.sse_comment_seconds, "a proxy waits for a byte": COMMON_PROXY_IDLE_SECONDS},
        {"comments come each": 2 * gateway.sse_comment_seconds, "the load balancer": chain.load_balancer_idle},
        {
            "a request has": gateway.request_timeout_nonstream_seconds,
            "the example client waits": openai_example.TIMEOUT_SECONDS,
        },
        {
            "the gateway still takes requests": gateway.drain_delay_seconds,
            "it lets run": gateway.drain_timeout_seconds,
            "it is killed": chain.gateway_stop - GATEWAY_CLOSE_SECONDS,
        },
        {
            "the engine leaves rotation and finishes": chain.leave_rotation + chain.engine_drain + ENGINE_EXIT_SECONDS,
            "the engine is killed": chain.engine_stop,
        },
        {"the gateway finishes": gateway.drain_timeout_seconds, "the engine does": chain.engine_drain},
    ]
    for order in orders:
        for (name, seconds), (longer, limit) in pairwise(order.items()):
            if seconds > limit or (seconds == limit and longer == "the load balancer waits for a byte"):
                yield f"{name} {seconds:g} s, {longer} {limit:g} s"


@pytest.mark.parametrize("entry", MATRIX.values(), ids=list(MATRIX))
def test_every_hop_on_ecs_outlasts_the_one_behind_it(entry: Entry) -> None:
    chain = on_ecs(entry, None)
    assert list(broken(chain)) == []
    assert chain.load_balancer_idle <= ALB_LONGEST_IDLE_SECONDS
    assert chain.gateway_stop <= FARGATE_LONGEST_STOP_SECONDS


@pytest.mark.parametrize("minutes", [5, 20, 55])
def test_it_does_however_long_a_cold_start_may_take(minutes: int) -> None:
    assert list(broken(on_ecs(MATRIX["dev"], minutes))) == []
    assert list(broken(on_kubernetes(minutes, domain="llm.example.com"))) == []


def on_both(entry: Entry) -> Chain | None:
    """A configuration on Kubernetes, less what only AWS has; None where it is refused there."""
    values = {key: value for key, value in entry.settings.items() if key not in ("natGateways", "port")}
    try:
        return on_kubernetes(**values)
    except (SettingsError, PlanError):
        return None


def test_every_hop_on_kubernetes_outlasts_the_one_behind_it() -> None:
    chains = {name: chain for name, entry in MATRIX.items() if (chain := on_both(entry)) is not None}
    assert len(chains) >= 5
    exposed: list[dict[str, Any]] = [
        {"domain": "llm.example.com"},
        {"domain": "llm.example.com", "kubernetesIngressClass": "nginx"},
        {"domain": "llm.example.com", "kubernetesIngressClass": "alb", "certificateArn": CERTIFICATE},
        {"allowedCidrs": ["203.0.113.0/24"]},
    ]
    chains |= {str(values): on_kubernetes(**values) for values in exposed}
    assert {name: problems for name, chain in chains.items() if (problems := list(broken(chain)))} == {}
    assert all(chains[str(values)].load_balancer_idle < math.inf for values in exposed)


def test_the_containers_of_compose_are_given_the_time_they_take() -> None:
    services = yaml.safe_load((ROOT / "image/compose.yaml").read_text())["services"]
    environment = {**services["gateway"]["environment"], "VLLM_API_KEY": "k"}
    for name in ("engine", "engine-cpu"):
        engine = services[name]
        (drain,) = [float(word.partition("=")[2]) for word in engine["command"] if "--shutdown-timeout" in word]
        chain = Chain(
            gateway=GatewaySettings.from_environment(environment),
            startup=0,
            load_balancer_idle=math.inf,
            gateway_stop=float(services["gateway"]["stop_grace_period"].removesuffix("s")),
            engine_drain=drain,
            engine_stop=float(engine["stop_grace_period"].removesuffix("s")),
        )
        assert list(broken(chain)) == []


def test_the_longest_cold_start_that_can_be_set_leaves_time_for_an_answer() -> None:
    longest = Settings.model_fields["startup_timeout_minutes"].metadata
    (minutes,) = [limit.le for limit in longest if hasattr(limit, "le")]
    chain = on_ecs(MATRIX["dev"], minutes)
    assert chain.gateway.request_timeout_nonstream_seconds - chain.startup >= 300


def test_the_smoke_tests_wait_for_a_slow_engine() -> None:
    assert smoke_tests.REQUEST_TIMEOUT_SECONDS < openai_example.TIMEOUT_SECONDS
