"""What a deploy does to what already runs, where AWS applies a new setting to new instances and tasks alone.

- A scalable target's bounds act when the next alarm does. Without one, ``minReplicas`` 0 to 1 would start nothing, and
  ``maxReplicas`` 2 to 1 would leave a second task waiting for an instance that the group may no longer start.
- A group's new instance types are those of new instances. A running instance of the former type would take the new task
  (another GPU than the plan was made for), or keep it waiting for ever: ECS counts it as capacity enough.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import boto3
import pulumi
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_CONFIG = Config(connect_timeout=3, read_timeout=10, retries={"max_attempts": 4})
Client = Callable[[str], Any]


def clients(region: str, profile: str | None) -> Client:
    """Makes clients of AWS services from the credentials at hand."""

    def client(service: Any) -> Any:  # boto3-stubs know literal names only
        return boto3.Session(region_name=region, profile_name=profile).client(service, config=_CONFIG)

    return client


def bounds_hook(name: str, client: Client) -> pulumi.ResourceHook:
    """A hook for the engine's scalable target: after an update, the replicas are brought within its bounds.

    Args:
        name: the hook's, unique in the program.
        client: makes a client of a service by its name.
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
                f"minReplicas, maxReplicas: the number of running replicas was not brought to between {least} and {most} "
                f"({reason_of(error)}). Run: aws ecs update-service --cluster {cluster} --service {service} --desired-count N"
            )
            return
        if count is not None:
            pulumi.log.info(f"replicas set to {count}, within minReplicas {least} and maxReplicas {most}")

    return pulumi.ResourceHook(name, settle)


def move_within(ecs: Any, autoscaling: Any, cluster: str, service: str, least: int, most: int) -> int | None:
    """Set service and group to the nearest number within bounds.

    Returns:
        The number; None where the service is within them already.
    """
    (found,) = ecs.describe_services(cluster=cluster, services=[service])["services"]
    desired = int(found["desiredCount"])
    count = min(max(desired, least), most)
    if count == desired:
        return None
    ecs.update_service(cluster=cluster, service=service, desiredCount=count)
    if count > desired:  # as the gateway wakes: ECS alone would take a minute more
        # The group is named after the cluster. Going down is ECS's part, which knows the idle instance.
        (group,) = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[cluster])["AutoScalingGroups"]
        if group["DesiredCapacity"] < count:
            autoscaling.set_desired_capacity(AutoScalingGroupName=cluster, DesiredCapacity=count, HonorCooldown=False)
    return count


def types_hook(name: str, wanted: Collection[str], client: Client) -> pulumi.ResourceHook:
    """A hook for the Auto Scaling group: after an update, instances of types that the plan does not name are replaced.

    Args:
        name: the hook's, unique in the program.
        wanted: the instance types that the engine's tasks are made for.
        client: makes a client of a service by its name.
    """

    def replace(args: pulumi.ResourceHookArgs) -> None:
        group = str((args.new_inputs or {})["name"])
        try:
            replaced = replace_others(client("autoscaling"), client("ec2"), group, wanted)
        except (BotoCoreError, ClientError) as error:
            pulumi.log.warn(
                f"gpu, instanceTypes: running instances of other types than {', '.join(wanted)} were not looked for "
                f"({reason_of(error)}); a new task would run on them, or wait for ever. Run: aws autoscaling "
                f"terminate-instance-in-auto-scaling-group --no-should-decrement-desired-capacity --instance-id ..."
            )
            return
        if replaced:
            pulumi.log.info(f"replaced by instances of {', '.join(wanted)}, once drained: {', '.join(replaced)}")

    return pulumi.ResourceHook(name, replace)


def replace_others(autoscaling: Any, ec2: Any, group: str, wanted: Collection[str]) -> list[str]:
    """Terminate a group's instances of other types, whether they run or wait in its warm pool; the group starts new ones.

    ECS drains those that run (managed draining), and scale-in protection does not hold them.

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
    if stopped:  # the group's own call takes none of a warm pool
        ec2.terminate_instances(InstanceIds=stopped)
    return [*running, *stopped]


def reason_of(error: Exception) -> str:
    """What AWS said, on one line."""
    return " ".join(str(error).split())[:200]
