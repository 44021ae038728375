"""The deploy step that fetches the weights with a Fargate task, so that no GPU is idle during the download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.containers import environment, log_configuration
from infra.aws.context import Context
from infra.aws.engine import Engine
from infra.aws.gateway import USER
from infra.aws.gpu_cluster import GpuCluster
from infra.aws.iam import allow, document, trust
from infra.aws.roles import Roles
from infra.aws.weights import Weights
from infra.containers import engine_environment
from infra.planning.engine import CACHE_PATH, WEIGHTS_PATH
from infra.planning.plan import ServingPlan

CONTAINER = "weights"
CPU_UNITS, MEMORY_MIB = 1024, 2048
# A rate schedule starts when it is created and repeats: once a month it checks the names, sizes and times of the weights and
# logs a newer commit. EFS does not count that as a read, so weights that nobody loads still move to the cheaper storage class.
SCHEDULE = "rate(28 days)"


@dataclass(frozen=True)
class WeightsFetchArgs:
    """The inputs of the fetch step.

    Attributes:
        context: account, region, names and tags.
        plan: the model, and the engine's arguments, which name draft models and adapters.
        image: the gateway's image, which also contains the entrypoint's code.
        gpu_cluster: the cluster, and the instances for a first start.
        engine: the service that is started once, so that its compile cache is filled before the first request.
        weights: the file system.
        roles: the engine's execution role, and the fetch task's role.
        subnet_ids: private subnets with internet access; a failed image pull is not retried.
        security_group_id: the engine's security group, which allows the Hub and EFS.
        log_group: the engine's log group, so that all logs of a cold start are in one place.
        hf_token_arn: secret with the Hugging Face token, or None.
        prewarm: whether to start the engine once if the compile cache is empty.
        needs: resources that must exist before a task starts and must be deleted after the schedule: outbound
            connectivity, security group rules, secret values.
        token_version: changes with the token without revealing it, so that a corrected token is tried immediately.
    """

    context: Context
    plan: ServingPlan
    image: pulumi.Input[str]
    gpu_cluster: GpuCluster
    engine: Engine
    weights: Weights
    roles: Roles
    subnet_ids: Sequence[pulumi.Input[str]]
    security_group_id: pulumi.Input[str]
    log_group: aws.cloudwatch.LogGroup
    hf_token_arn: pulumi.Output[str] | None
    prewarm: bool
    needs: Sequence[pulumi.Resource] = ()
    token_version: pulumi.Input[str] | None = None


class WeightsFetch(pulumi.ComponentResource):
    """A task definition, and a schedule that runs it when it is created and whenever the task definition changes."""

    def __init__(self, name: str, args: WeightsFetchArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:WeightsFetch", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        task = self._task_definition()
        ready = [*args.needs, *args.weights.ready, args.engine.execution_policy]
        if args.prewarm:
            ready += [args.engine.service, self._wake_policy()]
        role = aws.iam.Role(
            name,
            description="Starts the task that fetches the weights",
            assume_role_policy=trust("scheduler", {"StringEquals": {"aws:SourceAccount": args.context.account_id}}),
            tags=self._tags(),
            opts=self._child,
        )
        policy = aws.iam.RolePolicy(name, role=role.id, policy=document(self._run_task(task)), opts=self._child)
        group = aws.scheduler.ScheduleGroup(name, tags=self._tags(), opts=self._child)
        aws.scheduler.Schedule(
            name,
            group_name=group.name,
            description="Fetches the weights, now and once a month",
            schedule_expression=SCHEDULE,
            flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
            target=aws.scheduler.ScheduleTargetArgs(
                arn=args.gpu_cluster.cluster.arn,
                role_arn=role.arn,
                ecs_parameters=aws.scheduler.ScheduleTargetEcsParametersArgs(
                    task_definition_arn=task.arn,
                    launch_type="FARGATE",
                    task_count=1,
                    propagate_tags="TASK_DEFINITION",
                    network_configuration=aws.scheduler.ScheduleTargetEcsParametersNetworkConfigurationArgs(
                        subnets=list(args.subnet_ids),
                        security_groups=[args.security_group_id],
                        assign_public_ip=False,
                    ),
                ),
                retry_policy=aws.scheduler.ScheduleTargetRetryPolicyArgs(
                    maximum_retry_attempts=20, maximum_event_age_in_seconds=3600
                ),
            ),
            # Only a new schedule starts immediately; an updated one would wait for its next interval.
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[*ready, policy, args.gpu_cluster.ready],
                replace_on_changes=["target"],
                replacement_trigger=args.token_version,
            ),
        )
        self.register_outputs({})

    def _tags(self) -> dict[str, str]:
        return self._args.context.tags("weights", self._name)

    def _wake_policy(self) -> aws.iam.RolePolicy:
        args = self._args
        statements = [
            allow("WakeService", ["ecs:DescribeServices", "ecs:UpdateService"], [args.engine.service.id]),
            allow("WakeInstances", ["autoscaling:SetDesiredCapacity"], [args.gpu_cluster.group.arn]),
            allow("SeeInstances", ["autoscaling:DescribeAutoScalingGroups"], ["*"]),
        ]
        return aws.iam.RolePolicy(
            f"{self._name}-wake", role=args.roles.fetch_task.id, policy=document(statements), opts=self._child
        )

    def _run_task(self, task: aws.ecs.TaskDefinition) -> list[dict[str, Any]]:
        args = self._args
        started = pulumi.Output.concat(args.context.arn("ecs", "task/"), args.gpu_cluster.cluster.name, "/*")
        return [
            allow("RunTask", ["ecs:RunTask"], [task.arn], {"ArnEquals": {"ecs:cluster": args.gpu_cluster.cluster.arn}}),
            allow("TagTask", ["ecs:TagResource"], [started], {"StringEquals": {"ecs:CreateAction": "RunTask"}}),
            allow(
                "PassRoles",
                ["iam:PassRole"],
                [args.roles.fetch_task.arn, args.roles.engine_execution.arn],
                {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
            ),
        ]

    def _task_definition(self) -> aws.ecs.TaskDefinition:
        args = self._args
        points = {"models": args.weights.models, "compiled": args.weights.compiled}
        return aws.ecs.TaskDefinition(
            self._name,
            family=self._name,
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(CPU_UNITS),
            memory=str(MEMORY_MIB),
            runtime_platform=aws.ecs.TaskDefinitionRuntimePlatformArgs(
                operating_system_family="LINUX", cpu_architecture="X86_64"
            ),
            execution_role_arn=args.roles.engine_execution.arn,
            task_role_arn=args.roles.fetch_task.arn,
            volumes=[args.weights.volume(volume, point) for volume, point in points.items()],
            container_definitions=pulumi.Output.json_dumps([self._container()]),
            tags=self._tags(),
            opts=self._child,
        )

    def _container(self) -> dict[str, Any]:
        args, engine = self._args, self._args.plan.engine
        told: dict[str, pulumi.Input[str]] = {**engine_environment(args.plan), "AWS_REGION": args.context.region}
        if args.prewarm:
            told["ENGINE_PREWARM_TARGET"] = args.engine.wake_target
        definition: dict[str, Any] = {
            "name": CONTAINER,
            "image": args.image,
            "essential": True,
            "user": USER,  # EFS maps it to the access point's user
            "readonlyRootFilesystem": True,
            "privileged": False,
            "linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
            "entryPoint": ["python", "-m", "image.engine.fetch"],
            "command": [args.plan.model, *engine.args],
            "environment": environment(told),
            "mountPoints": [
                {"sourceVolume": "models", "containerPath": WEIGHTS_PATH, "readOnly": False},
                {"sourceVolume": "compiled", "containerPath": CACHE_PATH, "readOnly": False},
            ],
            "stopTimeout": 30,
            "logConfiguration": log_configuration(args.log_group, args.context.region),
        }
        if args.hf_token_arn is not None:
            definition["secrets"] = [{"name": "HF_TOKEN", "valueFrom": args.hf_token_arn}]
        return definition
