"""Confirms with its own service that a resource exists which only the search by tag lists.

The tagging API also lists resources that were deleted, for minutes to days (fleets, Spot requests, volumes, queues). Kinds
that are listed in `kinds.py` come from their own service's Describe, so only the others are confirmed here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from smoke_tests.teardown.region_scan import RegionScan, code_of, is_gone, matches, message_of


class Existence(StrEnum):
    """What a resource's own service reports."""

    EXISTS = "exists"
    GONE = "gone"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True)
class Describe:
    """The call that describes one resource.

    Attributes:
        service: boto3's name of it.
        operation: the method.
        parameter: name of the parameter with the identifier.
        key: where the response lists what was found; empty: the call itself fails if there is nothing.
        state: the key of the resource's state, or of a mapping with `Code` or `Name`.
        gone: states of a resource that no longer exists, or never did, and is not billed.
        many: whether the parameter is a list.
        identifier: the identifier, from the ARN's last part.
    """

    service: str
    operation: str
    parameter: str
    key: str = ""
    state: str = ""
    gone: tuple[str, ...] = ()
    many: bool = True
    identifier: Callable[[str], str] = lambda resource: resource.rpartition("/")[2]


def _after_colon(resource: str) -> str:
    return resource.rpartition(":")[2]


def _with_slashes(resource: str) -> str:
    return resource.partition("/")[2]


def _ec2(operation: str, parameter: str, key: str, state: str = "", *gone: str) -> Describe:
    return Describe("ec2", operation, parameter, key, state, gone)


def _one(service: str, operation: str, parameter: str, identifier: Callable[[str], str], **more: Any) -> Describe:
    return Describe(service, operation, parameter, many=False, identifier=identifier, **more)


DESCRIBES: Mapping[str, Describe] = {
    "ec2:fleet": _ec2("describe_fleets", "FleetIds", "Fleets", "FleetState", "deleted", "failed"),
    "ec2:spot-instances-request": _ec2(
        "describe_spot_instance_requests", "SpotInstanceRequestIds", "SpotInstanceRequests", "State",
        "closed", "cancelled", "failed",
    ),
    "ec2:spot-fleet-request": _ec2(
        "describe_spot_fleet_requests", "SpotFleetRequestIds", "SpotFleetRequestConfigs", "SpotFleetRequestState",
        "cancelled", "failed",
    ),
    "ec2:capacity-reservation": _ec2(
        "describe_capacity_reservations", "CapacityReservationIds", "CapacityReservations", "State",
        "expired", "cancelled", "failed",
    ),
    "ec2:key-pair": _ec2("describe_key_pairs", "KeyPairIds", "KeyPairs"),
    "ec2:placement-group": _ec2("describe_placement_groups", "GroupIds", "PlacementGroups", "State", "deleted"),
    "ec2:network-acl": _ec2("describe_network_acls", "NetworkAclIds", "NetworkAcls"),
    "ec2:dhcp-options": _ec2("describe_dhcp_options", "DhcpOptionsIds", "DhcpOptions"),
    "ec2:egress-only-internet-gateway": _ec2(
        "describe_egress_only_internet_gateways", "EgressOnlyInternetGatewayIds", "EgressOnlyInternetGateways"
    ),
    "ec2:prefix-list": _ec2(
        "describe_managed_prefix_lists", "PrefixListIds", "PrefixLists", "State", "delete-complete"
    ),
    "ec2:vpc-peering-connection": _ec2(
        "describe_vpc_peering_connections", "VpcPeeringConnectionIds", "VpcPeeringConnections", "Status",
        "deleted", "rejected", "expired", "failed",
    ),
    "ec2:instance-connect-endpoint": _ec2(
        "describe_instance_connect_endpoints", "InstanceConnectEndpointIds", "InstanceConnectEndpoints", "State",
        "delete-complete",
    ),
    "sqs": _one("sqs", "get_queue_url", "QueueName", _after_colon),
    "dynamodb:table": _one("dynamodb", "describe_table", "TableName", _with_slashes),
    "ssm:parameter": _one("ssm", "get_parameter", "Name", _with_slashes),
    "events:rule": _one("events", "describe_rule", "Name", _with_slashes),
    "states:stateMachine": _one("stepfunctions", "describe_state_machine", "stateMachineArn", str, state="status"),
    "eks:cluster": _one("eks", "describe_cluster", "name", _with_slashes),
    "sagemaker:endpoint": _one("sagemaker", "describe_endpoint", "EndpointName", _with_slashes),
    "rds:db": _one("rds", "describe_db_instances", "DBInstanceIdentifier", _after_colon, key="DBInstances"),
    "rds:cluster": _one("rds", "describe_db_clusters", "DBClusterIdentifier", _after_colon, key="DBClusters"),
    "cloudformation:stack": _one(
        "cloudformation", "describe_stacks", "StackName", str, key="Stacks", state="StackStatus",
        gone=("DELETE_COMPLETE",),
    ),
}  # fmt: skip
"""By the form of the ARN, as in `matches`."""


def confirm(scan: RegionScan, arn: str) -> tuple[Existence, str]:
    """Ask the resource's own service.

    Returns:
        Whether the resource exists, and its state, or why that is not known.
    """
    describe = next((describe for form, describe in DESCRIBES.items() if matches(arn, form)), None)
    if describe is None:
        return Existence.UNCONFIRMED, "this kind is not confirmed with its own service"
    resource = arn if describe.identifier is str else describe.identifier(arn.split(":", 5)[5])
    asked: Any = [resource] if describe.many else resource
    try:
        answer = getattr(scan.client(describe.service), describe.operation)(**{describe.parameter: asked})
    except Exception as error:  # every failure has the same consequence: existence is not known
        if is_gone(error) or _is_unknown(error):
            return Existence.GONE, message_of(error)
        return Existence.UNCONFIRMED, message_of(error)
    if not describe.key:
        return Existence.EXISTS, ""
    states = [_state(found.get(describe.state, "")) for found in answer.get(describe.key) or ()]
    if all(state in describe.gone for state in states):
        return Existence.GONE, ", ".join(states)
    return Existence.EXISTS, ", ".join(filter(None, states))


def _state(found: Any) -> str:
    return str(found.get("Code", "")) if isinstance(found, Mapping) else str(found)


def _is_unknown(error: Exception) -> bool:
    """Whether the service reports that the resource does not exist, in codes of its own."""
    return code_of(error).endswith(("NonExistentQueue", "StateMachineDoesNotExist")) or (
        code_of(error) == "ValidationError" and "does not exist" in str(error)
    )
