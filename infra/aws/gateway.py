"""The gateway: an ECS service on Fargate that always runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.containers import environment, log_configuration
from infra.aws.context import Context
from infra.aws.engine import Engine
from infra.aws.gateway_image import GatewayImage
from infra.aws.gpu_cluster import GpuCluster
from infra.aws.iam import allow, document, read_secret
from infra.aws.load_balancer import LoadBalancer
from infra.aws.observability import METRICS_NAMESPACE
from infra.aws.registry import pull, repository_arn
from infra.aws.roles import Roles
from infra.containers import GATEWAY_USER_ID, health_command
from infra.planning.plan import GatewayPlan

CONTAINER = "gateway"
USER = f"{GATEWAY_USER_ID}:{GATEWAY_USER_ID}"  # the user of gateway.Dockerfile; set explicitly, because gatewayImage may have another default
HEALTH_CHECK_GRACE_PERIOD_SECONDS = 60


@dataclass(frozen=True)
class GatewayArgs:
    """The inputs of the gateway's service.

    Attributes:
        context: account, region, names and tags.
        plan: size, count, ports and the environment shared by all targets.
        gpu_cluster: the cluster, and the Auto Scaling group that the gateway scales up.
        engine: the service that the gateway scales up, and the address of its replicas.
        image: the built image; None if ``plan.image`` is set.
        load_balancer: the load balancer that tasks register with.
        roles: the task role and execution role of the gateway are used.
        load_balancer_network: addresses of the load balancer, the only source that can connect to the gateway; its
            X-Forwarded-For is trusted.
        subnet_ids: private subnets.
        security_group_id: security group of the tasks.
        log_group: log group for log lines and the metrics embedded in them.
        api_keys_arn: secret with the API keys.
        kms_key_arn: key that encrypts the secret; empty: the AWS managed key.
        needs: resources that must exist before a task starts and must be deleted after the last one stops: outbound
            connectivity, security group rules, secret values.
    """

    context: Context
    plan: GatewayPlan
    gpu_cluster: GpuCluster
    engine: Engine
    image: GatewayImage | None
    load_balancer: LoadBalancer
    roles: Roles
    load_balancer_network: pulumi.Input[str]
    subnet_ids: Sequence[pulumi.Input[str]]
    security_group_id: pulumi.Input[str]
    log_group: aws.cloudwatch.LogGroup
    api_keys_arn: pulumi.Input[str]
    kms_key_arn: pulumi.Input[str]
    needs: Sequence[pulumi.Resource] = ()


class Gateway(pulumi.ComponentResource):
    """Task definition and service of the gateway.

    Attributes:
        service: the ECS service.
        metrics_stack: value of the dimension Stack of the gateway's metrics.
    """

    def __init__(self, name: str, args: GatewayArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        if (args.image is None) != bool(args.plan.image):
            raise ValueError("image and plan.image: exactly one of them says which image runs")
        super().__init__("vllm:aws:Gateway", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        # The cluster's name is unique in the account; stack names are not, if two people each deploy a stack named dev.
        self.metrics_stack = args.gpu_cluster.cluster.name
        policies = [self._task_policy(), self._execution_policy()]
        self.service = aws.ecs.Service(
            name,
            cluster=args.gpu_cluster.cluster.arn,
            task_definition=self._task_definition().arn,
            desired_count=args.plan.count,
            capacity_provider_strategies=[
                aws.ecs.ServiceCapacityProviderStrategyArgs(capacity_provider="FARGATE", weight=1)
            ],
            network_configuration=aws.ecs.ServiceNetworkConfigurationArgs(
                subnets=list(args.subnet_ids), security_groups=[args.security_group_id], assign_public_ip=False
            ),
            load_balancers=[
                aws.ecs.ServiceLoadBalancerArgs(
                    target_group_arn=args.load_balancer.target_group.arn,
                    container_name=CONTAINER,
                    container_port=args.plan.port,
                )
            ],
            health_check_grace_period_seconds=HEALTH_CHECK_GRACE_PERIOD_SECONDS,
            deployment_minimum_healthy_percent=100,
            deployment_maximum_percent=200,
            deployment_circuit_breaker=aws.ecs.ServiceDeploymentCircuitBreakerArgs(enable=True, rollback=True),
            availability_zone_rebalancing="ENABLED",
            propagate_tags="SERVICE",
            tags=self._tags(),
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[*args.needs, args.load_balancer.ready, args.gpu_cluster.ready, *policies]
            ),
        )
        self.register_outputs({"serviceName": self.service.name})

    def _tags(self) -> dict[str, str]:
        return self._args.context.tags("gateway", self._name)

    def _task_policy(self) -> aws.iam.RolePolicy:
        """Permissions to read the API keys and to scale up one service and one group, nothing else."""
        args = self._args
        tasks = pulumi.Output.concat(args.context.arn("ecs", "task/"), args.gpu_cluster.cluster.name, "/*")
        statements = [
            *read_secret("ReadApiKeys", args.api_keys_arn, args.kms_key_arn),
            allow("WakeService", ["ecs:DescribeServices", "ecs:UpdateService"], [args.engine.service.id]),
            allow("WakeInstances", ["autoscaling:SetDesiredCapacity"], [args.gpu_cluster.group.arn]),
            allow("SeeInstances", ["autoscaling:DescribeAutoScalingGroups"], ["*"]),
            # To report why no replica starts, and the phases of a cold start.
            allow("SeeWhyNoInstance", ["autoscaling:DescribeScalingActivities"], ["*"]),
            allow("ListTasks", ["ecs:ListTasks"], ["*"], {"ArnEquals": {"ecs:cluster": args.gpu_cluster.cluster.arn}}),
            allow("SeeTasks", ["ecs:DescribeTasks"], [tasks]),
        ]
        return aws.iam.RolePolicy(
            f"{self._name}-task", role=args.roles.gateway_task.id, policy=document(statements), opts=self._child
        )

    def _execution_policy(self) -> aws.iam.RolePolicy:
        args = self._args
        streams = pulumi.Output.concat(args.log_group.arn, ":*")
        repository = (
            args.image.repository.arn if args.image else repository_arn(args.plan.image, args.context.partition)
        )
        statements = [
            allow("WriteLogs", ["logs:CreateLogStream", "logs:PutLogEvents"], [streams]),
            *pull(repository),
        ]
        return aws.iam.RolePolicy(
            f"{self._name}-execution",
            role=args.roles.gateway_execution.id,
            policy=document(statements),
            opts=self._child,
        )

    def _task_definition(self) -> aws.ecs.TaskDefinition:
        args = self._args
        return aws.ecs.TaskDefinition(
            self._name,
            family=self._name,
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(args.plan.cpu_units),
            memory=str(args.plan.memory_mib),
            runtime_platform=aws.ecs.TaskDefinitionRuntimePlatformArgs(
                operating_system_family="LINUX", cpu_architecture="X86_64"
            ),
            execution_role_arn=args.roles.gateway_execution.arn,
            task_role_arn=args.roles.gateway_task.arn,
            container_definitions=pulumi.Output.json_dumps([self._container()]),
            tags=self._tags(),
            opts=self._child,
        )

    def _container(self) -> dict[str, Any]:
        args, plan = self._args, self._args.plan
        return {
            "name": CONTAINER,
            "image": args.image.reference if args.image else plan.image,
            "essential": True,
            "user": USER,
            "readonlyRootFilesystem": True,
            "privileged": False,
            "linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
            "environment": environment(self._environment()),
            "portMappings": [{"containerPort": plan.port, "hostPort": plan.port, "protocol": "tcp"}],
            "stopTimeout": plan.stop_timeout_seconds,
            "healthCheck": {
                "command": ["CMD", *health_command(plan.port, timeout_seconds=4)],
                "startPeriod": 30,
                "interval": 15,
                "timeout": 5,
                "retries": 3,
            },
            "logConfiguration": log_configuration(args.log_group, args.context.region),
        }

    def _environment(self) -> dict[str, pulumi.Input[str]]:
        args = self._args
        return {
            **args.plan.environment,
            "AWS_REGION": args.context.region,
            "GATEWAY_CAPACITY": args.engine.wake_target,
            "GATEWAY_DISCOVERY": pulumi.Output.concat("dns:", args.engine.address),
            "GATEWAY_EMF_NAMESPACE": METRICS_NAMESPACE,
            "GATEWAY_KEYS": pulumi.Output.concat("secretsmanager:", args.api_keys_arn),
            "GATEWAY_STACK": self.metrics_stack,
            "GATEWAY_TRUSTED_PROXIES": args.load_balancer_network,
        }
