"""Applies a deploy to running instances and tasks when AWS applies a new setting only to new ones.

- AWS enforces a scalable target's bounds only at the next scaling activity. Until then, raising ``minReplicas`` from 0 to
  1 would start nothing, and lowering ``maxReplicas`` from 2 to 1 would leave a second task pending for an instance that the
  group may no longer start.
- A group's new instance types apply only to new instances. The new task would be placed on a running instance of the old
  type (a different GPU than planned), or stay pending forever, because ECS counts that instance as sufficient capacity.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import boto3
import pulumi
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.aws.context import Context

_CONFIG = Config(connect_timeout=3, read_timeout=10, retries={"max_attempts": 4})
Client = Callable[[str], Any]


class OtherAccountError(BotoCoreError):
    """The program's credentials are of another account than the component's provider."""

    fmt = "the program's credentials are of account {found}, the endpoint is in {wanted}"


def clients(context: Context) -> Client:
    """Creates AWS clients with the program's credentials.

    A component's own provider can have other credentials, which cannot be read from it; so its account is compared first.
    """
    profile = None if context.explicit else pulumi.Config("aws").get("profile")

    def client(service: Any) -> Any:  # boto3-stubs only accept literal names
        session = boto3.Session(region_name=context.region, profile_name=profile)
        if context.explicit:
            found = session.client("sts", config=_CONFIG).get_caller_identity()["Account"]
            if found != context.account_id:
                raise OtherAccountError(found=found, wanted=context.account_id)
        return session.client(service, config=_CONFIG)

    return client


def bounds_hook(name: str, client: Client) -> pulumi.ResourceHook:
    """A hook for the engine's scalable target, which scales the replicas to within its bounds after an update.

    Args:
        name: the hook's name, unique in the program.
        client: creates an AWS client by service name.
    """

    def settle(args: pulumi.ResourceHookArgs) -> None:
        new, old = args.new_inputs or {}, args.old_inputs or {}
        least, most = int(new["minCapacity"]), int(new["maxCapacity"])
        if (least, most) == (old.get("minCapacity"), old.get("maxCapacity")):
            return
        _, cluster, service = str(new["resourceId"]).split("/")
        try:
            count = move_within(client("ecs"), client("autoscaling"), cluster, service, least, most)
        except (BotoCoreError, ClientError) as error:
            pulumi.log.warn(
                f"minReplicas, maxReplicas: the number of running replicas was not scaled to between {least} and {most} "
                f"({reason_of(error)}). Run: aws ecs update-service --cluster {cluster} --service {service} --desired-count N"
            )
            return
        if count is not None:
            pulumi.log.info(f"replicas set to {count}, within minReplicas {least} and maxReplicas {most}")

    return pulumi.ResourceHook(name, settle)


def move_within(ecs: Any, autoscaling: Any, cluster: str, service: str, least: int, most: int) -> int | None:
    """Set service and group to the nearest number within bounds.

    Returns:
        The number; None if the service is already within bounds.
    """
    (found,) = ecs.describe_services(cluster=cluster, services=[service])["services"]
    desired = int(found["desiredCount"])
    count = min(max(desired, least), most)
    if count == desired:
        return None
    ecs.update_service(cluster=cluster, service=service, desiredCount=count)
    if count > desired:  # like the gateway's wake: ECS alone would take a minute longer
        # The group has the cluster's name. ECS scales it down, because ECS can tell which instance is idle.
        (group,) = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[cluster])["AutoScalingGroups"]
        if group["DesiredCapacity"] < count:
            autoscaling.set_desired_capacity(AutoScalingGroupName=cluster, DesiredCapacity=count, HonorCooldown=False)
    return count


def types_hook(name: str, wanted: Collection[str], client: Client) -> pulumi.ResourceHook:
    """A hook for the Auto Scaling group, which replaces instances of types that are not in the plan after an update.

    Args:
        name: the hook's name, unique in the program.
        wanted: the plan's instance types.
        client: creates an AWS client by service name.
    """

    def replace(args: pulumi.ResourceHookArgs) -> None:
        group = str((args.new_inputs or {})["name"])
        try:
            replaced = replace_others(client("autoscaling"), client("ec2"), group, wanted)
        except (BotoCoreError, ClientError) as error:
            pulumi.log.warn(
                f"gpu, instanceTypes: running instances of types other than {', '.join(wanted)} were not replaced "
                f"({reason_of(error)}); a new task would run on them, or stay pending forever. Run: aws autoscaling "
                f"terminate-instance-in-auto-scaling-group --no-should-decrement-desired-capacity --instance-id ..."
            )
            return
        if replaced:
            pulumi.log.info(f"replaced by instances of {', '.join(wanted)}, once drained: {', '.join(replaced)}")

    return pulumi.ResourceHook(name, replace)


def replace_others(autoscaling: Any, ec2: Any, group: str, wanted: Collection[str]) -> list[str]:
    """Terminate a group's instances of other types, running or in its warm pool; the group starts new ones.

    ECS drains running instances (managed draining); scale-in protection does not apply to this termination.

    Returns:
        The instances' ids.
    """
    groups = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
    running = [
        i["InstanceId"]
        for found in groups
        for i in found["Instances"]
        if i["InstanceType"] not in wanted and i["LifecycleState"] in ("InService", "Pending")
    ]
    for instance in running:
        autoscaling.terminate_instance_in_auto_scaling_group(InstanceId=instance, ShouldDecrementDesiredCapacity=False)
    stopped = []
    if any(found.get("WarmPoolConfiguration") for found in groups):
        pool = autoscaling.describe_warm_pool(AutoScalingGroupName=group)["Instances"]
        stopped = [i["InstanceId"] for i in pool if i["InstanceType"] not in wanted]
    if stopped:  # the group's own API does not accept warm pool instances
        ec2.terminate_instances(InstanceIds=stopped)
    return [*running, *stopped]


def reason_of(error: Exception) -> str:
    """AWS's error message on one line."""
    return " ".join(str(error).split())[:200]
