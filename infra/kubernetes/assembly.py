"""An endpoint on a cluster, put together step by step; each step uses what the earlier ones declared."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi_kubernetes import core, meta

from infra.component import keys_of, token_of
from infra.identity import Identity
from infra.kubernetes.engine import NAME as ENGINE
from infra.kubernetes.engine import Engine, EngineArgs
from infra.kubernetes.gateway import Gateway, GatewayArgs
from infra.kubernetes.gateway_access import GatewayAccess, GatewayAccessArgs
from infra.kubernetes.ingress import Ingress, IngressArgs
from infra.kubernetes.network_policies import NetworkPolicies, NetworkPoliciesArgs
from infra.kubernetes.outputs import stack_outputs
from infra.kubernetes.pods import Labels
from infra.kubernetes.secrets import Secrets, SecretsArgs
from infra.kubernetes.weights import Weights, WeightsArgs
from infra.planning.plan import ServingPlan
from infra.settings import Settings


class Assembly:
    """The parts of an endpoint, which are attributes once their step has run.

    Args:
        component: the endpoint, the parent of all parts.
        identity: what names and labels are derived from.
        settings: values that only the deployment uses: namespace, secrets, exposure.
        plan: the serving plan.
        replicas: engine replicas.
    """

    def __init__(
        self, component: pulumi.Resource, identity: Identity, settings: Settings, plan: ServingPlan, replicas: int
    ) -> None:
        self._component, self._identity, self._settings, self._plan = component, identity, settings, plan
        self._child, self._labels = pulumi.ResourceOptions(parent=component), Labels(identity)
        self.namespace = self._make_namespace()
        self._make_storage()
        self._make_engine(replicas)
        self._make_gateway()
        self._make_ingress()

    def outputs(self) -> dict[str, pulumi.Input[Any]]:
        """The outputs by name, as the stack-file program exports them."""
        return stack_outputs(
            self._settings, self._plan, self._identity, self.namespace, secrets=self.secrets, weights=self.weights,
            engine=self.engine, gateway=self.gateway,
        )  # fmt: skip

    def _name(self, part: str) -> str:
        return self._labels.logical(part)

    def _make_namespace(self) -> pulumi.Output[str]:
        """The namespace's name, as an output, so that every namespaced object is created after it and deleted before it."""
        settings = self._settings
        namespace = core.v1.Namespace(
            self._name("namespace"),
            metadata=meta.v1.ObjectMetaArgs(
                name=settings.kubernetes_namespace,
                # Pod Security admission then rejects pods with more privileges than these need.
                labels=self._labels.common | {"pod-security.kubernetes.io/enforce": "restricted"},
                annotations={"vllm-endpoint/owner": settings.owner} if settings.owner else None,
            ),
            # A volume cannot outlive its namespace.
            opts=pulumi.ResourceOptions(parent=self._component, retain_on_delete=settings.protect or None),
        )
        return namespace.metadata.apply(lambda metadata: str(metadata.name))

    def _make_storage(self) -> None:
        settings, plan = self._settings, self._plan
        secrets = SecretsArgs(self.namespace, self._labels, keys_of(settings), token_of(settings))
        self.secrets = Secrets(self._name("secrets"), secrets, self._child)
        self.weights = Weights(
            self._name("weights"),
            WeightsArgs(
                namespace=self.namespace,
                labels=self._labels,
                checkpoint_gib=0.0 if settings.model_in_image else plan.engine.checkpoint_gib,
                shared=plan.replicas.max_replicas > 1,
                storage_class=settings.kubernetes_storage_class,
                retain=settings.protect,
            ),
            self._child,
        )

    def _make_engine(self, replicas: int) -> None:
        plan = self._plan
        ports = (plan.engine.port, plan.gateway.port, plan.gateway.metrics_port)
        self._policies = NetworkPolicies(
            self._name("network-policies"), NetworkPoliciesArgs(self.namespace, self._labels, *ports), self._child
        )
        self.engine = Engine(
            self._name("engine"),
            EngineArgs(
                namespace=self.namespace,
                labels=self._labels,
                plan=plan,
                replicas=replicas,
                claim_name=self.weights.claim_name,
                hf_token_name=self.secrets.hf_token_name,
                node_instance_types=self._settings.instance_types,
                needs=(self._policies,),
            ),
            self._child,
        )

    def _make_gateway(self) -> None:
        settings, plan, namespace = self._settings, self._plan, self.namespace
        access = GatewayAccess(self._name("gateway-access"), GatewayAccessArgs(namespace, self._labels), self._child)
        self.gateway = Gateway(
            self._name("gateway"),
            GatewayArgs(
                namespace=namespace,
                labels=self._labels,
                plan=plan.gateway,
                api_keys_name=self.secrets.api_keys_name,
                # The trailing dot prevents the resolver from trying the name under its search domains.
                discovery=pulumi.Output.format(
                    "dns:{0}.{1}.svc.cluster.local.:{2}", self.engine.service_name, namespace, plan.engine.port
                ),
                capacity=pulumi.Output.format("kubernetes:{0}/{1}", namespace, ENGINE),
                service_account=access.service_account,
                service_port=80 if settings.domain else settings.endpoint_port,
                allowed_cidrs=() if settings.domain else settings.allowed_cidrs,
                needs=(self._policies, access),
            ),
            self._child,
        )

    def _make_ingress(self) -> None:
        settings = self._settings
        if not settings.domain:
            return
        Ingress(
            self._name("ingress"),
            IngressArgs(
                namespace=self.namespace,
                labels=self._labels,
                ingress_class=settings.kubernetes_ingress_class,
                domain=settings.domain,
                certificate_arn=settings.certificate_arn,
                allowed_cidrs=settings.allowed_cidrs,
                idle_timeout_seconds=self._plan.gateway.idle_timeout_seconds,
                service_name=self.gateway.service_name,
            ),
            self._child,
        )
