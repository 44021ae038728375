"""The engine: vLLM on GPU nodes, and the headless Service that the gateway uses to discover replicas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import apps, core, meta, policy

from infra.containers import CODE_PATH, DELIVER, DELIVERED_TO, ENTRYPOINT, engine_arguments, engine_environment
from infra.kubernetes.gateway import image_of, pull_policy_of
from infra.kubernetes.pods import COMPONENTS, Labels, container_security, environment, http_probe, literal, pod_security
from infra.kubernetes.secrets import HF_TOKEN_KEY
from infra.planning.engine import CACHE_PATH, WEIGHTS_PATH
from infra.planning.plan import ServingPlan

NAME = "engine"
GPU_RESOURCE = "nvidia.com/gpu"
# The upstream image defines this user, in group 0. Its home is replaced by an empty folder and its name is set in the
# environment, so that images without this user work too.
USER_ID, GROUP_ID, USER_NAME, HOME = 2000, 0, "vllm", "/home/vllm"
# The time from deleting a pod until the gateway stops sending requests to it: EndpointSlice, DNS (30 s with a node-local
# cache), and the gateway's 2 s. vLLM must not receive SIGTERM earlier, because it then rejects new requests with 500.
LEAVE_ROTATION_SECONDS = 35
PROBE_PERIOD_SECONDS = 10
# Pulling 10 GB and waiting for a node happen before the startup probe starts.
PLACEMENT_SECONDS = 900
# On ECS, the container uses the whole instance. A Kubernetes node also runs the kubelet and DaemonSets, so only a part of
# its memory is requested. The limit remains, for the page cache used to read the weights.
REQUESTED_SHARE = 0.8
PROCESS_MEMORY_MIB = 8 * 1024
FETCH_MEMORY_MIB = 512


def memory_request_mib(plan: ServingPlan) -> int:
    """Memory request: the checkpoint in the page cache, shared memory and the processes, limited to a part of the node."""
    engine = plan.engine
    needed = engine.checkpoint_gib * 1024 + engine.shared_memory_mib + PROCESS_MEMORY_MIB
    return int(min(needed, engine.memory_mib * REQUESTED_SHARE))


@dataclass(frozen=True)
class EngineArgs:
    """The inputs of the engine.

    ``node_instance_types``: the allowed node types, by their well-known label; empty for any GPU node. ``needs``: resources
    that must exist before a pod starts and must be deleted after the last pod.
    """

    namespace: pulumi.Input[str]
    labels: Labels
    plan: ServingPlan
    replicas: int
    claim_name: pulumi.Input[str]
    hf_token_name: pulumi.Input[str] | None
    node_instance_types: tuple[str, ...]
    needs: Sequence[pulumi.Resource] = ()


class Engine(pulumi.ComponentResource):
    """Deployment, headless Service and, for several replicas, a PodDisruptionBudget."""

    service_name: pulumi.Output[str]

    def __init__(self, name: str, args: EngineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"{COMPONENTS}:Engine", name, None, opts)
        plan, labels = args.plan, args.labels
        children = pulumi.ResourceOptions(parent=self)
        service = core.v1.Service(
            name,
            metadata=labels.metadata(NAME, args.namespace, name=NAME),
            spec=core.v1.ServiceSpecArgs(
                cluster_ip="None",
                selector=labels.of(NAME),
                # With True, a terminating pod would stay listed and receive requests until it is gone.
                publish_not_ready_addresses=False,
                ports=[core.v1.ServicePortArgs(name="http", port=plan.engine.port, target_port="http")],
            ),
            opts=children,
        )
        self.service_name = service.metadata.apply(lambda metadata: str(metadata.name))
        startup_seconds = plan.replicas.startup_timeout_seconds + PLACEMENT_SECONDS
        apps.v1.Deployment(
            name,
            metadata=labels.metadata(NAME, args.namespace, name=NAME),
            spec=apps.v1.DeploymentSpecArgs(
                replicas=args.replicas,
                selector=meta.v1.LabelSelectorArgs(match_labels=labels.of(NAME)),
                # There is no spare GPU: the old pod must release its GPU for the new one.
                strategy=apps.v1.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.v1.RollingUpdateDeploymentArgs(max_surge=0, max_unavailable=1),
                ),
                progress_deadline_seconds=startup_seconds,
                revision_history_limit=3,
                template=core.v1.PodTemplateSpecArgs(
                    metadata=meta.v1.ObjectMetaArgs(labels=labels.of(NAME)), spec=_pod(args)
                ),
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=list(args.needs),
                custom_timeouts=pulumi.CustomTimeouts(create=f"{startup_seconds}s", update=f"{startup_seconds}s"),
            ),
        )
        if args.replicas > 1:
            policy.v1.PodDisruptionBudget(
                name,
                metadata=labels.metadata(NAME, args.namespace, name=NAME),
                spec=policy.v1.PodDisruptionBudgetSpecArgs(
                    max_unavailable=1, selector=meta.v1.LabelSelectorArgs(match_labels=labels.of(NAME))
                ),
                opts=children,
            )
        self.register_outputs({"service_name": self.service_name})


def _pod(args: EngineArgs) -> core.v1.PodSpecArgs:
    plan = args.plan
    return core.v1.PodSpecArgs(
        automount_service_account_token=False,
        # PID 1 is then the pod's own process, which reaps others; a PID 1 without a handler would ignore SIGTERM.
        share_process_namespace=True,
        # vLLM reads VLLM_*, and a Service named vllm would set VLLM_PORT in every pod of its namespace.
        enable_service_links=False,
        security_context=pod_security(USER_ID, GROUP_ID, volumes_group=USER_ID),
        termination_grace_period_seconds=LEAVE_ROTATION_SECONDS + plan.engine.stop_timeout_seconds,
        tolerations=[core.v1.TolerationArgs(key=GPU_RESOURCE, operator="Exists", effect="NoSchedule")],
        affinity=_affinity(args.node_instance_types),
        init_containers=[_code(args), _fetch(args)],
        containers=[_container(args)],
        volumes=[
            core.v1.VolumeArgs(
                name="weights",
                persistent_volume_claim=core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name=args.claim_name),
            ),
            core.v1.VolumeArgs(name="code", empty_dir=core.v1.EmptyDirVolumeSourceArgs()),
            core.v1.VolumeArgs(name="home", empty_dir=core.v1.EmptyDirVolumeSourceArgs()),
            core.v1.VolumeArgs(
                name="shared-memory",
                empty_dir=core.v1.EmptyDirVolumeSourceArgs(
                    medium="Memory", size_limit=f"{plan.engine.shared_memory_mib}Mi"
                ),
            ),
        ],
    )


def _container(args: EngineArgs) -> core.v1.ContainerArgs:
    plan = args.plan
    gpus = str(plan.replicas.gpu_count)
    return core.v1.ContainerArgs(
        name=NAME,
        image=plan.engine.image,
        command=list(ENTRYPOINT),
        args=_arguments(plan),
        working_dir=HOME,
        env=_variables(args, {"PYTHONPATH": CODE_PATH}),
        ports=[core.v1.ContainerPortArgs(name="http", container_port=plan.engine.port)],
        resources=core.v1.ResourceRequirementsArgs(
            # One core for the API server and one per GPU worker; no limit, because tokenization is bursty.
            requests={
                GPU_RESOURCE: gpus,
                "cpu": str(1 + plan.replicas.gpu_count),
                "memory": f"{memory_request_mib(plan)}Mi",
            },
            limits={GPU_RESOURCE: gpus, "memory": f"{plan.engine.memory_mib}Mi"},
        ),
        security_context=container_security(read_only_root=False),
        startup_probe=http_probe(
            "/health",
            period=PROBE_PERIOD_SECONDS,
            timeout=5,
            failures=math.ceil(plan.replicas.startup_timeout_seconds / PROBE_PERIOD_SECONDS),
        ),
        readiness_probe=http_probe("/health", period=5, timeout=5, failures=3),
        # /health fails when the engine is dead and is slow when it is busy, so it must fail for a minute before a restart.
        liveness_probe=http_probe("/health", period=PROBE_PERIOD_SECONDS, timeout=10, failures=6),
        lifecycle=core.v1.LifecycleArgs(
            pre_stop=core.v1.LifecycleHandlerArgs(
                exec_=core.v1.ExecActionArgs(command=["sleep", str(LEAVE_ROTATION_SECONDS)])
            )
        ),
        volume_mounts=[
            *_mounts(),
            core.v1.VolumeMountArgs(name="code", mount_path=CODE_PATH, read_only=True),
            core.v1.VolumeMountArgs(name="home", mount_path=HOME),
            core.v1.VolumeMountArgs(name="shared-memory", mount_path="/dev/shm"),  # noqa: S108 - the kernel's name for it
        ],
    )


def _arguments(plan: ServingPlan) -> list[str]:
    return [literal(argument) for argument in engine_arguments(plan)]


def _variables(args: EngineArgs, more: dict[str, str]) -> list[core.v1.EnvVarArgs]:
    variables = environment({"HOME": HOME, "USER": USER_NAME} | engine_environment(args.plan) | more)
    if args.hf_token_name is not None:
        reference = core.v1.SecretKeySelectorArgs(name=args.hf_token_name, key=HF_TOKEN_KEY)
        variables.append(
            core.v1.EnvVarArgs(name="HF_TOKEN", value_from=core.v1.EnvVarSourceArgs(secret_key_ref=reference))
        )
    return variables


def _mounts() -> list[core.v1.VolumeMountArgs]:
    """One volume at both paths: the Hub's cache and the compile cache are different folders in it."""
    return [core.v1.VolumeMountArgs(name="weights", mount_path=path) for path in (WEIGHTS_PATH, CACHE_PATH)]


def _small(args: EngineArgs, name: str, command: list[str], memory_mib: int) -> core.v1.ContainerArgs:
    """An init container with the gateway's image."""
    memory = f"{memory_mib}Mi"
    return core.v1.ContainerArgs(
        name=name,
        image=image_of(args.plan.gateway),
        image_pull_policy=pull_policy_of(args.plan.gateway),
        command=command,
        resources=core.v1.ResourceRequirementsArgs(
            requests={"cpu": "100m", "memory": memory}, limits={"memory": memory}
        ),
        security_context=container_security(read_only_root=True),
    )


def _code(args: EngineArgs) -> core.v1.ContainerArgs:
    container = _small(args, "code", ["python", "-c", DELIVER], 128)
    container.volume_mounts = [core.v1.VolumeMountArgs(name="code", mount_path=DELIVERED_TO)]
    return container


def _fetch(args: EngineArgs) -> core.v1.ContainerArgs:
    """An init container that fetches the weights without a CUDA context; replicas that start together wait for one fetch."""
    container = _small(args, "weights", ["python", "-m", "image.engine.fetch"], FETCH_MEMORY_MIB)
    container.args = _arguments(args.plan)
    container.env = _variables(args, {})
    container.volume_mounts = _mounts()
    return container


def _affinity(instance_types: tuple[str, ...]) -> core.v1.AffinityArgs | None:
    if not instance_types:
        return None
    expression = core.v1.NodeSelectorRequirementArgs(
        key="node.kubernetes.io/instance-type", operator="In", values=list(instance_types)
    )
    return core.v1.AffinityArgs(
        node_affinity=core.v1.NodeAffinityArgs(
            required_during_scheduling_ignored_during_execution=core.v1.NodeSelectorArgs(
                node_selector_terms=[core.v1.NodeSelectorTermArgs(match_expressions=[expression])]
            )
        )
    )
