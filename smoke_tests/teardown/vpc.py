"""The VPC and its contents. Network interfaces that AWS created are recognized by their security groups."""

from collections.abc import Iterator

from smoke_tests.teardown.items import Item
from smoke_tests.teardown.prices import hourly
from smoke_tests.teardown.region_scan import Kind, RegionScan, present

GOING_STATES = ("deleting", "deleted")


def _nat_gateways(scan: RegionScan) -> Iterator[Item]:
    for gateway in scan.pages("ec2", "describe_nat_gateways", "NatGateways"):
        if gateway["State"] in ("deleted", "failed"):
            continue
        price, going = hourly("nat_hour"), gateway["State"] in GOING_STATES
        tags = gateway.get("Tags")
        yield from present(scan.item("NAT gateway", gateway["NatGatewayId"], "", tags, usd_per_hour=price, going=going))


def _remove_nat_gateway(scan: RegionScan, item: Item) -> None:
    scan.client("ec2").delete_nat_gateway(NatGatewayId=item.identifier)


def _addresses(scan: RegionScan) -> Iterator[Item]:
    price = hourly("public_ipv4_hour")
    for address in scan.pages("ec2", "describe_addresses", "Addresses"):
        yield from present(
            scan.item(
                "Elastic IP", address["AllocationId"], "", address.get("Tags"),
                usd_per_hour=price, note=address.get("PublicIp", ""),
            )
        )  # fmt: skip


def _remove_address(scan: RegionScan, item: Item) -> None:
    scan.client("ec2").release_address(AllocationId=item.identifier)


def _interfaces(scan: RegionScan) -> Iterator[Item]:
    for interface in scan.pages("ec2", "describe_network_interfaces", "NetworkInterfaces"):
        groups = {group["GroupId"] for group in interface["Groups"]}
        part_of = "its security groups" if groups and groups <= scan.security_group_ids else ""
        description = interface.get("Description") or interface["Status"]
        yield from present(
            scan.item(
                "network interface", interface["NetworkInterfaceId"], "", interface.get("TagSet"),
                part_of=part_of, note=description,
            )
        )  # fmt: skip


def _remove_interface(scan: RegionScan, item: Item) -> None:
    scan.client("ec2").delete_network_interface(NetworkInterfaceId=item.identifier)


def _security_groups(scan: RegionScan) -> Iterator[Item]:
    for group in scan.pages("ec2", "describe_security_groups", "SecurityGroups"):
        if group["GroupName"] != "default":  # deleted with its VPC
            yield from present(scan.item("security group", group["GroupId"], group["GroupName"], group.get("Tags")))


def _remove_security_group(scan: RegionScan, item: Item) -> None:
    # Groups that reference each other can only be deleted once their rules are removed.
    ec2 = scan.client("ec2")
    for group_id in sorted(scan.security_group_ids):
        for group in ec2.describe_security_groups(Filters=[{"Name": "group-id", "Values": [group_id]}])[
            "SecurityGroups"
        ]:
            if group["IpPermissions"]:
                ec2.revoke_security_group_ingress(GroupId=group_id, IpPermissions=group["IpPermissions"])
            if group["IpPermissionsEgress"]:
                ec2.revoke_security_group_egress(GroupId=group_id, IpPermissions=group["IpPermissionsEgress"])
    ec2.delete_security_group(GroupId=item.identifier)


def _endpoints(scan: RegionScan) -> Iterator[Item]:
    for endpoint in scan.pages("ec2", "describe_vpc_endpoints", "VpcEndpoints"):
        interfaces = len(endpoint.get("SubnetIds") or ()) if endpoint["VpcEndpointType"] != "Gateway" else 0
        state = str(endpoint.get("State", "")).lower()
        if state == "deleted":
            continue
        yield from present(
            scan.item(
                "VPC endpoint", endpoint["VpcEndpointId"], "", endpoint.get("Tags"), going=state in GOING_STATES,
                usd_per_hour=hourly("interface_endpoint_hour", interfaces), note=endpoint["ServiceName"],
            )
        )  # fmt: skip


def _remove_endpoint(scan: RegionScan, item: Item) -> None:
    answer = scan.client("ec2").delete_vpc_endpoints(VpcEndpointIds=[item.identifier])
    for failed in answer.get("Unsuccessful") or ():
        raise RuntimeError(failed["Error"]["Message"])


def _flow_logs(scan: RegionScan) -> Iterator[Item]:
    for log in scan.pages("ec2", "describe_flow_logs", "FlowLogs"):
        yield from present(scan.item("flow log", log["FlowLogId"], "", log.get("Tags")))


def _remove_flow_log(scan: RegionScan, item: Item) -> None:
    scan.client("ec2").delete_flow_logs(FlowLogIds=[item.identifier])


def _subnets(scan: RegionScan) -> Iterator[Item]:
    for subnet in scan.pages("ec2", "describe_subnets", "Subnets"):
        yield from present(scan.item("subnet", subnet["SubnetId"], "", subnet.get("Tags")))


def _remove_subnet(scan: RegionScan, item: Item) -> None:
    scan.client("ec2").delete_subnet(SubnetId=item.identifier)


def _route_tables(scan: RegionScan) -> Iterator[Item]:
    for table in scan.pages("ec2", "describe_route_tables", "RouteTables"):
        # The main route table is deleted with its VPC.
        if not any(association.get("Main") for association in table["Associations"]):
            yield from present(scan.item("route table", table["RouteTableId"], "", table.get("Tags")))


def _remove_route_table(scan: RegionScan, item: Item) -> None:
    ec2 = scan.client("ec2")
    for table in ec2.describe_route_tables(RouteTableIds=[item.identifier])["RouteTables"]:
        for association in table["Associations"]:
            ec2.disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
    ec2.delete_route_table(RouteTableId=item.identifier)


def _internet_gateways(scan: RegionScan) -> Iterator[Item]:
    for gateway in scan.pages("ec2", "describe_internet_gateways", "InternetGateways"):
        yield from present(scan.item("internet gateway", gateway["InternetGatewayId"], "", gateway.get("Tags")))


def _remove_internet_gateway(scan: RegionScan, item: Item) -> None:
    ec2 = scan.client("ec2")
    for gateway in ec2.describe_internet_gateways(InternetGatewayIds=[item.identifier])["InternetGateways"]:
        for attachment in gateway["Attachments"]:
            ec2.detach_internet_gateway(InternetGatewayId=item.identifier, VpcId=attachment["VpcId"])
    ec2.delete_internet_gateway(InternetGatewayId=item.identifier)


def _vpcs(scan: RegionScan) -> Iterator[Item]:
    for vpc in scan.pages("ec2", "describe_vpcs", "Vpcs"):
        yield from present(scan.item("VPC", vpc["VpcId"], "", vpc.get("Tags"), note=vpc["CidrBlock"]))


def _remove_vpc(scan: RegionScan, item: Item) -> None:
    scan.client("ec2").delete_vpc(VpcId=item.identifier)


KINDS = (
    Kind("NAT gateway", _nat_gateways, _remove_nat_gateway, arns=("ec2:natgateway",)),
    Kind("Elastic IP", _addresses, _remove_address, arns=("ec2:elastic-ip",)),
    Kind("VPC endpoint", _endpoints, _remove_endpoint, arns=("ec2:vpc-endpoint",)),
    Kind("network interface", _interfaces, _remove_interface, arns=("ec2:network-interface",)),
    Kind(
        "security group", _security_groups, _remove_security_group,
        arns=("ec2:security-group", "ec2:security-group-rule"),
    ),
    Kind("subnet", _subnets, _remove_subnet, arns=("ec2:subnet",)),
    Kind("route table", _route_tables, _remove_route_table, arns=("ec2:route-table",)),
    Kind("internet gateway", _internet_gateways, _remove_internet_gateway, arns=("ec2:internet-gateway",)),
    Kind("flow log", _flow_logs, _remove_flow_log, arns=("ec2:vpc-flow-log",)),
    Kind("VPC", _vpcs, _remove_vpc, arns=("ec2:vpc",)),
)  # fmt: skip
