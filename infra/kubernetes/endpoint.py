"""The component: an endpoint on a Kubernetes cluster, in any Pulumi program."""

# The plugin's schema is inferred from these annotations, which must be types and not their text.

from collections.abc import Iterator
from typing import Any, Self

import pulumi

from infra.changes import endpoint_of, estimate_of, hold_place
from infra.component import Endpoint, planned, refusals_named, settings_of
from infra.component_args import VllmEndpointOnKubernetesArgs
from infra.errors import PlanError
from infra.identity import Identity
from infra.kubernetes import exposure
from infra.kubernetes.assembly import Assembly
from infra.kubernetes.gateway import local_image
from infra.kubernetes.pods import LONGEST_LABEL
from infra.planning.plan import ServingPlan
from infra.settings import Settings, Target

KIND = "VllmEndpointOnKubernetes"


class VllmEndpointOnKubernetes(Endpoint):
    """An endpoint on a Kubernetes cluster that serves a model with vLLM through the OpenAI API.

    It creates a namespace of its own, named after the component unless `kubernetesNamespace` is set.
    """

    endpoint_url: pulumi.Output[str]
    """The base URL, without /v1."""
    openai_base_url: pulumi.Output[str]
    """The base URL for OpenAI clients, with /v1."""
    served_model_name: pulumi.Output[str]
    """The name that clients send as `model`."""
    namespace: pulumi.Output[str]
    """The namespace of all objects."""
    api_keys_secret_name: pulumi.Output[str]
    """The Secret that contains the API keys."""
    engine_service_name: pulumi.Output[str]
    """The Service of vLLM."""
    gateway_service_name: pulumi.Output[str]
    """The Service of the gateway, for example for an Ingress of your own."""
    weights_claim_name: pulumi.Output[str]
    """The PersistentVolumeClaim of the weights."""
    usd_per_hour_active: pulumi.Output[float]
    """The cost per hour at AWS's list price while one replica runs, in US dollars."""
    usd_per_hour_idle: pulumi.Output[float]
    """The cost per hour at AWS's list price while no replica above `minReplicas` runs, in US dollars."""
    details: pulumi.Output[dict[str, Any]]
    """Everything above and more in one record, which `make verify` and the benchmarks read."""

    def __init__(
        self,
        name: str,
        args: VllmEndpointOnKubernetesArgs = None,  # type: ignore[assignment] # it may be left out, but a schema is inferred from this type
        opts: pulumi.ResourceOptions | None = None,
        **values: Any,
    ) -> None:
        """Declare an endpoint.

        Args:
            name: the component's name, from which the namespace and the labels are derived.
            args: the arguments, which are the stack file's settings in snake_case.
            opts: options. The provider selects the cluster.
            values: the same arguments, as keywords.

        Raises:
            pulumi.RunError: the arguments cannot work.
        """
        given = {**(args or {}), **values}
        identity = Identity(pulumi.get_stack(), pulumi.get_project(), name)
        # Two endpoints of one cluster must not share a namespace.
        if not given.get("kubernetes_namespace"):
            given["kubernetes_namespace"] = identity.prefix(LONGEST_LABEL)
        settings = settings_of(KIND, name, Target.KUBERNETES, given)
        with refusals_named(f"{KIND} {name}"):
            self._declare(name, settings, identity, opts)

    @classmethod
    def of_stack(cls, settings: Settings) -> Self:
        """The endpoint of the stack-file program, named after the stack.

        Raises:
            UserError: the settings cannot work.
        """
        made = cls.__new__(cls)
        made._declare("endpoint", settings, Identity(pulumi.get_stack()), None)
        return made

    def _declare(self, name: str, settings: Settings, identity: Identity, opts: pulumi.ResourceOptions | None) -> None:
        plan = planned(settings)
        if problems := exposure.problems(settings):
            raise PlanError(problems)
        self._start(KIND, name, identity, settings, opts)
        replicas = max(1, plan.replicas.min_replicas)
        for warning in (*plan.warnings, *_warnings(settings, plan, replicas)):
            pulumi.log.warn(warning, self)
        hold_place(identity.record("place"), self, {"target": settings.target.value}, self.record_parents)
        made = Assembly(self, identity, settings, plan, replicas)
        self._watch.say(self, endpoint_of(settings, plan), estimate_of(settings, plan, restarts_all=replicas == 1))
        found = made.outputs()
        self.endpoint_url = pulumi.Output.from_input(found["endpoint"])
        self.openai_base_url = pulumi.Output.from_input(found["openaiBaseUrl"])
        self.served_model_name = pulumi.Output.from_input(plan.served_model_name)
        self.namespace = made.namespace
        self.api_keys_secret_name = made.secrets.api_keys_name
        self.engine_service_name = made.engine.service_name
        self.gateway_service_name = made.gateway.service_name
        self.weights_claim_name = made.weights.claim_name
        self.usd_per_hour_active = pulumi.Output.from_input(plan.cost.usd_per_hour_active)
        self.usd_per_hour_idle = pulumi.Output.from_input(plan.cost.usd_per_hour_idle)
        self.details = pulumi.Output.from_input(found)
        self._finish(found)


def _warnings(settings: Settings, plan: ServingPlan, replicas: int) -> Iterator[str]:
    """Settings that have no effect on this target, or need something of the cluster."""
    if not plan.gateway.image:
        image = local_image()
        yield (
            f"gatewayImage is not set: {image} must already exist on every node. Build it with `docker build -f "
            f"image/gateway.Dockerfile -t {image} .` and load it (kind load docker-image, minikube image load); or push "
            "it to your registry and set gatewayImage to its name there"
        )
    if plan.replicas.max_replicas > replicas:
        yield (
            f"maxReplicas is {plan.replicas.max_replicas}, but target kubernetes does not support autoscaling yet: {replicas} will run. "
            "Set minReplicas to run more"
        )
    ingress_class = settings.kubernetes_ingress_class
    if settings.domain and ingress_class and not exposure.controller_of(ingress_class):
        yield (
            f"kubernetesIngressClass {ingress_class}: set its controller's timeouts to at least "
            f"{plan.gateway.idle_timeout_seconds} s and its body limit to 20 MB yourself; its annotations are not "
            "supported (only classes with nginx or alb in their name are)"
        )
    if keys := exposure.without_effect(settings):
        yield f"target kubernetes ignores: {', '.join(keys)}. Use the cluster's own tools instead"
