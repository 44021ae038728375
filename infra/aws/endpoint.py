"""The component: an endpoint on AWS, in any Pulumi program."""

# The plugin's schema is inferred from these annotations, which must be types and not their text.

from typing import Any, Self

import pulumi

from infra.aws.account import check_offers, check_quota, find_context
from infra.aws.adopted_weights import adopt
from infra.aws.assembly import Assembly
from infra.aws.context import Context
from infra.aws.engine import minimum_healthy_percent
from infra.aws.existing_network import existing_network
from infra.aws.lookups import check_credentials, region_name, s3_client, zones_by_offer
from infra.aws.network import NetworkArgs
from infra.changes import endpoint_of, estimate_of, hold_place, place_of
from infra.component import USUAL_REGION, Endpoint, has_provider, planned, refusals_named, settings_of
from infra.component_args import VllmEndpointArgs
from infra.identity import Identity
from infra.planning.catalog.sources import config_reader
from infra.planning.plan import ServingPlan
from infra.settings import Settings, Target

KIND = "VllmEndpoint"


class VllmEndpoint(Endpoint):
    """An endpoint on AWS that serves a model with vLLM through the OpenAI API.

    ECS runs vLLM on GPU instances that start with the first request and stop when nobody asks, behind a gateway and a load
    balancer. A program can declare any number of them, each with its own provider. Without `vpcId` it creates a VPC.
    """

    endpoint_url: pulumi.Output[str]
    """The base URL, without /v1."""
    openai_base_url: pulumi.Output[str]
    """The base URL for OpenAI clients, with /v1."""
    served_model_name: pulumi.Output[str]
    """The name that clients send as `model`."""
    region: pulumi.Output[str]
    """The AWS region."""
    api_keys_secret_arn: pulumi.Output[str]
    """The ARN of the secret that contains the API keys."""
    security_group_id: pulumi.Output[str]
    """The load balancer's security group. Add rules to it, or reference it in rules of your own."""
    load_balancer_arn: pulumi.Output[str]
    """The load balancer, for example to associate a web ACL with it."""
    load_balancer_dns_name: pulumi.Output[str]
    """The load balancer's own DNS name, for an alias record."""
    load_balancer_zone_id: pulumi.Output[str]
    """The Route 53 zone of that DNS name, for an alias record."""
    listener_arn: pulumi.Output[str]
    """The endpoint's listener, for example to add rules to it."""
    cluster_name: pulumi.Output[str]
    """The ECS cluster. The gateway's metrics have it as the dimension Stack."""
    engine_service_name: pulumi.Output[str]
    """The ECS service of vLLM."""
    gateway_service_name: pulumi.Output[str]
    """The ECS service of the gateway."""
    auto_scaling_group_name: pulumi.Output[str]
    """The Auto Scaling group of the GPU instances."""
    engine_log_group: pulumi.Output[str]
    """The log group of vLLM."""
    gateway_log_group: pulumi.Output[str]
    """The log group of the gateway."""
    weights_file_system_id: pulumi.Output[str]
    """The EFS file system with the weights."""
    usd_per_hour_active: pulumi.Output[float]
    """The cost per hour at list price while one replica runs, in US dollars."""
    usd_per_hour_idle: pulumi.Output[float]
    """The cost per hour at list price while no replica above `minReplicas` runs, in US dollars."""
    details: pulumi.Output[dict[str, Any]]
    """Everything above and more in one record, which `make verify` and the benchmarks read."""

    def __init__(
        self,
        name: str,
        args: VllmEndpointArgs = None,  # type: ignore[assignment] # it may be left out, but a schema is inferred from this type
        opts: pulumi.ResourceOptions | None = None,
        **values: Any,
    ) -> None:
        """Declare an endpoint.

        Args:
            name: the component's name, from which the names of its resources are derived.
            args: the arguments, which are the stack file's settings in snake_case.
            opts: options. The provider is used for every resource and lookup.
            values: the same arguments, as keywords.

        Raises:
            pulumi.RunError: the arguments, the account or its region cannot work.
        """
        settings = settings_of(KIND, name, Target.ECS, {**(args or {}), **values})
        identity = Identity(pulumi.get_stack(), pulumi.get_project(), name)
        with refusals_named(f"{KIND} {name}"):
            self._declare(name, settings, identity, opts)

    @classmethod
    def of_stack(cls, settings: Settings) -> Self:
        """The endpoint of the stack-file program, named after the stack.

        Raises:
            UserError: the settings or the account cannot work.
        """
        made = cls.__new__(cls)
        made._declare("endpoint", settings, Identity(pulumi.get_stack()), None)
        return made

    def _declare(self, name: str, settings: Settings, identity: Identity, opts: pulumi.ResourceOptions | None) -> None:
        explicit = has_provider(opts, "aws")
        # Without a provider of its own, its region is known before AWS is asked anything, and so are the plan's problems.
        fetch = config_reader(settings, s3=s3_client)
        plan = None if explicit else planned(settings, region_name() or USUAL_REGION, fetch)
        self._start(KIND, name, identity, settings, opts)
        signed_in = explicit or check_credentials()
        context = find_context(settings, identity, self, explicit=explicit)
        if plan is None:
            plan = planned(settings, context.region, fetch)
        for warning in plan.warnings:
            pulumi.log.warn(warning, self)
        if signed_in:
            check_quota(context, settings, plan)
            plan = check_offers(context, settings, plan)
        network = _network(context, settings, plan)
        adopted = adopt(settings, context, network.existing)
        place = place_of(settings, context.account_id, context.region)
        hold_place(identity.record("place"), self, place, self.record_parents)
        made = Assembly(context, settings, plan, network, adopted)
        restarts_all = minimum_healthy_percent(plan.replicas.min_replicas) == 0
        self._watch.say(self, endpoint_of(settings, plan), estimate_of(settings, plan, restarts_all=restarts_all))
        self._expose(made, plan, context)

    def _expose(self, made: Assembly, plan: ServingPlan, context: Context) -> None:
        found, balancer = made.outputs(), made.balancer
        self.endpoint_url = pulumi.Output.from_input(found["endpoint"])
        self.openai_base_url = pulumi.Output.from_input(found["openaiBaseUrl"])
        self.served_model_name = pulumi.Output.from_input(plan.served_model_name)
        self.region = pulumi.Output.from_input(context.region)
        self.api_keys_secret_arn = made.secrets.api_keys_arn
        self.security_group_id = made.groups.load_balancer.id
        self.load_balancer_arn = balancer.resource.arn
        self.load_balancer_dns_name = balancer.dns_name
        self.load_balancer_zone_id = balancer.resource.zone_id
        self.listener_arn = balancer.ready.arn
        self.cluster_name = made.gpu_cluster.cluster.name
        self.engine_service_name = made.engine.service.name
        self.gateway_service_name = made.gateway.service.name
        self.auto_scaling_group_name = made.gpu_cluster.group.name
        self.engine_log_group = made.logs.engine.name
        self.gateway_log_group = made.logs.gateway.name
        self.weights_file_system_id = pulumi.Output.from_input(made.weights.file_system.id)
        self.usd_per_hour_active = pulumi.Output.from_input(plan.cost.usd_per_hour_active)
        self.usd_per_hour_idle = pulumi.Output.from_input(plan.cost.usd_per_hour_idle)
        self.details = pulumi.Output.from_input(found)
        self._finish(found)


def _network(context: Context, settings: Settings, plan: ServingPlan) -> NetworkArgs:
    instance_types = plan.replicas.instance_types
    offering, others = zones_by_offer(instance_types, context.region, context.lookup)
    return NetworkArgs(
        context=context,
        zones=(*offering, *others),
        gpu_zones=offering,
        nat_gateways=settings.nat_gateways,
        instance_types=[instance_type.name for instance_type in instance_types],
        existing=existing_network(settings, offering, instance_types, context.parent),
    )
