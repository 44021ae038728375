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
    if kind == "Record" and not updating and not new.get("allowOverwrite"):
        key = [new.get(part) for part in ("zoneId", "name", "type")]
        if any(row["kind"] == kind and [row.get(part) for part in ("zoneId", "name", "type")] == key for row in others):
            # pulumi/pulumi-aws 634
            return f"creating Route53 Record: InvalidChangeBatch: [Tried to create resource record set [name='{new['name']}.', type='{new['type']}'] but it already exists]"
    if kind == "WebAclAssociation" and any(
        row["kind"] == kind and row["resourceArn"] == new["resourceArn"] for row in others
    ):
        # pulumi/pulumi-aws 4782: AWS takes it, and the provider's deletion of the former then takes the new one off
        return f"{verb} WAFv2 WebACL Association: {new['resourceArn']} has one already, whose deletion would remove this one"
    if kind == "PrivateDnsNamespace" and any(
        row["kind"] == kind and (row["vpc"], row["name"]) == (new["vpc"], new["name"]) for row in others
    ):
        # aws/copilot-cli 2377
        return f"{verb} Service Discovery Private DNS Namespace ({new['name']}): ConflictingDomainExists: The VPC {new['vpc']} in region us-east-1 has already been associated with the hosted zone Z07149982IL1TGMGOEPNF with the same domain name."
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


# kind -> AWS's words where something that exists still names it. Pulumi deletes against dependencies; what is missing there,
# or is deleted too early in a replacement, shows here.
IN_USE = {
    "CapacityProvider": "deleting ECS Capacity Provider ({id}): ResourceInUseException: The specified capacity provider is in use and cannot be removed.",
    "Certificate": "deleting ACM Certificate ({id}): ResourceInUseException: Certificate {id} is in use.",
    "Cluster": "deleting ECS Cluster ({id}): ClusterContainsServicesException: The Cluster cannot be deleted while Services are active.",
    "FileSystem": "deleting EFS file system ({id}): FileSystemInUse: You cannot delete a file system with mount targets attached to it",
    "InstanceProfile": "deleting IAM Instance Profile ({id}): DeleteConflict: it is in use",
    "PrivateDnsNamespace": "deleting Service Discovery Private DNS Namespace ({id}): ResourceInUse: Namespace has associated services; delete the services before deleting the namespace.",
    "Role": "deleting IAM Role ({id}): DeleteConflict: Cannot delete entity, must delete policies first.",
    "RouteTable": "deleting Route Table ({id}): DependencyViolation: The routeTable '{id}' has dependencies and cannot be deleted.",
    "SecurityGroup": "deleting Security Group ({id}): DependencyViolation: resource {id} has a dependent object",
    "Subnet": "deleting EC2 Subnet ({id}): DependencyViolation: The subnet '{id}' has dependencies and cannot be deleted.",
    "TargetGroup": "deleting ELBv2 Target Group ({id}): ResourceInUse: Target group '{id}' is currently in use by a listener or a rule",
    "Vpc": "deleting EC2 VPC ({id}): DependencyViolation: The vpc '{id}' has dependencies and cannot be deleted.",
    "WebAcl": "deleting WAFv2 WebACL ({id}): WAFAssociatedItemException: AWS WAF couldn't perform the operation because your resource is being used by another resource or it's associated with another resource.",
}
# AWS lets go of these: a definition or a schedule may name what is gone.
NAMES_ONLY = {"TaskDefinition", "Schedule", "LaunchTemplate", "FileSystemPolicy", "BucketPolicy", "Dashboard"}


def deletion(id_: str, arn: str, name: str, rows: dict[str, dict[str, Any]]) -> str | None:
    """AWS's error where a resource may not be deleted, because something else still names it; None where it may."""
    gone = rows.get(id_)
    if not gone or gone["kind"] not in IN_USE:
        return None
    marks = {f'"{mark}"' for mark in (id_, arn, name) if mark}
    for known, row in rows.items():
        if known == id_ or row["kind"] in NAMES_ONLY:
            continue
        text = json.dumps({key: value for key, value in row.items() if key not in ("kind", "tags", "policy")})
        if any(mark in text for mark in marks):
            return f"{IN_USE[gone['kind']].format(id=id_)} ({row['kind']} {known})"
    return None


def update(kind: str, old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """The provider's error where a resource may not change so; asked at preview, too."""
    strategy = "capacityProviderStrategies"
    if (
        kind == "Service"
        and strategy in new
        and old.get(strategy) != new[strategy]
        and not new.get("forceNewDeployment")
    ):
        # hashicorp/terraform-provider-aws 43533
        return "force_new_deployment should be true when capacity_provider_strategy is being updated"
    return None
