"""The Kubernetes target: turns the plan into the objects of one namespace."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi_kubernetes import core, meta

from infra.changes import Watch, endpoint_of, estimate_of, hold_place
from infra.errors import PlanError
from infra.kubernetes import exposure
from infra.kubernetes.engine import NAME as ENGINE
from infra.kubernetes.engine import Engine, EngineArgs
from infra.kubernetes.gateway import Gateway, GatewayArgs, local_image
from infra.kubernetes.gateway_access import GatewayAccess, GatewayAccessArgs
from infra.kubernetes.ingress import Ingress, IngressArgs
from infra.kubernetes.network_policies import NetworkPolicies, NetworkPoliciesArgs
from infra.kubernetes.outputs import stack_outputs
from infra.kubernetes.pods import Labels
from infra.kubernetes.secrets import Secrets, SecretsArgs
from infra.kubernetes.weights import Weights, WeightsArgs
from infra.planning.plan import ServingPlan
from infra.settings import Settings


def deploy(settings: Settings, plan: ServingPlan) -> dict[str, pulumi.Input[Any]]:
    """Declare the stack on the current kubeconfig's cluster.

    Returns:
        The stack's outputs, by name.

    Raises:
        PlanError: the settings cannot expose the endpoint as specified.
    """
    if problems := exposure.problems(settings):
        raise PlanError(problems)
    hold_place("place", {"target": settings.target.value})
    watch = Watch("endpoint")
    labels = Labels(pulumi.get_stack())
    replicas = max(1, plan.replicas.min_replicas)
    _warn(settings, plan, replicas)
    namespace = _namespace(settings, labels)
    secrets = Secrets("secrets", SecretsArgs(namespace, labels, settings.given_keys, settings.hf_token))
    weights = Weights(
        "weights",
        WeightsArgs(
            namespace=namespace,
            labels=labels,
            checkpoint_gib=plan.engine.checkpoint_gib,
            shared=plan.replicas.max_replicas > 1,
            storage_class=settings.kubernetes_storage_class,
            retain=settings.protect,
        ),
    )
    policies = NetworkPolicies(
        "network-policies",
        NetworkPoliciesArgs(namespace, labels, plan.engine.port, plan.gateway.port, plan.gateway.metrics_port),
    )
    engine = Engine(
        "engine",
        EngineArgs(
            namespace=namespace,
            labels=labels,
            plan=plan,
            replicas=replicas,
            claim_name=weights.claim_name,
            hf_token_name=secrets.hf_token_name,
            node_instance_types=settings.instance_types,
            needs=(policies,),
        ),
    )
    access = GatewayAccess("gateway-access", GatewayAccessArgs(namespace, labels))
    public_cidrs = () if settings.domain else settings.allowed_cidrs
    gateway = Gateway(
        "gateway",
        GatewayArgs(
            namespace=namespace,
            labels=labels,
            plan=plan.gateway,
            api_keys_name=secrets.api_keys_name,
            # The trailing dot prevents the resolver from trying search domains, for example one with a wildcard record.
            discovery=pulumi.Output.format(
                "dns:{0}.{1}.svc.cluster.local.:{2}", engine.service_name, namespace, plan.engine.port
            ),
            capacity=pulumi.Output.format("kubernetes:{0}/{1}", namespace, ENGINE),
            service_account=access.service_account,
            service_port=80 if settings.domain else settings.endpoint_port,
            allowed_cidrs=public_cidrs,
            needs=(policies, access),
        ),
    )
    if settings.domain:
        Ingress(
            "ingress",
            IngressArgs(
                namespace=namespace,
                labels=labels,
                ingress_class=settings.kubernetes_ingress_class,
                domain=settings.domain,
                certificate_arn=settings.certificate_arn,
                allowed_cidrs=settings.allowed_cidrs,
                idle_timeout_seconds=plan.gateway.idle_timeout_seconds,
                service_name=gateway.service_name,
            ),
        )
    watch.say(endpoint_of(settings, plan), estimate_of(settings, plan, restarts_all=replicas == 1))
    return stack_outputs(settings, plan, namespace, secrets=secrets, weights=weights, engine=engine, gateway=gateway)


def _namespace(settings: Settings, labels: Labels) -> pulumi.Output[str]:
    """The namespace's name, as an output, so that every namespaced object is created after it and deleted before it."""
    namespace = core.v1.Namespace(
        "namespace",
        metadata=meta.v1.ObjectMetaArgs(
            name=settings.kubernetes_namespace,
            # Pod Security admission then rejects pods with more privileges than these need.
            labels=labels.common | {"pod-security.kubernetes.io/enforce": "restricted"},
            annotations={"vllm-endpoint/owner": settings.owner} if settings.owner else None,
        ),
        # A volume cannot outlive its namespace.
        opts=pulumi.ResourceOptions(retain_on_delete=settings.protect),
    )
    return namespace.metadata.apply(lambda metadata: str(metadata.name))


def _warn(settings: Settings, plan: ServingPlan, replicas: int) -> None:
    """Warn about settings that have no effect on this target."""
    if not plan.gateway.image:
        image = local_image()
        pulumi.log.warn(
            f"gatewayImage is not set: {image} must already exist on every node. Build it with `docker build -f "
            f"image/gateway.Dockerfile -t {image} .` and load it (kind load docker-image, minikube image load); or push "
            "it to your registry and set gatewayImage to its name there"
        )
    if plan.replicas.max_replicas > replicas:
        pulumi.log.warn(
            f"maxReplicas is {plan.replicas.max_replicas}, but target kubernetes does not support autoscaling yet: {replicas} will run. "
            "Set minReplicas to run more"
        )
    ingress_class = settings.kubernetes_ingress_class
    if settings.domain and ingress_class and not exposure.controller_of(ingress_class):
        pulumi.log.warn(
            f"kubernetesIngressClass {ingress_class}: set its controller's timeouts to at least "
            f"{plan.gateway.idle_timeout_seconds} s and its body limit to 20 MB yourself; its annotations are not "
            "supported (only classes with nginx or alb in their name are)"
        )
    if keys := exposure.without_effect(settings):
        pulumi.log.warn(f"target kubernetes ignores: {', '.join(keys)}. Use the cluster's own tools instead")
