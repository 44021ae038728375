"""Runs the Kubernetes target under Pulumi's mocks and records everything that would be registered."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import mocks

from infra.kubernetes.endpoint import VllmEndpointOnKubernetes
from infra.planning import make_plan
from infra.planning.plan import ServingPlan
from infra.settings_problems import parse_settings
from tests.infra.event_loops import closing_event_loops

LOAD_BALANCER = "lb.example.com"
SECRET_MARK = "4dabf18193072939515e22adb298388d"  # how Pulumi's protocol marks a secret


@dataclass
class Rendered:
    """Inputs and requests by "Kind/name"; exports; warnings."""

    plan: ServingPlan
    inputs: dict[str, Any] = field(default_factory=dict)
    requests: dict[str, Any] = field(default_factory=dict)
    exports: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def spec(self, resource: str) -> Any:
        return self.inputs[resource]["spec"]

    def pod(self, name: str) -> Any:
        return self.spec(f"Deployment/{name}")["template"]["spec"]

    def pod_labels(self, name: str) -> Any:
        return self.spec(f"Deployment/{name}")["template"]["metadata"]["labels"]

    def container(self, name: str) -> Any:
        (container,) = self.pod(name)["containers"]
        return container

    def environment(self, name: str) -> dict[str, str]:
        return {variable["name"]: variable.get("value", "") for variable in self.container(name)["env"]}

    def secret(self, name: str) -> Any:
        """The entries of a Secret, which must be marked as secret for Pulumi, too."""
        marked = self.inputs[f"Secret/{name}"]["stringData"]
        assert SECRET_MARK in marked
        return marked["value"]


class _Monitor(mocks.MockMonitor):
    """Options (timeouts, retention) are on the request only, and pass a mock by."""

    def __init__(self, rendered: Rendered) -> None:
        super().__init__(_Mocks(rendered))
        self._rendered = rendered

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - gRPC's name
        self._rendered.requests[f"{request.type.rpartition(':')[2]}/{request.name}"] = request
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]


class _Mocks(pulumi.runtime.Mocks):
    def __init__(self, rendered: Rendered) -> None:
        self._rendered = rendered

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        # A stash is an entry of Pulumi's state: nothing of it exists in the cluster.
        if not args.custom or args.typ == "pulumi:index:Stash":
            return args.name, {}
        kind = args.typ.rpartition(":")[2]
        state = dict(args.inputs)
        if args.typ.startswith("kubernetes:"):
            # Pulumi names what has no name of its own, and a new object gets a new name.
            state["metadata"] = {"name": f"{args.name}-1a2b3c4d"} | state["metadata"]
            if kind == "Service":
                state["status"] = {"loadBalancer": {"ingress": [{"hostname": LOAD_BALANCER}]}}
        if kind == "RandomPassword":
            state["result"] = "r" * int(args.inputs["length"])
        self._rendered.inputs[f"{kind}/{args.name}"] = args.inputs
        return args.name, state

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"{args.token}: the rendering looks nothing up")


class _Warnings(logging.Handler):
    def __init__(self, rendered: Rendered) -> None:
        super().__init__(logging.WARNING)
        self._rendered = rendered

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() not in self._rendered.plan.warnings:  # which are the same for both targets
            self._rendered.warnings.append(record.getMessage())


def render(stack: str = "dev", **values: Any) -> Rendered:
    """The rendering of settings, keyed as in a stack file, on top of their defaults."""
    settings = parse_settings({"target": "kubernetes", **values}, stack)
    rendered = Rendered(make_plan(settings))
    logger = logging.Logger("rendering")
    logger.addHandler(_Warnings(rendered))

    def program() -> pulumi.Output[None]:
        return pulumi.Output.all(**VllmEndpointOnKubernetes.of_stack(settings).outputs_by_name).apply(
            rendered.exports.update
        )

    def run() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        mocks.set_mocks(_Mocks(rendered), "vllm-endpoint", stack, logger=logger, monitor=_Monitor(rendered))
        pulumi.runtime.test(program)()  # type: ignore[no-untyped-call]

    # In a thread of its own Pulumi neither takes nor replaces the event loop of the thread that runs the tests.
    with closing_event_loops(), concurrent.futures.ThreadPoolExecutor(1) as thread:
        thread.submit(run).result()
    return rendered
