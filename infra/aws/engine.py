"""The engine: vLLM as an ECS service on GPU instances, discovered by the gateway through Cloud Map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_random as random

from image.engine.s3 import is_in_s3
from infra.aws.containers import environment, health_check, log_configuration
from infra.aws.context import Context
from infra.aws.engine_image import UNIQUE_CHARACTERS, EngineImage
from infra.aws.gpu_cluster import GpuCluster
from infra.aws.iam import allow, document, read_secret
from infra.aws.registry import PULL_ACTIONS
from infra.aws.roles import Roles
from infra.aws.weights import Weights
from infra.containers import CODE_PATH, DELIVER, DELIVERED_TO, ENTRYPOINT, engine_arguments, engine_environment
from infra.planning.engine import CACHE_PATH, WEIGHTS_PATH
from infra.planning.plan import ServingPlan

CONTAINER = "engine"
CODE_CONTAINER = "code"
CODE_MEMORY_MIB, CODE_RESERVED_MIB = 128, 6  # it exits before vLLM starts, so it reserves almost no memory
# The instance's NVMe disk, if its boot script found one; else an empty folder without the inner one.
NVME_VOLUME, NVME_HOST_PATH, NVME_PATH, NVME_FOLDER = "nvme", "/mnt/nvme", "/nvme", "weights"


@dataclass(frozen=True)
class EngineArgs:
    """The inputs of the engine's service.

    Attributes:
        context: account, region, names and tags.
        plan: the serving plan.
        image: the engine's image.
        gateway_image: the image that contains the entrypoint's code.
        gateway_repository_arn: ECR repository of that image; None if it is not in ECR.
        gpu_cluster: the cluster and its instances.
        weights: the file system.
        roles: the task role and execution role of the engine are used.
        vpc_id: VPC in which the service's name resolves.
        subnet_ids: private subnets in zones that offer the GPU.
        security_group_id: security group of the tasks.
        log_group: log group for vLLM's output.
        hf_token_arn: secret with the Hugging Face token, or None.
        kms_key_arn: key that encrypts the secret; empty: the AWS managed key.
        needs: resources that must exist before a task starts and must be deleted after the last one stops: outbound
            connectivity, security group rules, secret values.
        shares_vpc: whether the VPC is an existing one that other stacks may use.
    """

    context: Context
    plan: ServingPlan
    image: EngineImage
    gateway_image: pulumi.Input[str]
    gateway_repository_arn: pulumi.Input[str] | None
    gpu_cluster: GpuCluster
    weights: Weights
    roles: Roles
    vpc_id: pulumi.Input[str]
    subnet_ids: pulumi.Input[Sequence[str]]
    security_group_id: pulumi.Input[str]
    log_group: aws.cloudwatch.LogGroup
    hf_token_arn: pulumi.Output[str] | None
    kms_key_arn: pulumi.Input[str]
    needs: Sequence[pulumi.Resource] = ()
    shares_vpc: bool = False


class Engine(pulumi.ComponentResource):
    """Task definition, service and name of the engine.

    Attributes:
        service: the ECS service; the gateway and the alarms set its desired count.
        address: ``name:port`` that resolves to its replicas.
        wake_target: the value of GATEWAY_CAPACITY, which starts the first replica.
        execution_policy: permissions to start its containers, and those of the fetch task.
    """

    def __init__(self, name: str, args: EngineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:Engine", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        plan = args.plan
        namespace = aws.servicediscovery.PrivateDnsNamespace(
            name,
            name=self._domain(),
            vpc=args.vpc_id,
            description="Addresses of the engine's replicas",
            tags=self._tags(),
            # Stacks deployed before the suffix was added keep their name.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["name"]),
        )
        registry = aws.servicediscovery.Service(
            name,
            name=CONTAINER,
            dns_config=aws.servicediscovery.ServiceDnsConfigArgs(
                namespace_id=namespace.id,
                routing_policy="MULTIVALUE",
                dns_records=[aws.servicediscovery.ServiceDnsConfigDnsRecordArgs(type="A", ttl=5)],
            ),
            force_destroy=True,
            tags=self._tags(),
            opts=self._child,
        )
        self.address = pulumi.Output.concat(registry.name, ".", namespace.name, f":{plan.engine.port}")
        self.execution_policy = self._execution_policy()
        self.service = aws.ecs.Service(
            name,
            cluster=args.gpu_cluster.cluster.arn,
            task_definition=self._task_definition().arn,
            desired_count=plan.replicas.min_replicas,
            capacity_provider_strategies=[
                aws.ecs.ServiceCapacityProviderStrategyArgs(capacity_provider=args.gpu_cluster.provider.name, weight=1)
            ],
            placement_constraints=[aws.ecs.ServicePlacementConstraintArgs(type="distinctInstance")],
            ordered_placement_strategies=[
                aws.ecs.ServiceOrderedPlacementStrategyArgs(type="spread", field="attribute:ecs.availability-zone")
            ],
            network_configuration=aws.ecs.ServiceNetworkConfigurationArgs(
                subnets=args.subnet_ids, security_groups=[args.security_group_id], assign_public_ip=False
            ),
            service_registries=aws.ecs.ServiceServiceRegistriesArgs(registry_arn=registry.arn),
            deployment_minimum_healthy_percent=minimum_healthy_percent(plan.replicas.min_replicas),
            deployment_maximum_percent=100,
            deployment_circuit_breaker=aws.ecs.ServiceDeploymentCircuitBreakerArgs(enable=True, rollback=True),
            availability_zone_rebalancing="DISABLED",  # requires a spare GPU
            propagate_tags="SERVICE",
            force_delete=True,
            tags=self._tags(),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[*args.needs, args.gpu_cluster.ready, *args.weights.ready, self.execution_policy],
                # The gateway and the alarms set the desired count. Placement is not updated, because a change would move every task.
                ignore_changes=["desiredCount", "orderedPlacementStrategies", "placementConstraints"],
            ),
        )
        cluster = args.gpu_cluster
        self.wake_target = pulumi.Output.concat(
            "ecs:", cluster.cluster.name, "/", self.service.name, "/", cluster.group.name
        )
        self.register_outputs({"serviceName": self.service.name, "address": self.address})

    def _domain(self) -> pulumi.Input[str]:
        """The private DNS zone's name, which must be unique in a VPC: in a shared VPC, another stack may use the same name."""
        prefix = self._args.context.prefix
        if not self._args.shares_vpc:
            return f"{prefix}.internal"
        unique = random.RandomString(
            f"{self._name}-domain", length=UNIQUE_CHARACTERS, upper=False, special=False, opts=self._child
        )
        return pulumi.Output.format("{0}-{1}.internal", prefix, unique.result)

    def _tags(self) -> dict[str, str]:
        return self._args.context.tags("engine", self._name)

    def _execution_policy(self) -> aws.iam.RolePolicy:
        args = self._args
        streams = pulumi.Output.concat(args.log_group.arn, ":*")
        statements = [
            allow("WriteLogs", ["logs:CreateLogStream", "logs:PutLogEvents"], [streams]),
            *args.image.pull_statements,
        ]
        if args.gateway_repository_arn is not None:
            if not any("ecr:GetAuthorizationToken" in statement["Action"] for statement in statements):
                statements.append(allow("LogInToRegistry", ["ecr:GetAuthorizationToken"], ["*"]))
            statements.append(allow("PullCode", PULL_ACTIONS, [args.gateway_repository_arn]))
        if args.hf_token_arn is not None:
            statements += read_secret("ReadHubToken", args.hf_token_arn, args.kms_key_arn)
        return aws.iam.RolePolicy(
            f"{self._name}-execution",
            role=args.roles.engine_execution.id,
            policy=document(statements),
            opts=self._child,
        )

    def _task_definition(self) -> aws.ecs.TaskDefinition:
        args = self._args
        mounts = {"models": (args.weights.models, WEIGHTS_PATH), "compiled": (args.weights.compiled, CACHE_PATH)}
        return aws.ecs.TaskDefinition(
            self._name,
            family=self._name,
            requires_compatibilities=["EC2"],
            network_mode="awsvpc",
            execution_role_arn=args.roles.engine_execution.arn,
            task_role_arn=args.roles.engine_task.arn,
            volumes=[args.weights.volume(volume, point) for volume, (point, _) in mounts.items()]
            + [
                aws.ecs.TaskDefinitionVolumeArgs(name=CODE_CONTAINER),
                aws.ecs.TaskDefinitionVolumeArgs(name=NVME_VOLUME, host_path=NVME_HOST_PATH),
            ],
            container_definitions=pulumi.Output.json_dumps(
                [self._container({volume: path for volume, (_, path) in mounts.items()}), self._code()]
            ),
            tags=self._tags(),
            opts=self._child,
        )

    def _container(self, mounts: dict[str, str]) -> dict[str, Any]:
        args, plan, engine = self._args, self._args.plan, self._args.plan.engine
        definition: dict[str, Any] = {
            "name": CONTAINER,
            "image": args.image.reference,
            "essential": True,
            "dependsOn": [{"containerName": CODE_CONTAINER, "condition": "SUCCESS"}],
            "entryPoint": list(ENTRYPOINT),
            "command": engine_arguments(plan),
            "environment": environment(
                {
                    **engine_environment(plan),
                    **({"AWS_REGION": args.context.region} if is_in_s3(plan.model) else {}),
                    "ENGINE_STAGE": f"{NVME_PATH}/{NVME_FOLDER}",
                    "PYTHONPATH": CODE_PATH,
                }
            ),
            "portMappings": [{"containerPort": engine.port, "hostPort": engine.port, "protocol": "tcp"}],
            "memory": engine.memory_mib,
            "resourceRequirements": [{"type": "GPU", "value": str(plan.replicas.gpu_count)}],
            "linuxParameters": {"sharedMemorySize": engine.shared_memory_mib, "initProcessEnabled": True},
            "dockerSecurityOptions": ["no-new-privileges"],
            "privileged": False,
            "ulimits": [
                {"name": "memlock", "softLimit": -1, "hardLimit": -1},  # pinned buffers for communication between GPUs
                {"name": "nofile", "softLimit": 65536, "hardLimit": 65536},
            ],
            "mountPoints": [
                {"sourceVolume": volume, "containerPath": path, "readOnly": False}
                for volume, path in {**mounts, NVME_VOLUME: NVME_PATH}.items()
            ]
            + [{"sourceVolume": CODE_CONTAINER, "containerPath": CODE_PATH, "readOnly": True}],
            "stopTimeout": engine.stop_timeout_seconds,
            "healthCheck": health_check(engine.port, plan.replicas.startup_timeout_seconds),
            "logConfiguration": log_configuration(args.log_group, args.context.region),
        }
        if args.hf_token_arn is not None:
            definition["secrets"] = [{"name": "HF_TOKEN", "valueFrom": args.hf_token_arn}]
        return definition

    def _code(self) -> dict[str, Any]:
        """A container that copies the entrypoint's code to a volume and exits."""
        args = self._args
        return {
            "name": CODE_CONTAINER,
            "image": args.gateway_image,
            "essential": False,
            "user": "0",  # root owns the volume; all capabilities are dropped
            "readonlyRootFilesystem": True,
            "linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
            "entryPoint": ["python", "-c", DELIVER],
            "memory": CODE_MEMORY_MIB,
            "memoryReservation": CODE_RESERVED_MIB,
            "mountPoints": [{"sourceVolume": CODE_CONTAINER, "containerPath": DELIVERED_TO, "readOnly": False}],
            "stopTimeout": 30,
            "logConfiguration": log_configuration(args.log_group, args.context.region),
        }


def minimum_healthy_percent(min_replicas: int) -> int:
    """The minimum healthy percent of a deployment that requires no spare GPU.

    50% with two or more replicas. ECS rounds up, so with one replica it must be 0, to let ECS stop that replica first;
    the gateway holds requests until the new one is ready.
    """
    return 50 if min_replicas > 1 else 0
