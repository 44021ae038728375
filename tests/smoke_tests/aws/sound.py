"""A sound stack in an emulated account, as far as the checks of a stack on AWS look at it."""

import json
from typing import Any

import boto3
from moto.ec2.utils import generate_instance_identity_document

from policy.emulator import ACCOUNT, BUDGET_TAGS, REGION
from tests.smoke_tests.teardown.planted import Planted

TAGS = {"Project": "vllm-endpoint", "Stack": "dev", "Component": "capacity", "ManagedBy": "pulumi"}


class Sound(Planted):
    """The stack `dev` with everything that the checks want to see."""

    def __init__(self, session: boto3.Session) -> None:
        super().__init__(session, "dev")
        self._tags = dict(TAGS)

    def build(self) -> "Sound":
        self.network()
        self.gateways = self._security_group("sg-gateway")
        self._let_in(self.group, self.gateways)
        self._weights()
        self._instances()
        self._services()
        self._guards()
        self.outputs: dict[str, Any] = {
            "endpoint": "http://lb.example", "region": REGION, "clusterName": self.name("gpu"), "gpu": "a10g", "gpuCount": 1,
            "instanceType": "g5.xlarge", "engineServiceName": self.name("engine"),
            "gatewayServiceName": self.name("gateway"), "autoScalingGroupName": self.name("gpu"),
            "weightsFileSystemId": self.file_system, "minReplicas": 0, "maxReplicas": 1, "alarms": True,
            "turnsOffAt": "2026-11-22 08:00 UTC", "budgetCounts": "what carries the tag Stack",
        }  # fmt: skip
        return self

    def _let_in(self, group: str, source: str) -> None:
        rule = [{"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8000, "UserIdGroupPairs": [{"GroupId": source}]}]
        self.client("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=rule)

    def _weights(self) -> None:
        efs = self.client("efs")
        self.file_system = efs.create_file_system(CreationToken="w", Encrypted=True, **self.tagging())["FileSystemId"]
        self.access_point = efs.create_access_point(FileSystemId=self.file_system, **self.tagging())["AccessPointId"]
        self.allow_only_tls()

    def allow_only_tls(self) -> None:
        deny = {
            "Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "*", "Resource": "*",
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }  # fmt: skip
        policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
        self.client("efs").put_file_system_policy(FileSystemId=self.file_system, Policy=policy)

    def _instances(self) -> None:
        self.template = self.client("ec2").create_launch_template(
            LaunchTemplateName=self.name("gpu"), TagSpecifications=self.specification("launch-template"),
            LaunchTemplateData=self.template_data("instance", "volume"),
        )["LaunchTemplate"]["LaunchTemplateId"]  # fmt: skip
        scaling = self.client("autoscaling")
        scaling.create_auto_scaling_group(
            AutoScalingGroupName=self.name("gpu"), MinSize=0, MaxSize=2, DesiredCapacity=1,
            VPCZoneIdentifier=self.subnets[1], LaunchTemplate={"LaunchTemplateId": self.template, "Version": "$Latest"},
            Tags=[{**tag, "PropagateAtLaunch": True} for tag in self.pairs()],
        )  # fmt: skip
        group = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name("gpu")])["AutoScalingGroups"][0]
        self.instance = group["Instances"][0]["InstanceId"]
        self.client("ecs").create_cluster(clusterName=self.name("gpu"), tags=self.pairs("key", "value"))
        self.join(self.instance)

    def template_data(self, *kinds: str, instance_type: str = "g5.xlarge") -> dict[str, Any]:
        told = [found for kind in kinds for found in self.specification(kind)]
        return {"ImageId": "ami-12c6146b", "InstanceType": instance_type, "TagSpecifications": told}

    def join(self, instance_id: str) -> str:
        """Registers an instance with the cluster, as the ECS agent does."""
        instance = boto3.resource("ec2", region_name=REGION).Instance(instance_id)
        document = json.dumps(generate_instance_identity_document(instance))
        joined = self.client("ecs").register_container_instance(
            cluster=self.name("gpu"), instanceIdentityDocument=document
        )
        return str(joined["containerInstance"]["containerInstanceArn"])

    def register(self, *, gpus: int = 1, transit: str = "ENABLED", iam: str = "ENABLED") -> str:
        """A task definition of the engine."""
        volume = {
            "fileSystemId": self.file_system, "transitEncryption": transit,
            "authorizationConfig": {"accessPointId": self.access_point, "iam": iam},
        }  # fmt: skip
        made = self.client("ecs").register_task_definition(
            family=f"{self._prefix}-engine", tags=self.pairs("key", "value"), networkMode="awsvpc",
            volumes=[{"name": "models", "efsVolumeConfiguration": volume}],
            containerDefinitions=[{
                "name": "engine", "image": "x", "memory": 128,
                "resourceRequirements": [{"type": "GPU", "value": str(gpus)}],
            }],
        )  # fmt: skip
        return str(made["taskDefinition"]["taskDefinitionArn"])

    def _services(self) -> None:
        ecs, definition = self.client("ecs"), self.register()
        for name, group in (("engine", self.group), ("gateway", self.gateways)):
            network = {"subnets": self.subnets, "securityGroups": [group], "assignPublicIp": "DISABLED"}
            ecs.create_service(
                cluster=self.name("gpu"), serviceName=self.name(name), taskDefinition=definition, desiredCount=0,
                networkConfiguration={"awsvpcConfiguration": network},
            )  # fmt: skip

    def _guards(self) -> None:
        scaling, resource = self.client("application-autoscaling"), f"service/{self.name('gpu')}/{self.name('engine')}"
        asked = {"ServiceNamespace": "ecs", "ResourceId": resource, "ScalableDimension": "ecs:service:DesiredCount"}
        scaling.register_scalable_target(**asked, MinCapacity=0, MaxCapacity=1)
        steps = [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 0}]
        of_service = scaling.put_scaling_policy(
            **asked, PolicyName="service-down", PolicyType="StepScaling",
            StepScalingPolicyConfiguration={"AdjustmentType": "ExactCapacity", "StepAdjustments": steps},
        )["PolicyARN"]  # fmt: skip
        self.client("autoscaling").put_scaling_policy(
            AutoScalingGroupName=self.name("gpu"), PolicyName="instances-down", PolicyType="StepScaling",
            AdjustmentType="ExactCapacity", StepAdjustments=steps,
        )  # fmt: skip
        policies = self.client("autoscaling").describe_policies(AutoScalingGroupName=self.name("gpu"))[
            "ScalingPolicies"
        ]
        of_group = policies[0]["PolicyARN"]
        self.stops = [of_service, of_group]
        for suffix in ("no-replica", "no-wake", "idle-instances", "errors", "queue-full", "no-gateway", "weights-slow"):
            self.alarm(f"alarm-{suffix}")
        for suffix in ("idle", "stuck"):
            self.alarm(f"scaling-{suffix}", actions=self.stops)
        scheduler = self.client("scheduler")
        for group, parts in (("ttl", ("service", "instances")), ("budget", ("",))):
            scheduler.create_schedule_group(Name=self.name(group), **self.tagging())
            for part in parts:
                self.schedule(group, part)
        limit = {"Amount": "10", "Unit": "USD"}
        budget = {"BudgetName": self.name("budget"), "BudgetLimit": limit, "TimeUnit": "MONTHLY", "BudgetType": "COST"}
        self.client("budgets").create_budget(AccountId=ACCOUNT, Budget=budget)
        BUDGET_TAGS[f"arn:aws:budgets::{ACCOUNT}:budget/{self.name('budget')}"] = self.pairs()
        self.rights()

    def alarm(self, rest: str, actions: list[str] | None = None, *, enabled: bool = True) -> None:
        self.client("cloudwatch").put_metric_alarm(
            AlarmName=self.name(rest), Namespace="n", MetricName="m", Statistic="Sum", Period=60, EvaluationPeriods=1,
            Threshold=1, ComparisonOperator="GreaterThanThreshold", AlarmActions=actions or [], ActionsEnabled=enabled,
            Tags=self.pairs(),
        )  # fmt: skip

    def schedule(self, group: str, part: str = "", state: str = "ENABLED") -> None:
        scheduler, name = self.client("scheduler"), self.name(f"{group}-{part}" if part else group)
        call = scheduler.update_schedule if self.scheduled(group, name) else scheduler.create_schedule
        call(
            Name=name, GroupName=self.name(group), ScheduleExpression="rate(1 hour)", State=state,
            FlexibleTimeWindow={"Mode": "OFF"}, Target={"Arn": "arn:aws:scheduler:::aws-sdk:ecs:updateService", "RoleArn": "r"},
        )  # fmt: skip

    def scheduled(self, group: str, name: str) -> bool:
        listed = self.client("scheduler").list_schedules(GroupName=self.name(group))["Schedules"]
        return any(one["Name"] == name for one in listed)
