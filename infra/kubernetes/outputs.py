"""The outputs that ``pulumi stack output`` shows: the endpoint, its resources and its cost. They contain no secrets."""

from __future__ import annotations

from typing import Any

import pulumi

from infra.identity import Identity
from infra.kubernetes.engine import Engine
from infra.kubernetes.exposure import TLS_SECRET_NAME
from infra.kubernetes.gateway import Gateway
from infra.kubernetes.secrets import API_KEYS_FILE, Secrets
from infra.kubernetes.weights import Weights
from infra.outputs import engine_outputs, key_command, verify_output, ways_in
from infra.planning.plan import ServingPlan
from infra.settings import Settings


def stack_outputs(
    settings: Settings,
    plan: ServingPlan,
    identity: Identity,
    namespace: pulumi.Output[str],
    *,
    secrets: Secrets,
    weights: Weights,
    engine: Engine,
    gateway: Gateway,
) -> dict[str, pulumi.Input[Any]]:
    """The outputs by name; outputs that the ECS target also has mean the same there."""
    endpoint = _endpoint(settings, namespace, gateway)
    entry = "{.data." + API_KEYS_FILE.replace(".", "\\.") + "}"
    show = pulumi.Output.format(
        "kubectl -n {0} get secret {1} -o jsonpath='{2}' | base64 -d", namespace, secrets.api_keys_name, entry
    )
    found: dict[str, pulumi.Input[Any]] = {
        "endpoint": endpoint,
        "openaiBaseUrl": pulumi.Output.concat(endpoint, "/v1"),
        "model": plan.served_model_name,
        "namespace": namespace,
        "gpu": settings.gpu.value,
        "gpuCount": plan.replicas.gpu_count,
        **engine_outputs(settings, plan),
        "getApiKey": show if identity.endpoint else key_command(identity.stack),
        "apiKeySecretName": secrets.api_keys_name,
        "showApiKeys": show,
        "engineServiceName": engine.service_name,
        "gatewayServiceName": gateway.service_name,
        "retainedAtDestroy": {"namespace": namespace, "weights": weights.claim_name} if settings.protect else {},
        "usdPerHourActive": plan.cost.usd_per_hour_active,
        "usdPerHourIdle": plan.cost.usd_per_hour_idle,
        "verify": verify_output(settings),
    }
    if how := _how_to_open(settings, identity):
        found["howToOpen"] = how
    return found


def _endpoint(settings: Settings, namespace: pulumi.Output[str], gateway: Gateway) -> pulumi.Output[str]:
    """The base URL, without /v1: the domain, the load balancer's name, or the Service's name in the cluster."""
    if settings.domain:
        return pulumi.Output.from_input(f"https://{settings.domain}")
    port = "" if settings.endpoint_port == 80 else f":{settings.endpoint_port}"
    if settings.allowed_cidrs:
        return pulumi.Output.concat("http://", gateway.load_balancer, port)
    return pulumi.Output.format("http://{0}.{1}.svc.cluster.local{2}", gateway.service_name, namespace, port)


def _how_to_open(settings: Settings, identity: Identity) -> dict[str, str]:
    """The remaining steps before clients outside the cluster can connect, one command each; empty if none are required."""
    kubectl = f"kubectl -n {settings.kubernetes_namespace}"
    if settings.domain:
        ways = {"dns": f"Point {settings.domain} at the address of: {kubectl} get ingress gateway"}
        if not settings.certificate_arn:
            # cert-manager fills the Secret automatically.
            ways["certificate"] = f"{kubectl} create secret tls {TLS_SECRET_NAME} --cert FILE --key FILE"
        return ways
    if settings.allowed_cidrs:
        return {}
    return {
        "here": f"{kubectl} port-forward service/gateway 8000:{settings.endpoint_port}",
        **ways_in(identity),
    }
