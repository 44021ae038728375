"""An endpoint on ECS, put together step by step; each step uses what the earlier ones declared."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

import pulumi

from infra.aws.access_logs import AccessLogs, AccessLogsArgs
from infra.aws.adopted_weights import AdoptedWeights
from infra.aws.alarms import Alarms, AlarmsArgs
from infra.aws.budget import Budget, BudgetArgs
from infra.aws.context import Context
from infra.aws.dashboard import Dashboard, DashboardArgs
from infra.aws.domain import Certificate, CertificateArgs, DomainRecord, DomainRecordArgs, find_hosted_zone
from infra.aws.engine import Engine, EngineArgs
from infra.aws.engine_image import EngineImage, EngineImageArgs
from infra.aws.firewall import Firewall, FirewallArgs
from infra.aws.flow_logs import FlowLogs, FlowLogsArgs
from infra.aws.gateway import Gateway, GatewayArgs
from infra.aws.gateway_image import GatewayImage, GatewayImageArgs
from infra.aws.gpu_cluster import GpuCluster, GpuClusterArgs
from infra.aws.load_balancer import LoadBalancer, LoadBalancerArgs, listener_ports
from infra.aws.metrics import StackMetrics
from infra.aws.network import SERVING_ZONES, Network, NetworkArgs
from infra.aws.observability import Observability, ObservabilityArgs
from infra.aws.outputs import stack_outputs
from infra.aws.registry import repository_arn
from infra.aws.roles import Roles, RolesArgs
from infra.aws.scaling import Scaling, ScalingArgs
from infra.aws.secrets import Secrets, SecretsArgs
from infra.aws.security_groups import HTTPS_PORT, SecurityGroups, SecurityGroupsArgs
from infra.aws.time_to_live import TimeToLive, TimeToLiveArgs, end_of_life
from infra.aws.weights import Weights, WeightsArgs
from infra.aws.weights_fetch import WeightsFetch, WeightsFetchArgs
from infra.component import keys_of, token_of
from infra.planning.plan import ServingPlan
from infra.settings import FastBoot, Settings, WeightsThroughput
from infra.settings import FlowLogs as Traffic
from infra.web_address import AddressError, parse

EVERYBODY = "0.0.0.0/0"


class Assembly:
    """The parts of an endpoint, which are attributes once their step has run.

    Args:
        context: account, region, names and tags.
        settings: values that only the deployment uses: network, names, secrets, safeguards.
        plan: the serving plan.
        network_args: the network, looked up or to be created.
        adopted: an existing file system for the weights, or None.
    """

    def __init__(
        self,
        context: Context,
        settings: Settings,
        plan: ServingPlan,
        network_args: NetworkArgs,
        adopted: AdoptedWeights | None,
    ) -> None:
        self._context, self._settings, self._plan = context, settings, plan
        self._prefix, self._child = context.prefix, pulumi.ResourceOptions(parent=context.parent)
        self._make_network(network_args)
        self._make_storage(adopted)
        self._make_images()
        self._make_engine()
        self._make_front_door()
        self._make_gateway()
        self._make_scaling()
        self._make_monitoring()
        self._make_safeguards()

    def outputs(self) -> dict[str, pulumi.Input[Any]]:
        """The outputs by name, as the stack-file program exports them."""
        return stack_outputs(
            self._settings, self._plan, self._context, balancer=self.balancer, gpu_cluster=self.gpu_cluster,
            engine=self.engine, gateway=self.gateway, secrets=self.secrets, weights=self.weights, logs=self.logs,
            image=self.image, ends_at=self.ends_at, dashboard=self.dashboard,
        )  # fmt: skip

    # -- network -----------------------------------------------------------------------

    def _make_network(self, args: NetworkArgs) -> None:
        context, settings, plan = self._context, self._settings, self._plan
        self.network = network = Network(f"{self._prefix}-network", args, self._child)
        self.groups = SecurityGroups(
            f"{self._prefix}-sg",
            SecurityGroupsArgs(
                context=context,
                vpc_id=network.vpc_id,
                listener_ports=listener_ports(settings.endpoint_port, settings.https),
                client_cidrs=_client_cidrs(settings, network),
                client_groups=settings.allowed_security_group_ids,
                former_labels=_former_labels(settings, network),
                gateway_port=plan.gateway.port,
                engine_port=plan.engine.port,
                hub_port=_hub_port(plan.engine.environment.get("HF_ENDPOINT", "")),
            ),
            self._child,
        )
        self.logs = logs = Observability(
            f"{self._prefix}-logs",
            ObservabilityArgs(
                context=context,
                retention_days=settings.log_retention_days,
                kms_key_arn=settings.kms_key_arn,
                retain=settings.protect,
                network=not settings.vpc_id and settings.flow_logs is not Traffic.NONE,
            ),
            self._child,
        )
        if logs.network:
            flow_logs = FlowLogsArgs(context, network.vpc_id, settings.flow_logs, logs.network)
            FlowLogs(f"{self._prefix}-flow", flow_logs, self._child)
        self._ground = (network, self.groups)  # tasks and instances need outbound connectivity and security group rules

    # -- storage -----------------------------------------------------------------------

    def _make_storage(self, adopted: AdoptedWeights | None) -> None:
        context, settings = self._context, self._settings
        self.roles = roles = Roles(f"{self._prefix}-role", RolesArgs(context=context), self._child)
        self.secrets = Secrets(
            f"{self._prefix}-secret",
            SecretsArgs(
                context=context,
                keys_document=keys_of(settings),
                hf_token=token_of(settings),
                kms_key_arn=settings.kms_key_arn,
                retain=settings.protect,
            ),
            self._child,
        )
        self.weights = Weights(
            f"{self._prefix}-weights",
            WeightsArgs(
                context=context,
                subnets=self.network.mount_subnets,
                security_group_id=self.groups.weights.id,
                client_security_group_id=self.groups.engine.id,
                readers={"engine": roles.engine_task, "fetch": roles.fetch_task},
                throughput=settings.weights_throughput,
                kms_key_arn=settings.kms_key_arn,
                retain=settings.protect,
                adopted=adopted,
                bucket=settings.bucket,
            ),
            self._child,
        )

    def _make_images(self) -> None:
        context, settings, plan = self._context, self._settings, self._plan
        self.engine_image = EngineImage(
            f"{self._prefix}-engine-image",
            EngineImageArgs(
                context=context,
                image=plan.engine.image,
                credentials_arn=settings.docker_hub_credentials_arn,
                kms_key_arn=settings.kms_key_arn,
            ),
            self._child,
        )
        self.image: GatewayImage | None = None
        if not plan.gateway.image:
            built = GatewayImageArgs(context, settings.kms_key_arn, settings.protect)
            self.image = GatewayImage(f"{self._prefix}-image", built, self._child)
        self._small_image = self.image.reference if self.image else plan.gateway.image

    # -- engine ------------------------------------------------------------------------

    def _make_engine(self) -> None:
        context, settings, plan = self._context, self._settings, self._plan
        self.gpu_cluster = GpuCluster(
            f"{self._prefix}-gpu",
            GpuClusterArgs(
                context=context,
                plan=plan.replicas,
                purchase=settings.capacity,
                reservation_id=settings.capacity_reservation_id,
                warm_pool=settings.warm_pool,
                image=self.engine_image,
                subnet_ids=self.network.gpu_subnet_ids,
                security_group_id=self.groups.instance.id,
                role=self.roles.instance,
                kms_key_arn=settings.kms_key_arn,
                needs=self._ground,
            ),
            self._child,
        )
        repository = self.image.repository.arn if self.image else repository_arn(plan.gateway.image, context.partition)
        self.engine = Engine(
            f"{self._prefix}-engine",
            EngineArgs(
                context=context,
                plan=plan,
                image=self.engine_image,
                gateway_image=self._small_image,
                gateway_repository_arn=repository,
                gpu_cluster=self.gpu_cluster,
                weights=self.weights,
                roles=self.roles,
                vpc_id=self.network.vpc_id,
                subnet_ids=self.network.gpu_subnet_ids,
                security_group_id=self.groups.engine.id,
                log_group=self.logs.engine,
                hf_token_arn=self.secrets.hf_token_arn,
                kms_key_arn=settings.kms_key_arn,
                needs=(*self._ground, self.secrets),
                shares_vpc=bool(settings.vpc_id),
            ),
            self._child,
        )
        self._fetch_weights()

    def _fetch_weights(self) -> None:
        WeightsFetch(
            f"{self._prefix}-fetch",
            WeightsFetchArgs(
                context=self._context,
                plan=self._plan,
                image=self._small_image,
                gpu_cluster=self.gpu_cluster,
                engine=self.engine,
                weights=self.weights,
                roles=self.roles,
                subnet_ids=self.network.private_subnet_ids,
                security_group_id=self.groups.engine.id,
                log_group=self.logs.engine,
                hf_token_arn=self.secrets.hf_token_arn,
                prewarm=self._settings.fast_boot is FastBoot.COMPILE_CACHE,
                needs=(*self._ground, self.secrets),
                token_version=self.secrets.hf_token_version,
            ),
            self._child,
        )

    # -- gateway -----------------------------------------------------------------------

    def _make_front_door(self) -> None:
        context, settings, plan, network = self._context, self._settings, self._plan, self.network
        zone_id: pulumi.Input[str] = ""
        if settings.domain:
            zone_id = settings.hosted_zone_id or find_hosted_zone(settings.domain, settings.hosted_zone, context.lookup)
        certificate: pulumi.Input[str] | None = settings.certificate_arn or None
        if settings.domain and not certificate:
            proven = CertificateArgs(context, settings.domain, zone_id)
            certificate = Certificate(f"{self._prefix}-certificate", proven, self._child).arn
        # In a VPC that the stack creates, an internal load balancer goes into the private subnets, like the gateways.
        subnets = network.public_subnet_ids
        if settings.internal and not settings.vpc_id:
            subnets = network.private_subnet_ids[:SERVING_ZONES]
        access_logs = None
        if settings.access_logs:
            kept = AccessLogsArgs(context, settings.log_retention_days, settings.protect)
            access_logs = AccessLogs(f"{self._prefix}-access", kept, self._child)
        self.balancer = LoadBalancer(
            f"{self._prefix}-balancer",
            LoadBalancerArgs(
                context=context,
                vpc_id=network.vpc_id,
                subnet_ids=subnets,
                security_group_id=self.groups.load_balancer.id,
                internal=settings.internal,
                port=settings.endpoint_port,
                certificate_arn=certificate,
                target_port=plan.gateway.port,
                idle_timeout_seconds=plan.gateway.idle_timeout_seconds,
                protect=settings.protect,
                access_logs=access_logs,
                needs=(self.groups, *(() if settings.internal else network.public_way)),
            ),
            self._child,
        )
        if settings.waf_requests_per_five_minutes:
            firewall = FirewallArgs(context, self.balancer.resource.arn, settings.waf_requests_per_five_minutes)
            Firewall(f"{self._prefix}-firewall", firewall, self._child)
        if settings.domain:
            record = DomainRecordArgs(settings.domain, zone_id, self.balancer.resource)
            DomainRecord(f"{self._prefix}-domain", record, self._child)

    def _make_gateway(self) -> None:
        self.gateway = Gateway(
            f"{self._prefix}-gateway",
            GatewayArgs(
                context=self._context,
                plan=self._plan.gateway,
                gpu_cluster=self.gpu_cluster,
                engine=self.engine,
                image=self.image,
                load_balancer=self.balancer,
                load_balancer_network=self.network.vpc_cidr,
                roles=self.roles,
                subnet_ids=self.network.private_subnet_ids[:SERVING_ZONES],
                security_group_id=self.groups.gateway.id,
                log_group=self.logs.gateway,
                api_keys_arn=self.secrets.api_keys_arn,
                kms_key_arn=self._settings.kms_key_arn,
                needs=(*self._ground, self.secrets),
            ),
            self._child,
        )

    # -- scaling -----------------------------------------------------------------------

    def _make_scaling(self) -> None:
        Scaling(
            f"{self._prefix}-scaling",
            ScalingArgs(
                context=self._context,
                plan=self._plan,
                cluster=self.gpu_cluster.cluster,
                service=self.engine.service,
                group=self.gpu_cluster.group,
                metrics_stack=self.gateway.metrics_stack,
            ),
            self._child,
        )

    # -- monitoring and safeguards -----------------------------------------------------

    def _make_monitoring(self) -> None:
        context, settings, plan = self._context, self._settings, self._plan
        metrics = StackMetrics(
            stack=self.gateway.metrics_stack,
            group=self.gpu_cluster.group.name,
            load_balancer=self.balancer.resource.arn_suffix,
            target_group=self.balancer.target_group.arn_suffix,
            file_system=self.weights.file_system.id,
        )
        self._topic_arn: pulumi.Output[str] | None = None
        if settings.alarm_email:
            alarms = AlarmsArgs(
                context=context,
                plan=plan,
                metrics=metrics,
                bursting=settings.weights_throughput is WeightsThroughput.BURSTING,
                email=settings.alarm_email,
                kms_key_arn=settings.kms_key_arn,
            )
            self._topic_arn = Alarms(f"{self._prefix}-alarm", alarms, self._child).topic_arn
        self.dashboard: Dashboard | None = None
        if settings.dashboard:
            logs = self.logs
            shown = DashboardArgs(context, plan, metrics, gateway_logs=logs.gateway.name, engine_logs=logs.engine.name)
            self.dashboard = Dashboard(f"{self._prefix}-dashboard", shown, self._child)

    def _make_safeguards(self) -> None:
        context, settings = self._context, self._settings
        cluster, service, group = self.gpu_cluster.cluster, self.engine.service, self.gpu_cluster.group
        self.ends_at: datetime.datetime | None = None
        if settings.ttl_hours:
            self.ends_at = end_of_life(datetime.datetime.now(datetime.UTC), settings.ttl_hours)
            ending = TimeToLiveArgs(context, self.ends_at, cluster, service, group, self._topic_arn)
            TimeToLive(f"{self._prefix}-ttl", ending, self._child)
        if settings.monthly_budget_usd and self._topic_arn is not None:  # the budget requires an address for alarms
            budget = BudgetArgs(
                context=context,
                usd_per_month=settings.monthly_budget_usd,
                email=settings.alarm_email,
                topic_arn=self._topic_arn,
                cluster=cluster,
                service=service,
                group=group,
                log_retention_days=settings.log_retention_days,
                kms_key_arn=settings.kms_key_arn,
            )
            Budget(f"{self._prefix}-budget", budget, self._child)


def _client_cidrs(settings: Settings, network: Network) -> dict[str, pulumi.Input[str]]:
    """The CIDR ranges that may connect to the load balancer.

    These are the ones set; if none is, the VPC's own for an internal load balancer that no security group is allowed to
    reach, and all addresses over HTTPS.
    """
    if settings.allowed_cidrs:
        return {cidr: cidr for cidr in map(_canonical, settings.allowed_cidrs)}
    if not settings.internal:
        return {EVERYBODY: EVERYBODY}
    return {} if settings.allowed_security_group_ids else {network.client_cidr: network.vpc_cidr}


def _canonical(cidr: str) -> str:
    """The form that AWS stores, so that equal ranges get one rule."""
    return str(ipaddress.ip_network(cidr, strict=False))


def _hub_port(endpoint: str) -> int:
    """The port of the engine's HF_ENDPOINT, wherever it is set; vLLM reports an address that is not one."""
    try:
        return parse(endpoint).port if endpoint else HTTPS_PORT
    except AddressError:
        return HTTPS_PORT


def _former_labels(settings: Settings, network: Network) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cidr in settings.allowed_cidrs:
        found.setdefault(_canonical(cidr), []).extend([cidr] if cidr != _canonical(cidr) else [])
    for cidr, label in ((network.client_cidr, "network"), (EVERYBODY, "internet")):
        found.setdefault(cidr, []).append(label)
    return found
