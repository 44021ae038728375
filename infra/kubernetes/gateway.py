"""The gateway: its Deployment, and the Service for clients and the Ingress."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import apps, core, meta, policy

from infra.containers import GATEWAY_USER_ID
from infra.inputs import Input
from infra.kubernetes.pods import COMPONENTS, Labels, container_security, environment, http_probe, pod_security
from infra.kubernetes.secrets import API_KEYS_FILE
from infra.planning.plan import GatewayPlan
from infra.stack_files import ROOT

NAME = "gateway"
IMAGE_NAME = "vllm-endpoint-gateway"
KEYS_FOLDER = "/run/keys"
# A Service or an Ingress controller takes a moment to remove a terminating pod; until then it still receives requests.
LEAVE_ROTATION_SECONDS = 15


def local_image() -> str:
    """The image that must exist on every node if ``gatewayImage`` is not set: this version's, without a registry."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return f"{IMAGE_NAME}:{project['version']}"


def image_of(plan: GatewayPlan) -> Input[str]:
    """The gateway's image, which also contains the engine's entrypoint."""
    return plan.image or local_image()


def pull_policy_of(plan: GatewayPlan) -> str:
    """Never for a name without a registry: a missing image must not be pulled from a public registry."""
    return "IfNotPresent" if plan.image else "Never"


@dataclass(frozen=True)
class GatewayArgs:
    """The inputs of the gateway.

    ``discovery`` and ``capacity``: the values of GATEWAY_DISCOVERY and GATEWAY_CAPACITY. ``service_account``: the account
    with the permissions that ``capacity`` requires. ``allowed_cidrs``: networks allowed by a cloud load balancer; empty for
    a Service inside the cluster. ``needs``: resources that must exist before a pod starts and must be deleted after the
    last pod.
    """

    namespace: pulumi.Input[str]
    labels: Labels
    plan: GatewayPlan
    api_keys_name: pulumi.Input[str]
    discovery: pulumi.Input[str]
    capacity: pulumi.Input[str]
    service_account: pulumi.Input[str]
    service_port: int
    allowed_cidrs: tuple[str, ...]
    needs: Sequence[pulumi.Resource] = ()


class Gateway(pulumi.ComponentResource):
    """Deployment, Service and, for several gateways, a PodDisruptionBudget.

    ``load_balancer`` is the host name or address of the cloud load balancer; empty without one.
    """

    service_name: pulumi.Output[str]
    load_balancer: pulumi.Output[str]

    def __init__(self, name: str, args: GatewayArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"{COMPONENTS}:Gateway", name, None, opts)
        labels = args.labels
        children = pulumi.ResourceOptions(parent=self)
        service = core.v1.Service(
            name,
            metadata=labels.metadata(NAME, args.namespace, name=NAME, annotations=_load_balancer_annotations(args)),
            spec=core.v1.ServiceSpecArgs(
                type="LoadBalancer" if args.allowed_cidrs else "ClusterIP",
                load_balancer_source_ranges=list(args.allowed_cidrs) or None,
                # Local preserves the client's address, on which the source ranges depend.
                external_traffic_policy="Local" if args.allowed_cidrs else None,
                selector=labels.of(NAME),
                ports=[core.v1.ServicePortArgs(name="http", port=args.service_port, target_port="http")],
            ),
            opts=children,
        )
        self.service_name = service.metadata.apply(lambda metadata: str(metadata.name))
        self.load_balancer = service.status.apply(_address)
        apps.v1.Deployment(
            name,
            metadata=labels.metadata(NAME, args.namespace, name=NAME),
            spec=apps.v1.DeploymentSpecArgs(
                replicas=args.plan.count,
                selector=meta.v1.LabelSelectorArgs(match_labels=labels.of(NAME)),
                strategy=apps.v1.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.v1.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                ),
                revision_history_limit=3,
                template=core.v1.PodTemplateSpecArgs(
                    metadata=meta.v1.ObjectMetaArgs(
                        labels=labels.of(NAME),
                        # The annotations that most Prometheus installations use for discovery.
                        annotations={"prometheus.io/scrape": "true", "prometheus.io/port": str(args.plan.metrics_port)},
                    ),
                    spec=_pod(args),
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.needs)),
        )
        if args.plan.count > 1:
            policy.v1.PodDisruptionBudget(
                name,
                metadata=labels.metadata(NAME, args.namespace, name=NAME),
                spec=policy.v1.PodDisruptionBudgetSpecArgs(
                    max_unavailable=1, selector=meta.v1.LabelSelectorArgs(match_labels=labels.of(NAME))
                ),
                opts=children,
            )
        self.register_outputs({"service_name": self.service_name, "load_balancer": self.load_balancer})


def _pod(args: GatewayArgs) -> core.v1.PodSpecArgs:
    selector = meta.v1.LabelSelectorArgs(match_labels=args.labels.of(NAME))
    return core.v1.PodSpecArgs(
        service_account_name=args.service_account,
        automount_service_account_token=True,
        # The Service named gateway would set GATEWAY_PORT=tcp://... in every pod of the namespace.
        enable_service_links=False,
        security_context=pod_security(GATEWAY_USER_ID, GATEWAY_USER_ID, volumes_group=GATEWAY_USER_ID),
        termination_grace_period_seconds=args.plan.stop_timeout_seconds,
        topology_spread_constraints=[
            core.v1.TopologySpreadConstraintArgs(
                max_skew=1, topology_key=key, when_unsatisfiable="ScheduleAnyway", label_selector=selector
            )
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
        containers=[_container(args)],
        volumes=[
            core.v1.VolumeArgs(
                name="keys",
                secret=core.v1.SecretVolumeSourceArgs(secret_name=args.api_keys_name, default_mode=0o440),
            ),
        ],
    )


def _container(args: GatewayArgs) -> core.v1.ContainerArgs:
    plan = args.plan
    variables = environment(
        dict(plan.environment)
        | {
            "GATEWAY_KEYS": f"file:{KEYS_FOLDER}/{API_KEYS_FILE}",
            "GATEWAY_DRAIN_DELAY_SECONDS": str(LEAVE_ROTATION_SECONDS),
        }
    )
    variables.append(core.v1.EnvVarArgs(name="GATEWAY_DISCOVERY", value=args.discovery))
    variables.append(core.v1.EnvVarArgs(name="GATEWAY_CAPACITY", value=args.capacity))
    memory = f"{plan.memory_mib}Mi"
    return core.v1.ContainerArgs(
        name=NAME,
        image=image_of(plan),
        image_pull_policy=pull_policy_of(plan),
        env=variables,
        ports=[
            core.v1.ContainerPortArgs(name="http", container_port=plan.port),
            core.v1.ContainerPortArgs(name="metrics", container_port=plan.metrics_port),
        ],
        resources=core.v1.ResourceRequirementsArgs(
            requests={"cpu": f"{plan.cpu_units * 1000 // 1024}m", "memory": memory}, limits={"memory": memory}
        ),
        security_context=container_security(read_only_root=True),
        readiness_probe=http_probe("/health/ready", period=3, timeout=3, failures=2),
        liveness_probe=http_probe("/health", period=10, timeout=5, failures=3),
        volume_mounts=[core.v1.VolumeMountArgs(name="keys", mount_path=KEYS_FOLDER, read_only=True)],
    )


def _load_balancer_annotations(args: GatewayArgs) -> dict[str, str]:
    """AWS's controllers create an internal load balancer with an idle timeout of 60 s by default."""
    if not args.allowed_cidrs:
        return {}
    return {
        "service.beta.kubernetes.io/aws-load-balancer-scheme": "internet-facing",
        "service.beta.kubernetes.io/aws-load-balancer-connection-idle-timeout": str(args.plan.idle_timeout_seconds),
    }


def _address(status: core.v1.outputs.ServiceStatus | None) -> str:
    entries = (status.load_balancer.ingress if status and status.load_balancer else None) or []
    return next((entry.hostname or entry.ip or "" for entry in entries), "")
