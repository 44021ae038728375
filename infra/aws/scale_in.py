"""Removes scale-in protection from running instances after protection is turned off for the group.

The group's setting applies only to instances launched afterwards; running instances keep theirs (EC2 Auto Scaling: "the
group can't terminate the required number of instances until their instance scale in protection settings are disabled").
ECS removes it only while managed termination protection is on. Once that is off, it would never be removed, and a GPU
would be billed indefinitely.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from botocore.exceptions import BotoCoreError, ClientError

from infra.aws.settle import Client, reason_of

MOST_INSTANCES_A_CALL = 50  # the limit of SetInstanceProtection


def lifting_hook(name: str, region: str, client: Client) -> pulumi.ResourceHook:
    """A hook for a capacity provider, which runs after an update that turns managed termination protection off.

    Args:
        name: the hook's name, unique in the program.
        region: the stack's region.
        client: creates an AWS client by service name.
    """

    def lift(args: pulumi.ResourceHookArgs) -> None:
        if not (_protects(args.old_inputs) and not _protects(args.new_inputs)):
            return
        group = str(_provider(args.new_inputs)["autoScalingGroupArn"]).rpartition("/")[2]
        try:
            lifted = lift_protection(client("autoscaling"), group)
        except (BotoCoreError, ClientError) as error:
            pulumi.log.warn(
                f"minReplicas, maxReplicas: scale-in protection of the instances of {group} was not removed ({reason_of(error)}), and they "
                f"would never stop. Run: aws autoscaling set-instance-protection --no-protected-from-scale-in "
                f"--auto-scaling-group-name {group} --region {region} --instance-ids ..."
            )
            return
        if lifted:
            pulumi.log.info(f"scale-in protection removed from {', '.join(lifted)}; they can now be stopped when idle")

    return pulumi.ResourceHook(name, lift)


def lift_protection(autoscaling: Any, group: str) -> list[str]:
    """Remove the protection from every protected instance of a group; instances in a warm pool have none.

    Returns:
        The instances' ids.
    """
    found = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
    ids = [i["InstanceId"] for each in found for i in each["Instances"] if i["ProtectedFromScaleIn"]]
    for start in range(0, len(ids), MOST_INSTANCES_A_CALL):
        autoscaling.set_instance_protection(
            AutoScalingGroupName=group,
            InstanceIds=ids[start : start + MOST_INSTANCES_A_CALL],
            ProtectedFromScaleIn=False,
        )
    return ids


def _provider(inputs: Mapping[str, Any] | None) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (inputs or {}).get("autoScalingGroupProvider") or {}
    return found


def _protects(inputs: Mapping[str, Any] | None) -> bool:
    return _provider(inputs).get("managedTerminationProtection") == "ENABLED"
