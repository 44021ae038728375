"""More of AWS's refusals than the engine kit makes, in AWS's words: asked before the kit's own."""

from __future__ import annotations

import json
import os
import unicodedata
from typing import Any


def refusal(kind: str, new: dict[str, Any], others: list[dict[str, Any]], updating: bool) -> str | None:
    """AWS's error where a resource may not exist beside the others; None where it may.

    Args:
        kind: the last word of its type, such as ``Listener``.
        new: its inputs, secrets revealed.
        others: inputs of what exists, each with its ``kind``; without the resource itself where it is updated.
        updating: whether it exists already.
    """
    verb = "updating" if updating else "creating"
    if kind == "Service":
        for target in new.get("loadBalancers") or ():
            group = target["targetGroupArn"]
            if not any(_forwards(row, group) for row in others if row["kind"] == "Listener"):
                # hashicorp/terraform-provider-aws 3495 and many others
                return f"{verb} ECS Service: InvalidParameterException: The target group with targetGroupArn {group} does not have an associated load balancer."
    if kind == "Group" and "vpcZoneIdentifiers" in new and not new["vpcZoneIdentifiers"]:
        # CreateAutoScalingGroup
        return f"{verb} Auto Scaling Group: ValidationError: At least one Availability Zone or VPC Subnet is required."
    if kind == "LoadBalancer" and _twice_in_a_zone(new["subnets"]):
        # as CreateLoadBalancer documents it
        return f"{verb} ELBv2 application Load Balancer: InvalidConfigurationRequest: A load balancer cannot be attached to multiple subnets in the same Availability Zone"
    if kind == "Role":
        for value in (new.get("tags") or {}).values():
            if any(unicodedata.category(c)[0] not in "LNZ" and c not in "_.:/=+-@" for c in str(value)):
                # CreateRole, Tag
                return f"{verb} IAM Role: ValidationError: Value '{value}' at 'tags.1.member.value' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\p{{L}}\\p{{Z}}\\p{{N}}_.:/=+\\-@]*"
    return None


def _forwards(listener: dict[str, Any], target_group: str) -> bool:
    return any(action.get("targetGroupArn") == target_group for action in listener["defaultActions"])


def _twice_in_a_zone(subnets: list[str]) -> bool:
    known = json.loads(os.environ.get("STANDIN_SUBNETS", "{}"))
    zones = [known[subnet] for subnet in subnets if subnet in known]
    return len(zones) > len(set(zones))
