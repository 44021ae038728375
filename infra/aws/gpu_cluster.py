"""GPU instances: an Auto Scaling group behind an ECS capacity provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context
from infra.aws.engine_image import EngineImage
from infra.aws.iam import allow, document
from infra.aws.instance_boot import (
    AGENT_ACTIONS_ON_CLUSTER,
    AGENT_ACTIONS_ON_INSTANCES,
    WARM_HOOK,
    WARM_HOOK_TIMEOUT_SECONDS,
    user_data,
)
from infra.aws.scale_in import lifting_hook
from infra.aws.settle import clients, types_hook
from infra.planning.plan import ReplicaPlan
from infra.settings import PurchaseOption

# Amazon Linux 2023 with the NVIDIA driver and container runtime.
AMI_PARAMETER = "/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id"
ROOT_DEVICE = "/dev/xvda"
WARM_HOOK_TRANSITION = "autoscaling:EC2_INSTANCE_LAUNCHING"
WARM_HOOK_DEFAULT = "CONTINUE"  # an instance without the image on disk still works, but starts more slowly


@dataclass(frozen=True)
class GpuClusterArgs:
    """The instances, their number, and how they are purchased.

    Attributes:
        context: account, region, names and tags.
        plan: instance types in order of preference, counts, root volume.
        purchase: on-demand, spot or a reservation.
        reservation_id: the capacity reservation, if purchase is a reservation.
        warm_pool: number of stopped instances with the image on disk.
        image: the engine's image.
        subnet_ids: private subnets in zones that offer the instance types.
        security_group_id: security group of the instances.
        role: role of the ECS agent on the instances.
        kms_key_arn: key that encrypts their disks; empty: the AWS managed key.
        needs: resources that must exist before an instance starts and must be deleted after the last one terminates:
            outbound connectivity, security group rules. An agent that cannot connect to ECS cannot drain its instance.
    """

    context: Context
    plan: ReplicaPlan
    purchase: PurchaseOption
    reservation_id: pulumi.Input[str]
    warm_pool: int
    image: EngineImage
    subnet_ids: pulumi.Input[Sequence[str]]
    security_group_id: pulumi.Input[str]
    role: aws.iam.Role
    kms_key_arn: pulumi.Input[str]
    needs: Sequence[pulumi.Resource] = ()


class GpuCluster(pulumi.ComponentResource):
    """The cluster and its GPU instances.

    Attributes:
        cluster: the ECS cluster.
        group: the Auto Scaling group.
        provider: the capacity provider in front of it.
        ready: resources that must exist before a service can use the provider.
    """

    def __init__(self, name: str, args: GpuClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        if args.purchase.reserved != bool(args.reservation_id):
            raise ValueError("purchase and reservation_id: set both or neither")
        if args.warm_pool and args.purchase is not PurchaseOption.ON_DEMAND:
            raise ValueError("warm_pool: requires on-demand instances")
        super().__init__("vllm:aws:GpuCluster", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self.cluster = aws.ecs.Cluster(
            name,
            settings=[aws.ecs.ClusterSettingArgs(name="containerInsights", value="disabled")],
            tags=self._tags(),
            opts=self._child,
        )
        self._clients = clients(args.context)
        template = self._launch_template()
        policies = [self._agent_policy()]
        if args.warm_pool:
            policies.append(self._warm_policy())
        self.group = self._group(template, policies)
        if args.warm_pool:
            self._warm_hook()
        lifting = lifting_hook(f"{name}-scale-in", args.context.region, self._clients)
        self.provider = aws.ecs.CapacityProvider(
            name,
            auto_scaling_group_provider=aws.ecs.CapacityProviderAutoScalingGroupProviderArgs(
                auto_scaling_group_arn=self.group.arn,
                managed_draining="ENABLED",
                managed_termination_protection="ENABLED" if self._protected else "DISABLED",
                managed_scaling=aws.ecs.CapacityProviderAutoScalingGroupProviderManagedScalingArgs(
                    status="ENABLED",
                    target_capacity=100,
                    minimum_scaling_step_size=1,
                    maximum_scaling_step_size=1,  # from zero, ECS would otherwise start two instances for one task
                    # Until then, a new instance is not considered idle.
                    instance_warmup_period=args.plan.expected_cold_start_seconds,
                ),
            ),
            tags=self._tags(),
            opts=pulumi.ResourceOptions(parent=self, hooks=pulumi.ResourceHookBinding(after_update=[lifting])),
        )
        self.ready = aws.ecs.ClusterCapacityProviders(
            name,
            cluster_name=self.cluster.name,
            capacity_providers=[self.provider.name, "FARGATE"],
            opts=self._child,
        )
        self.register_outputs({"clusterName": self.cluster.name, "groupName": self.group.name})

    @property
    def _protected(self) -> bool:
        """Whether busy instances are protected from scale-in, so that idle ones are terminated instead.

        Only if minReplicas is above 0. A stack that scales to zero terminates all instances anyway, and ECS is slow to
        remove the protection of an idle instance.
        """
        return self._args.plan.max_replicas > self._args.plan.min_replicas > 0

    def _tags(self) -> dict[str, str]:
        return self._args.context.tags("capacity", self._name)

    def _launch_template(self) -> aws.ec2.LaunchTemplate:
        args, plan = self._args, self._args.plan
        profile = aws.iam.InstanceProfile(self._name, role=args.role.name, tags=self._tags(), opts=self._child)
        reserved = aws.ec2.LaunchTemplateCapacityReservationSpecificationArgs(
            capacity_reservation_target=aws.ec2.LaunchTemplateCapacityReservationSpecificationCapacityReservationTargetArgs(
                capacity_reservation_id=args.reservation_id
            )
        )
        block = aws.ec2.LaunchTemplateInstanceMarketOptionsArgs(market_type="capacity-block")
        warm_image = args.image.reference if args.warm_pool else ""
        return aws.ec2.LaunchTemplate(
            self._name,
            image_id=aws.ssm.get_parameter_output(
                name=AMI_PARAMETER, opts=pulumi.InvokeOutputOptions(parent=self)
            ).insecure_value,
            instance_type=plan.instance_types[0].name,
            ebs_optimized="true",
            update_default_version=True,
            iam_instance_profile=aws.ec2.LaunchTemplateIamInstanceProfileArgs(arn=profile.arn),
            vpc_security_group_ids=[args.security_group_id],
            metadata_options=aws.ec2.LaunchTemplateMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            block_device_mappings=[
                aws.ec2.LaunchTemplateBlockDeviceMappingArgs(
                    device_name=ROOT_DEVICE,
                    ebs=aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
                        volume_type="gp3",
                        volume_size=plan.root_volume_gib,
                        throughput=plan.root_volume_throughput_mib_per_second,
                        iops=plan.root_volume_iops,
                        encrypted="true",
                        kms_key_id=args.kms_key_arn or None,
                        delete_on_termination="true",
                    ),
                )
            ],
            capacity_reservation_specification=reserved if args.reservation_id else None,
            instance_market_options=block if args.purchase is PurchaseOption.CAPACITY_BLOCK else None,
            user_data=pulumi.Output.all(self.cluster.name, warm_image).apply(
                lambda pair: user_data(str(pair[0]), args.context.region, str(pair[1]))
            ),
            # Tags of launched instances are set here, because the provider's default tags do not apply to them.
            tag_specifications=[
                aws.ec2.LaunchTemplateTagSpecificationArgs(resource_type=kind, tags=self._tags())
                for kind in ("instance", "volume", "network-interface")
            ],
            tags=self._tags(),
            opts=self._child,
        )

    def _group(self, template: aws.ec2.LaunchTemplate, policies: Sequence[pulumi.Resource]) -> aws.autoscaling.Group:
        args, plan = self._args, self._args.plan
        # A reservation has one instance type, and a warm pool cannot be combined with a mixed instances policy.
        one_type = bool(args.reservation_id or args.warm_pool) or (
            len(plan.instance_types) == 1 and args.purchase is PurchaseOption.ON_DEMAND
        )
        # All types of the plan, even if the group launches only one: the plan's tasks run on any of them.
        names = [instance_type.name for instance_type in plan.instance_types]
        replacing = types_hook(f"{self._name}-types", names, self._clients)
        return aws.autoscaling.Group(
            self._name,
            name=self.cluster.name,  # instances use this name to complete the lifecycle action of the warm pool
            # The service sets the minimum, and the group follows it. So the group can be set to zero at any time.
            min_size=0,
            max_size=plan.max_replicas,
            vpc_zone_identifiers=args.subnet_ids,
            launch_template=aws.autoscaling.GroupLaunchTemplateArgs(
                id=template.id, version=template.latest_version.apply(str)
            )
            if one_type
            else None,
            mixed_instances_policy=None if one_type else self._mixed(template),
            protect_from_scale_in=self._protected,
            capacity_rebalance=args.purchase is PurchaseOption.SPOT,
            # Rebalancing a busy GPU to another zone costs a cold start without any benefit.
            suspended_processes=["AZRebalance"],
            termination_policies=["OldestLaunchTemplate", "Default"],
            health_check_type="EC2",
            enabled_metrics=[
                aws.autoscaling.Metric.GROUP_DESIRED_CAPACITY,
                aws.autoscaling.Metric.GROUP_IN_SERVICE_INSTANCES,
            ],
            metrics_granularity=aws.autoscaling.MetricsGranularity.ONE_MINUTE,
            # A GPU may not be available for hours. The deploy succeeds anyway, and the group keeps retrying.
            wait_for_capacity_timeout="0",
            warm_pool=self._warm_pool() if args.warm_pool else None,
            # The pool fills as soon as the group exists, so the hook must be part of its creation. Later it is a separate resource.
            initial_lifecycle_hooks=[
                aws.autoscaling.GroupInitialLifecycleHookArgs(
                    name=WARM_HOOK,
                    lifecycle_transition=WARM_HOOK_TRANSITION,
                    heartbeat_timeout=WARM_HOOK_TIMEOUT_SECONDS,
                    default_result=WARM_HOOK_DEFAULT,
                )
            ]
            if args.warm_pool
            else None,
            force_delete_warm_pool=True,
            force_delete=True,  # otherwise destroy would wait for busy instances
            tags=[
                aws.autoscaling.GroupTagArgs(key=key, value=value, propagate_at_launch=True)
                for key, value in {**self._tags(), "AmazonECSManaged": ""}.items()
            ],
            # The gateway and the alarms change the desired capacity.
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[*args.needs, *policies],
                ignore_changes=["desiredCapacity", "initialLifecycleHooks"],
                hooks=pulumi.ResourceHookBinding(after_update=[replacing]),
                custom_timeouts=pulumi.CustomTimeouts(delete="30m"),  # the largest instances take long to terminate
            ),
        )

    def _warm_pool(self) -> aws.autoscaling.GroupWarmPoolArgs:
        """A fixed number of stopped instances, independent of how many run."""
        return aws.autoscaling.GroupWarmPoolArgs(
            pool_state="Stopped",
            min_size=self._args.warm_pool,
            max_group_prepared_capacity=self._args.warm_pool,
            instance_reuse_policy=aws.autoscaling.GroupWarmPoolInstanceReusePolicyArgs(reuse_on_scale_in=False),
        )

    def _agent_policy(self) -> aws.iam.RolePolicy:
        """The permissions of every instance: to join and serve this cluster."""
        instances = pulumi.Output.concat(self._args.context.arn("ecs", "container-instance/"), self.cluster.name, "/*")
        statements = [
            allow("FindEndpoint", ["ecs:DiscoverPollEndpoint"], ["*"]),
            allow("JoinCluster", AGENT_ACTIONS_ON_CLUSTER, [self.cluster.arn]),
            allow("RunTasks", AGENT_ACTIONS_ON_INSTANCES, [instances]),
        ]
        return aws.iam.RolePolicy(
            f"{self._name}-agent", role=self._args.role.id, policy=document(statements), opts=self._child
        )

    def _warm_policy(self) -> aws.iam.RolePolicy:
        """Permission to complete the lifecycle action. Refers to the group by name, which is known before the group exists."""
        args = self._args
        group = pulumi.Output.concat(
            args.context.arn("autoscaling", "autoScalingGroup:*:autoScalingGroupName/"), self.cluster.name
        )
        statements = [
            allow("SayWarm", ["autoscaling:CompleteLifecycleAction"], [group]),
            *args.image.pull_statements,
        ]
        return aws.iam.RolePolicy(
            f"{self._name}-warm", role=args.role.id, policy=document(statements), opts=self._child
        )

    def _warm_hook(self) -> None:
        """A lifecycle hook: an instance enters the pool once it reports that the image is on its disk."""
        aws.autoscaling.LifecycleHook(
            f"{self._name}-warm",
            name=WARM_HOOK,
            autoscaling_group_name=self.group.name,
            lifecycle_transition=WARM_HOOK_TRANSITION,
            heartbeat_timeout=WARM_HOOK_TIMEOUT_SECONDS,
            default_result=WARM_HOOK_DEFAULT,
            # Operators may add a notification target.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["notificationTargetArn", "roleArn"]),
        )

    def _mixed(self, template: aws.ec2.LaunchTemplate) -> aws.autoscaling.GroupMixedInstancesPolicyArgs:
        """Several instance types, the first preferred; Spot uses the pool least likely to be interrupted."""
        spot = self._args.purchase is PurchaseOption.SPOT
        return aws.autoscaling.GroupMixedInstancesPolicyArgs(
            instances_distribution=aws.autoscaling.GroupMixedInstancesPolicyInstancesDistributionArgs(
                on_demand_base_capacity=0,
                on_demand_percentage_above_base_capacity=0 if spot else 100,
                on_demand_allocation_strategy="prioritized",
                spot_allocation_strategy="capacity-optimized-prioritized",
            ),
            launch_template=aws.autoscaling.GroupMixedInstancesPolicyLaunchTemplateArgs(
                launch_template_specification=aws.autoscaling.GroupMixedInstancesPolicyLaunchTemplateLaunchTemplateSpecificationArgs(
                    launch_template_id=template.id, version=template.latest_version.apply(str)
                ),
                overrides=[
                    aws.autoscaling.GroupMixedInstancesPolicyLaunchTemplateOverrideArgs(
                        instance_type=instance_type.name
                    )
                    for instance_type in self._args.plan.instance_types
                ],
            ),
        )
