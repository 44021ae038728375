"""The ECS target: creates the components in order and passes each one the outputs of the previous ones."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.access_logs import AccessLogs, AccessLogsArgs
from infra.aws.adopted_weights import adopt
from infra.aws.alarms import Alarms, AlarmsArgs
from infra.aws.budget import Budget, BudgetArgs
from infra.aws.context import Context
from infra.aws.dashboard import Dashboard, DashboardArgs
from infra.aws.domain import Certificate, CertificateArgs, DomainRecord, DomainRecordArgs, find_hosted_zone
from infra.aws.engine import Engine, EngineArgs, minimum_healthy_percent
from infra.aws.engine_image import EngineImage, EngineImageArgs
from infra.aws.firewall import Firewall, FirewallArgs
from infra.aws.flow_logs import FlowLogs, FlowLogsArgs
from infra.aws.gateway import Gateway, GatewayArgs
from infra.aws.gateway_image import GatewayImage, GatewayImageArgs
from infra.aws.gpu_cluster import GpuCluster, GpuClusterArgs
from infra.aws.load_balancer import LoadBalancer, LoadBalancerArgs, listener_ports
from infra.aws.lookups import ask, check_account, check_credentials, find_network, profile_name, zones_by_offer
from infra.aws.metrics import StackMetrics
from infra.aws.network import SERVING_ZONES, Network, NetworkArgs
from infra.aws.observability import Observability, ObservabilityArgs
from infra.aws.outputs import stack_outputs
from infra.aws.registry import repository_arn
from infra.aws.roles import Roles, RolesArgs
from infra.aws.scaling import Scaling, ScalingArgs
from infra.aws.secrets import Secrets, SecretsArgs
from infra.aws.security_groups import SecurityGroups, SecurityGroupsArgs
from infra.aws.time_to_live import TimeToLive, TimeToLiveArgs, end_of_life
from infra.aws.weights import Weights, WeightsArgs
from infra.aws.weights_fetch import WeightsFetch, WeightsFetchArgs
from infra.changes import Watch, endpoint_of, estimate_of, hold_place, place_of
from infra.errors import DeployError
from infra.planning.plan import ServingPlan
from infra.preflight import vcpu_quota
from infra.settings import FastBoot, Settings, WeightsThroughput
from infra.settings import FlowLogs as Traffic

EVERYBODY = "0.0.0.0/0"


def deploy(settings: Settings, plan: ServingPlan) -> dict[str, pulumi.Input[Any]]:
    """Declare the stack on ECS.

    Args:
        settings: values that only the deployment uses: network, names, secrets, safeguards.
        plan: the serving plan.

    Returns:
        The stack's outputs, by name.

    Raises:
        DeployError: the stack cannot be deployed to this account.
    """
    signed_in = check_credentials()
    context = find_context(settings)
    if signed_in:
        _check_quota(context, settings, plan)
    prefix = context.prefix
    network_args = _network(context, settings, plan)
    adopted = adopt(settings, context, network_args.existing)
    hold_place("place", place_of(settings, context.account_id, context.region))
    watch = Watch(f"{prefix}-endpoint", f"{prefix}-")
    network = Network(f"{prefix}-network", network_args)
    groups = SecurityGroups(
        f"{prefix}-sg",
        SecurityGroupsArgs(
            context=context,
            vpc_id=network.vpc_id,
            listener_ports=listener_ports(settings.endpoint_port, settings.https),
            client_cidrs=_client_cidrs(settings, network),
            former_labels=_former_labels(settings, network),
            gateway_port=plan.gateway.port,
            engine_port=plan.engine.port,
        ),
    )
    logs = Observability(
        f"{prefix}-logs",
        ObservabilityArgs(
            context=context,
            retention_days=settings.log_retention_days,
            kms_key_arn=settings.kms_key_arn,
            retain=settings.protect,
            network=not settings.vpc_id and settings.flow_logs is not Traffic.NONE,
        ),
    )
    if logs.network:
        FlowLogs(f"{prefix}-flow", FlowLogsArgs(context, network.vpc_id, settings.flow_logs, logs.network))
    roles = Roles(f"{prefix}-role", RolesArgs(context=context))
    secrets = Secrets(f"{prefix}-secret", _secrets_args(context, settings))
    ground = (network, groups)  # tasks and instances need outbound connectivity and security group rules
    weights = Weights(
        f"{prefix}-weights",
        WeightsArgs(
            context=context,
            subnets=network.mount_subnets,
            security_group_id=groups.weights.id,
            client_security_group_id=groups.engine.id,
            readers={"engine": roles.engine_task, "fetch": roles.fetch_task},
            throughput=settings.weights_throughput,
            kms_key_arn=settings.kms_key_arn,
            retain=settings.protect,
            adopted=adopted,
        ),
    )
    engine_image = EngineImage(
        f"{prefix}-engine-image",
        EngineImageArgs(
            context=context,
            image=plan.engine.image,
            credentials_arn=settings.docker_hub_credentials_arn,
            kms_key_arn=settings.kms_key_arn,
        ),
    )
    image = None
    if not plan.gateway.image:
        image = GatewayImage(f"{prefix}-image", GatewayImageArgs(context, settings.kms_key_arn, settings.protect))
    small_image = image.reference if image else plan.gateway.image
    gpu_cluster = GpuCluster(
        f"{prefix}-gpu",
        GpuClusterArgs(
            context=context,
            plan=plan.replicas,
            purchase=settings.capacity,
            reservation_id=settings.capacity_reservation_id,
            warm_pool=settings.warm_pool,
            image=engine_image,
            subnet_ids=network.gpu_subnet_ids,
            security_group_id=groups.instance.id,
            role=roles.instance,
            kms_key_arn=settings.kms_key_arn,
            needs=ground,
        ),
    )
    engine = Engine(
        f"{prefix}-engine",
        EngineArgs(
            context=context,
            plan=plan,
            image=engine_image,
            gateway_image=small_image,
            gateway_repository_arn=image.repository.arn
            if image
            else repository_arn(plan.gateway.image, context.partition),
            gpu_cluster=gpu_cluster,
            weights=weights,
            roles=roles,
            vpc_id=network.vpc_id,
            subnet_ids=network.gpu_subnet_ids,
            security_group_id=groups.engine.id,
            log_group=logs.engine,
            hf_token_arn=secrets.hf_token_arn,
            kms_key_arn=settings.kms_key_arn,
            needs=(*ground, secrets),
            shares_vpc=bool(settings.vpc_id),
        ),
    )
    WeightsFetch(
        f"{prefix}-fetch",
        WeightsFetchArgs(
            context=context,
            plan=plan,
            image=small_image,
            gpu_cluster=gpu_cluster,
            engine=engine,
            weights=weights,
            roles=roles,
            subnet_ids=network.private_subnet_ids,
            security_group_id=groups.engine.id,
            log_group=logs.engine,
            hf_token_arn=secrets.hf_token_arn,
            prewarm=settings.fast_boot is FastBoot.COMPILE_CACHE,
            needs=(*ground, secrets),
            token_version=secrets.hf_token_version,
        ),
    )
    balancer = _load_balancer(context, settings, plan, network, groups)
    gateway = Gateway(
        f"{prefix}-gateway",
        GatewayArgs(
            context=context,
            plan=plan.gateway,
            gpu_cluster=gpu_cluster,
            engine=engine,
            image=image,
            load_balancer=balancer,
            load_balancer_network=network.vpc_cidr,
            roles=roles,
            subnet_ids=network.private_subnet_ids[:SERVING_ZONES],
            security_group_id=groups.gateway.id,
            log_group=logs.gateway,
            api_keys_arn=secrets.api_keys_arn,
            kms_key_arn=settings.kms_key_arn,
            needs=(*ground, secrets),
        ),
    )
    Scaling(
        f"{prefix}-scaling",
        ScalingArgs(
            context=context,
            plan=plan,
            cluster=gpu_cluster.cluster,
            service=engine.service,
            group=gpu_cluster.group,
            metrics_stack=gateway.metrics_stack,
        ),
    )
    metrics = StackMetrics(
        stack=gateway.metrics_stack,
        group=gpu_cluster.group.name,
        load_balancer=balancer.resource.arn_suffix,
        target_group=balancer.target_group.arn_suffix,
        file_system=weights.file_system.id,
    )
    if settings.alarm_email:
        Alarms(
            f"{prefix}-alarm",
            AlarmsArgs(
                context=context,
                plan=plan,
                metrics=metrics,
                bursting=settings.weights_throughput is WeightsThroughput.BURSTING,
                email=settings.alarm_email,
                kms_key_arn=settings.kms_key_arn,
            ),
        )
    dashboard = None
    if settings.dashboard:
        shown = DashboardArgs(context, plan, metrics, gateway_logs=logs.gateway.name, engine_logs=logs.engine.name)
        dashboard = Dashboard(f"{prefix}-dashboard", shown)
    ends_at = None
    if settings.ttl_hours:
        ends_at = end_of_life(datetime.datetime.now(datetime.UTC), settings.ttl_hours)
        TimeToLive(
            f"{prefix}-ttl", TimeToLiveArgs(context, ends_at, gpu_cluster.cluster, engine.service, gpu_cluster.group)
        )
    if settings.monthly_budget_usd:
        Budget(
            f"{prefix}-budget",
            BudgetArgs(
                context=context,
                usd_per_month=settings.monthly_budget_usd,
                email=settings.alarm_email,
                cluster=gpu_cluster.cluster,
                service=engine.service,
                group=gpu_cluster.group,
                log_retention_days=settings.log_retention_days,
                kms_key_arn=settings.kms_key_arn,
            ),
        )
    restarts_all = minimum_healthy_percent(plan.replicas.min_replicas) == 0
    watch.say(endpoint_of(settings, plan), estimate_of(settings, plan, restarts_all=restarts_all))
    return stack_outputs(
        settings, plan, context, balancer=balancer, gpu_cluster=gpu_cluster, engine=engine, gateway=gateway,
        secrets=secrets, weights=weights, logs=logs, image=image, ends_at=ends_at, dashboard=dashboard,
    )  # fmt: skip


def find_context(settings: Settings) -> Context:
    """The account and region that the stack is deployed to.

    Raises:
        DeployError: credentials or region are missing, or the account is not in aws:allowedAccountIds.
    """
    account_id = ask("the account", lambda: aws.get_caller_identity().account_id)
    check_account(account_id)
    return Context(
        stack=pulumi.get_stack(),
        region=ask("the region", lambda: aws.get_region().region),
        account_id=account_id,
        partition=ask("the partition", lambda: aws.get_partition().partition),
        owner=settings.owner,
    )


def _check_quota(context: Context, settings: Settings, plan: ServingPlan) -> None:
    findings = vcpu_quota(settings, plan, context.region, None, profile_name() or None)
    for warning in findings.warnings:
        pulumi.log.warn(warning)
    if findings.refusals:
        raise DeployError("\n".join(findings.refusals))


def _network(context: Context, settings: Settings, plan: ServingPlan) -> NetworkArgs:
    instance_types = plan.replicas.instance_types
    offering, others = zones_by_offer(instance_types, context.region)
    existing = None
    if settings.vpc_id:
        existing = find_network(
            settings.vpc_id, settings.subnet_ids, settings.load_balancer_subnet_ids, offering, instance_types
        )
    return NetworkArgs(
        context=context,
        zones=(*offering, *others),
        gpu_zones=offering,
        nat_gateways=settings.nat_gateways,
        instance_types=[instance_type.name for instance_type in instance_types],
        existing=existing,
    )


def _client_cidrs(settings: Settings, network: Network) -> dict[str, pulumi.Input[str]]:
    """CIDR ranges that may connect to the load balancer: allowedCidrs, else the VPC if internal, else the internet over HTTPS."""
    if settings.allowed_cidrs:
        return {cidr: cidr for cidr in map(_canonical, settings.allowed_cidrs)}
    return {network.client_cidr: network.vpc_cidr} if settings.internal else {EVERYBODY: EVERYBODY}


def _canonical(cidr: str) -> str:
    """The canonical form of a network, as AWS stores it, so that two spellings of one network do not create two rules."""
    return str(ipaddress.ip_network(cidr, strict=False))


def _former_labels(settings: Settings, network: Network) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cidr in settings.allowed_cidrs:
        found.setdefault(_canonical(cidr), []).extend([cidr] if cidr != _canonical(cidr) else [])
    for cidr, label in ((network.client_cidr, "network"), (EVERYBODY, "internet")):
        found.setdefault(cidr, []).append(label)
    return found


def _secrets_args(context: Context, settings: Settings) -> SecretsArgs:
    keys = settings.given_keys
    token = settings.hf_token.get_secret_value()
    return SecretsArgs(
        context=context,
        keys_document=pulumi.Output.secret(keys) if keys else None,
        hf_token=pulumi.Output.secret(token) if token else None,
        kms_key_arn=settings.kms_key_arn,
        retain=settings.protect,
    )


def _load_balancer(
    context: Context, settings: Settings, plan: ServingPlan, network: Network, groups: SecurityGroups
) -> LoadBalancer:
    zone_id = find_hosted_zone(settings.domain, settings.hosted_zone) if settings.domain else ""
    certificate: pulumi.Input[str] | None = settings.certificate_arn or None
    if settings.domain and not certificate:
        certificate = Certificate(
            f"{context.prefix}-certificate", CertificateArgs(context, settings.domain, zone_id)
        ).arn
    # In a VPC that the stack creates, an internal load balancer goes into the private subnets, like the gateways.
    subnets = network.public_subnet_ids
    if settings.internal and not settings.vpc_id:
        subnets = network.private_subnet_ids[:SERVING_ZONES]
    access_logs = None
    if settings.access_logs:
        access_logs = AccessLogs(
            f"{context.prefix}-access", AccessLogsArgs(context, settings.log_retention_days, settings.protect)
        )
    balancer = LoadBalancer(
        f"{context.prefix}-balancer",
        LoadBalancerArgs(
            context=context,
            vpc_id=network.vpc_id,
            subnet_ids=subnets,
            security_group_id=groups.load_balancer.id,
            internal=settings.internal,
            port=settings.endpoint_port,
            certificate_arn=certificate,
            target_port=plan.gateway.port,
            idle_timeout_seconds=plan.gateway.idle_timeout_seconds,
            protect=settings.protect,
            access_logs=access_logs,
            needs=(groups, *(() if settings.internal else network.public_way)),
        ),
    )
    if settings.waf_requests_per_five_minutes:
        firewall = FirewallArgs(context, balancer.resource.arn, settings.waf_requests_per_five_minutes)
        Firewall(f"{context.prefix}-firewall", firewall)
    if zone_id:
        record = DomainRecordArgs(settings.domain, zone_id, balancer.resource)
        DomainRecord(f"{context.prefix}-domain", record)
    return balancer
