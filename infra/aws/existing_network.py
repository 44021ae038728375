"""An existing VPC and its subnets, which the settings name or another program passes as outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.lookups import ask
from infra.errors import DeployError
from infra.inputs import is_output, is_plain
from infra.planning.catalog.gpus import InstanceType
from infra.refusal import refuse
from infra.settings import Settings

SUBNETS = 2
"""The number of subnets that are used of a list whose length is not known during a preview."""


@dataclass(frozen=True)
class ExistingNetwork:
    """An existing VPC, and its subnets that the stack may use.

    ``zones``: the availability zone of each subnet, by its id; empty if the ids are not known yet.
    """

    vpc_id: pulumi.Input[str]
    cidr_block: pulumi.Input[str]
    private_subnet_ids: Sequence[pulumi.Input[str]]
    gpu_subnet_ids: pulumi.Input[Sequence[str]]
    load_balancer_subnet_ids: Sequence[pulumi.Input[str]]
    zones: Mapping[str, str] = field(default_factory=dict)


def existing_network(
    settings: Settings, zones: Sequence[str], instance_types: Sequence[InstanceType], parent: pulumi.Resource | None
) -> ExistingNetwork | None:
    """The network that the settings name; None: the stack creates its own.

    Args:
        settings: the endpoint's settings.
        zones: zones that offer the instance types.
        instance_types: the instance types, for the error message.
        parent: the endpoint's component, whose provider answers lookups.

    Raises:
        DeployError: the network cannot be used. What is known only during the update is checked then.
    """
    if not settings.vpc_id:
        return None
    vpc_id, private, public = settings.vpc_id, settings.subnet_ids, settings.load_balancer_subnet_ids
    if isinstance(vpc_id, str) and is_plain(private) and is_plain(public):
        return find_network(vpc_id, private, public, zones, instance_types, pulumi.InvokeOptions(parent=parent))
    options = pulumi.InvokeOutputOptions(parent=parent)
    ids = _items("subnetIds", private, parent)
    found = pulumi.Output.all(
        *[pulumi.Output.all(i, aws.ec2.get_subnet_output(id=i, opts=options).availability_zone) for i in ids]
    )
    return ExistingNetwork(
        vpc_id=vpc_id,
        cidr_block=aws.ec2.get_vpc_output(id=vpc_id, opts=options).cidr_block,
        private_subnet_ids=ids,
        gpu_subnet_ids=found.apply(lambda pairs: _offering(pairs, zones, instance_types, parent)),
        load_balancer_subnet_ids=_items("loadBalancerSubnetIds", public, parent) if public else ids,
    )


def _items(key: str, ids: Any, component: pulumi.Resource | None) -> Sequence[pulumi.Input[str]]:
    """The ids one by one; of a list that is an output, the first `SUBNETS`."""
    if not is_output(ids):
        return list(ids)

    def item(known: Sequence[str], number: int) -> str:
        if len(known) < SUBNETS:
            refuse(f"{key}: found {len(known)}. Set at least two subnets in different zones", component)
        return known[number]

    return [ids.apply(partial(item, number=number)) for number in range(SUBNETS)]


def _offering(
    pairs: Sequence[tuple[str, str]],
    zones: Sequence[str],
    types: Sequence[InstanceType],
    component: pulumi.Resource | None,
) -> list[str]:
    """The subnets in one of the zones, once ids are known."""
    if problem := _same_zone("subnetIds", dict(pairs)):
        refuse(problem, component)
    ids = [subnet for subnet, zone in pairs if zone in zones]
    if not ids:
        refuse(_no_zone(zones, types), component)
    return ids


def _same_zone(key: str, zone_of: Mapping[str, str]) -> str:
    """The problem of two subnets in one zone; empty: there is none."""
    for zone in sorted(set(zone_of.values())):
        same = [subnet for subnet in zone_of if zone_of[subnet] == zone]
        if len(same) > 1:
            return (
                f"{key}: {', '.join(same)} are all in {zone}; a load balancer and EFS allow one subnet per zone. "
                f"Set only one of them"
            )
    return ""


def _no_zone(zones: Sequence[str], instance_types: Sequence[InstanceType]) -> str:
    return (
        f"subnetIds: none is in a zone that offers {', '.join(instance_type.name for instance_type in instance_types)}; they are offered in "
        f"{', '.join(zones)}. Add a subnet of one of these zones, or set gpu to another class"
    )


def zone_of_subnet(subnet_id: str, lookup: pulumi.InvokeOptions) -> str:
    """The availability zone of a subnet.

    Raises:
        DeployError: the subnet does not exist, or access to it is denied.
    """
    return ask(f"subnet {subnet_id}", lambda: aws.ec2.get_subnet(id=subnet_id, opts=lookup)).availability_zone


def find_network(
    vpc_id: str,
    subnet_ids: Sequence[str],
    load_balancer_subnet_ids: Sequence[str],
    zones: Sequence[str],
    instance_types: Sequence[InstanceType],
    lookup: pulumi.InvokeOptions,
) -> ExistingNetwork:
    """The existing network that a stack's settings name.

    Args:
        vpc_id: the VPC.
        subnet_ids: its private subnets that the stack may use.
        load_balancer_subnet_ids: its public subnets for the load balancer; empty: the private ones.
        zones: zones that offer the instance types.
        instance_types: the instance types, for the error message.

    Raises:
        DeployError: the VPC or a subnet does not exist, two subnets share a zone, or no subnet is in one of ``zones``.
    """
    vpc = ask(
        f"vpcId: {vpc_id}",
        lambda: aws.ec2.get_vpc(filters=[aws.ec2.GetVpcFilterArgs(name="vpc-id", values=[vpc_id])], opts=lookup),
    )

    def subnets(key: str, wanted: Sequence[str]) -> tuple[str, ...]:
        filters = [
            aws.ec2.GetSubnetsFilterArgs(name="vpc-id", values=[vpc.id]),
            aws.ec2.GetSubnetsFilterArgs(name="subnet-id", values=list(wanted)),
        ]
        found = ask(f"{key} in {vpc_id}", lambda: aws.ec2.get_subnets(filters=filters, opts=lookup).ids)
        return tuple(sorted(found))

    private = subnets("subnetIds", subnet_ids)
    public = subnets("loadBalancerSubnetIds", load_balancer_subnet_ids) if load_balancer_subnet_ids else private
    for key, wanted, found in (
        ("subnetIds", subnet_ids, private),
        ("loadBalancerSubnetIds", load_balancer_subnet_ids, public),
    ):
        if len(found) < len(set(wanted)):
            missing = sorted(set(wanted) - set(found))
            raise DeployError(f"{key}: {', '.join(missing)} not found in {vpc_id}. Set subnets of that VPC")
    zone_of = {subnet: zone_of_subnet(subnet, lookup) for subnet in dict.fromkeys((*private, *public))}
    for key, found in (("subnetIds", private), ("loadBalancerSubnetIds", public)):
        if problem := _same_zone(key, {subnet: zone_of[subnet] for subnet in found}):
            raise DeployError(problem)
    gpu = tuple(subnet for subnet in private if zone_of.get(subnet) in zones)
    if not gpu:
        raise DeployError(_no_zone(zones, instance_types))
    return ExistingNetwork(vpc.id, vpc.cidr_block, private, gpu, public, zone_of)
