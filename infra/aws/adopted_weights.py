"""An existing file system with weights, looked up and checked before any resource is created."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.context import RETAINED_TAGS, Context
from infra.aws.existing_network import ExistingNetwork, zone_of_subnet
from infra.aws.lookups import ask
from infra.errors import DeployError
from infra.inputs import is_output
from infra.settings import PROJECT, Settings, WeightsThroughput

FOLDERS = ("models", "compiled")
# EFS maps every access through an access point to this user, so root in the container has no privileges here.
OWNER_ID = 1000


@dataclass(frozen=True)
class Existing:
    """An existing AWS resource that the stack uses but does not manage."""

    id: str
    arn: str


@dataclass(frozen=True)
class MountTarget:
    """A file system's mount target in one zone."""

    subnet_id: str
    vpc_id: str
    zone: str
    security_group_ids: tuple[str, ...]


@dataclass(frozen=True)
class AccessPoint:
    """A folder of a file system, and the user that it enforces."""

    existing: Existing
    path: str
    user_id: int
    retained: bool


@dataclass(frozen=True)
class Found:
    """A file system as described by AWS."""

    existing: Existing
    encrypted: bool
    kms_key_arn: str
    throughput: str
    zone: str
    read_only: bool
    tags: Mapping[str, str]
    mount_targets: Sequence[MountTarget]
    access_points: Sequence[AccessPoint]
    policy: Mapping[str, Any] | None


@dataclass(frozen=True)
class AdoptedWeights:
    """A file system that a stack uses but never changes.

    Attributes:
        file_system: the file system.
        access_points: access points that a destroyed stack retained, by folder.
        covered_subnet_ids: subnets of the stack whose zone already has a mount target; EFS allows one per zone.
        security_group_ids: security groups of those mount targets.
    """

    file_system: Existing
    access_points: Mapping[str, Existing] = field(default_factory=dict)
    covered_subnet_ids: frozenset[str] = frozenset()
    security_group_ids: tuple[str, ...] = ()


def adopt(settings: Settings, context: Context, network: ExistingNetwork | None) -> AdoptedWeights | None:
    """The file system that the settings name; None: the stack creates its own.

    Args:
        settings: the stack's settings.
        context: account, region, names and tags.
        network: the existing network that the stack uses; None: the stack creates one.

    Raises:
        DeployError: the file system cannot be used; one line per problem.
    """
    if not settings.weights_file_system_id:
        return None
    found = look_up(settings.weights_file_system_id, context)
    if problems := refusals(found, settings, context, network):
        raise DeployError("\n".join(problems))
    used = {target.zone: target for target in found.mount_targets}
    private = [subnet for subnet in network.private_subnet_ids if isinstance(subnet, str)] if network and used else []
    zones = {subnet: zone_of_subnet(subnet, context.lookup) for subnet in private}
    covered = {subnet: used[zone] for subnet, zone in zones.items() if zone in used}
    points = {point.path.removeprefix("/"): point.existing for point in found.access_points if point.retained}
    return AdoptedWeights(
        file_system=found.existing,
        access_points={folder: points[folder] for folder in FOLDERS if folder in points},
        covered_subnet_ids=frozenset(covered),
        security_group_ids=tuple(sorted({group for target in covered.values() for group in target.security_group_ids})),
    )


def look_up(file_system_id: str, context: Context) -> Found:
    """The file system as described by AWS, without the mount targets that this stack created.

    Raises:
        DeployError: it does not exist in the stack's region and account, or access to it is denied.
    """
    what = f"weightsFileSystemId: {file_system_id} in {context.region}, account {context.account_id}"
    system = ask(what, lambda: aws.efs.get_file_system(file_system_id=file_system_id, opts=context.lookup))
    points = ask(
        f"access points of {file_system_id}",
        lambda: aws.efs.get_access_points(file_system_id=file_system_id, opts=context.lookup),
    )
    return Found(
        existing=Existing(file_system_id, system.arn),
        encrypted=system.encrypted,
        kms_key_arn=system.kms_key_id or "",
        throughput=system.throughput_mode or "",
        zone=system.availability_zone_name or "",
        read_only=any(item.replication_overwrite == "REPLICATING" for item in system.protections or ()),
        tags=system.tags or {},
        mount_targets=_mount_targets(file_system_id, context),
        access_points=[_access_point(point, context) for point in points.ids],
        policy=_policy(file_system_id, context),
    )


def refusals(found: Found, settings: Settings, context: Context, network: ExistingNetwork | None) -> list[str]:
    """The problems that prevent a stack from using a file system, each with what to set or do instead."""
    name, problems = found.existing.id, []

    def add(text: str) -> None:
        problems.append(f"weightsFileSystemId: {name} {text}")

    if found.tags.get("Project") == PROJECT and not found.tags.keys() & RETAINED_TAGS:
        add(
            f"belongs to stack {found.tags.get('Stack')}, which deletes it at destroy. Set protect: true there and pulumi up, then destroy that stack"
        )
    if not found.encrypted:
        add(
            "is not encrypted at rest, and EFS cannot change that. Remove weightsFileSystemId to let the stack create its own"
        )
    if (
        settings.kms_key_arn
        and not is_output(settings.kms_key_arn)
        and found.encrypted
        and found.kms_key_arn != settings.kms_key_arn
    ):
        add(
            f"is encrypted with {found.kms_key_arn or 'the key of AWS'}, not with kmsKeyArn, and EFS cannot change that. Set kmsKeyArn to that key, or remove weightsFileSystemId"
        )
    if found.zone:
        add(
            f"is a One Zone file system, in {found.zone}, but engines also start in other zones. Set a Regional file system"
        )
    if found.read_only:
        add("is the read-only copy of a replication. End that first: aws efs delete-replication-configuration")
    if found.throughput in set(WeightsThroughput) and found.throughput != settings.weights_throughput.value:
        add(
            f"has the throughput mode {found.throughput}, which the stack does not change. Set weightsThroughput: {found.throughput}"
        )
    vpcs = sorted({target.vpc_id for target in found.mount_targets})
    if (
        vpcs
        and network
        and not (isinstance(network.vpc_id, str) and all(isinstance(i, str) for i in network.private_subnet_ids))
    ):
        add("has mount targets, which are compared with the subnets. Set vpcId and subnetIds to ids, not outputs")
        vpcs = []
    if vpcs and (network is None or vpcs != [network.vpc_id]):
        ours = f"and vpcId is {network.vpc_id}" if network else "and this stack creates its own VPC"
        add(
            f"has mount targets in {', '.join(vpcs)}, {ours}; EFS allows one VPC. Set vpcId: {vpcs[0]} and subnetIds, or delete them: aws efs delete-mount-target"
        )
    for point in found.access_points:
        if point.path.removeprefix("/") in FOLDERS and point.user_id != OWNER_ID:
            add(
                f"holds {point.path} for user {point.user_id} ({point.existing.id}); the stack reads and writes it as {OWNER_ID}. Delete that access point and let user {OWNER_ID} own the folder, or set another file system"
            )
    if others := _strangers(found.policy, context):
        add(
            f"has a policy that allows {', '.join(others)}, and the stack would replace it. Remove it once nothing else needs it: aws efs delete-file-system-policy --file-system-id {name}"
        )
    return problems


def _strangers(policy: Mapping[str, Any] | None, context: Context) -> list[str]:
    """The principals that a policy allows, except this stack's roles and deleted roles."""
    found = []
    for statement in _many((policy or {}).get("Statement", [])):
        principal = statement.get("Principal", {})
        named = _many(principal.get("AWS", [])) if isinstance(principal, dict) else ["everybody"]
        if statement.get("Effect") == "Allow":
            found += [str(name).replace("*", "everybody") for name in named]
    # AWS shows the id of a role that no longer exists instead of its ARN.
    own = re.compile(
        rf"A(ROA|IDA)[A-Z0-9]+|arn:[^:]+:iam:[^:]*:{context.account_id}:role/{re.escape(context.prefix)}-role-.*"
    )
    return sorted({name for name in found if not own.fullmatch(name)})


def _policy(file_system_id: str, context: Context) -> Mapping[str, Any] | None:
    # The provider's EFS lookups do not return the policy; Cloud Control does.
    try:
        answer = aws.cloudcontrol.get_resource(
            identifier=file_system_id, type_name="AWS::EFS::FileSystem", opts=context.lookup
        )
        policy = json.loads(answer.properties).get("FileSystemPolicy")
    except Exception as error:  # raised by the SDK; a missing read permission must not fail the deploy
        reason = " ".join(str(error).split())
        pulumi.log.warn(
            f"the policy of {file_system_id} was not checked, and is replaced by the stack's: {reason[-200:]}"
        )
        return None
    found: Mapping[str, Any] | None = json.loads(policy) if isinstance(policy, str) else policy
    return found


def _mount_targets(file_system_id: str, context: Context) -> list[MountTarget]:
    """The mount targets that this stack did not create, found by their network interfaces' descriptions."""
    by_name = aws.ec2.GetNetworkInterfacesFilterArgs(name="description", values=[f"*{file_system_id}*"])
    ids = ask(
        f"mount targets of {file_system_id}",
        lambda: aws.ec2.get_network_interfaces(filters=[by_name], opts=context.lookup).ids,
    )
    found = []
    for interface_id in ids:
        one = ask(
            f"mount target {interface_id}", partial(aws.ec2.get_network_interface, id=interface_id, opts=context.lookup)
        )
        of_target = tuple(sorted(one.security_groups))
        found.append(MountTarget(one.subnet_id, one.vpc_id, one.availability_zone, of_target))
    if not found:
        return []
    groups = sorted({group for target in found for group in target.security_group_ids})
    own = _own(groups, context)
    return [target for target in found if not own & set(target.security_group_ids)]


def _own(groups: Sequence[str], context: Context) -> set[str]:
    """The security groups among these that this stack created."""
    pairs = {"group-id": list(groups), "tag:Project": [PROJECT], "tag:Stack": [context.stack]}
    filters = [aws.ec2.GetSecurityGroupsFilterArgs(name=name, values=values) for name, values in pairs.items()]
    return set(
        ask(
            "security groups of mount targets",
            lambda: aws.ec2.get_security_groups(filters=filters, opts=context.lookup).ids,
        )
    )


def _access_point(access_point_id: str, context: Context) -> AccessPoint:
    one = ask(
        f"access point {access_point_id}",
        lambda: aws.efs.get_access_point(access_point_id=access_point_id, opts=context.lookup),
    )
    path = one.root_directories[0].path if one.root_directories else "/"
    user = one.posix_users[0].uid if one.posix_users else 0
    tags = one.tags or {}
    retained = bool(tags.keys() & RETAINED_TAGS) and tags.get("Project") == PROJECT and user == OWNER_ID
    return AccessPoint(Existing(access_point_id, one.arn), path, user, retained)


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
