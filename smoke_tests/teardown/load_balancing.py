"""Load balancer, firewall, certificate and DNS."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from smoke_tests.teardown.items import Item, State
from smoke_tests.teardown.prices import hourly
from smoke_tests.teardown.region_scan import Kind, RegionScan, present

DELETION_PROTECTION = "deletion_protection.enabled"


def _tagged(scan: RegionScan, found: list[dict[str, Any]], arn: str) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Each load balancer or target group with its tags, read in batches of twenty."""
    for start in range(0, len(found), 20):
        some = {one[arn]: one for one in found[start : start + 20]}
        for described in scan.client("elbv2").describe_tags(ResourceArns=list(some))["TagDescriptions"]:
            yield some[described["ResourceArn"]], described["Tags"]


def _balancers(scan: RegionScan) -> Iterator[Item]:
    for balancer, tags in _tagged(
        scan, list(scan.pages("elbv2", "describe_load_balancers", "LoadBalancers")), "LoadBalancerArn"
    ):
        arn = balancer["LoadBalancerArn"]
        public = len(balancer["AvailabilityZones"]) if balancer.get("Scheme") == "internet-facing" else 0
        price = hourly("alb_hour") + hourly("public_ipv4_hour", public)
        name, note = balancer["LoadBalancerName"], balancer.get("Scheme", "")
        item = scan.item("load balancer", arn, name, tags, usd_per_hour=price, note=note)
        if item is None:
            continue
        attributes = scan.client("elbv2").describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
        protected = {"Key": DELETION_PROTECTION, "Value": "true"} in attributes
        yield replace(item, state=State.KEPT, note=f"{note}, deletion protection is on") if protected else item


def _remove_balancer(scan: RegionScan, item: Item) -> None:
    elb = scan.client("elbv2")
    if item.state is State.KEPT:
        off = {"Key": DELETION_PROTECTION, "Value": "false"}
        elb.modify_load_balancer_attributes(LoadBalancerArn=item.identifier, Attributes=[off])
    elb.delete_load_balancer(LoadBalancerArn=item.identifier)


def _target_groups(scan: RegionScan) -> Iterator[Item]:
    found = list(scan.pages("elbv2", "describe_target_groups", "TargetGroups"))
    for group, tags in _tagged(scan, found, "TargetGroupArn"):
        yield from present(scan.item("target group", group["TargetGroupArn"], group["TargetGroupName"], tags))


def _remove_target_group(scan: RegionScan, item: Item) -> None:
    scan.client("elbv2").delete_target_group(TargetGroupArn=item.identifier)


def _acls(scan: RegionScan) -> Iterator[Item]:
    waf = scan.client("wafv2")
    arguments: dict[str, str] = {"Scope": "REGIONAL"}
    while True:  # this listing has no paginator in boto3
        answer = waf.list_web_acls(**arguments)
        for acl in answer["WebACLs"]:
            tags = waf.list_tags_for_resource(ResourceARN=acl["ARN"])["TagInfoForResource"]["TagList"]
            item = scan.item(
                "web ACL", f"{acl['Name']}/{acl['Id']}", acl["Name"], tags, usd_per_hour=hourly("waf_acl_month")
            )
            if item is not None:
                rules = waf.get_web_acl(Name=acl["Name"], Scope="REGIONAL", Id=acl["Id"])["WebACL"].get("Rules") or []
                price = hourly("waf_acl_month") + hourly("waf_rule_month", len(rules))
                yield replace(item, usd_per_hour=price)
        if not answer.get("NextMarker") or not answer["WebACLs"]:
            return
        arguments["NextMarker"] = answer["NextMarker"]


def _remove_acl(scan: RegionScan, item: Item) -> None:
    waf = scan.client("wafv2")
    name, _, identifier = item.identifier.rpartition("/")
    lock = waf.get_web_acl(Name=name, Scope="REGIONAL", Id=identifier)["LockToken"]
    waf.delete_web_acl(Name=name, Scope="REGIONAL", Id=identifier, LockToken=lock)


def _certificates(scan: RegionScan) -> Iterator[Item]:
    acm = scan.client("acm")
    for certificate in scan.pages("acm", "list_certificates", "CertificateSummaryList"):
        arn = certificate["CertificateArn"]
        tags = acm.list_tags_for_certificate(CertificateArn=arn)["Tags"]
        yield from present(scan.item("certificate", arn, certificate["DomainName"], tags))


def _remove_certificate(scan: RegionScan, item: Item) -> None:
    scan.client("acm").delete_certificate(CertificateArn=item.identifier)


def _zones(scan: RegionScan) -> Iterator[Item]:
    price = hourly("hosted_zone_month")
    for zone in scan.pages("route53", "list_hosted_zones", "HostedZones"):
        if zone["Config"].get("PrivateZone"):
            note = "made by Cloud Map"
            yield from present(
                scan.item("hosted zone", zone["Id"], zone["Name"], usd_per_hour=price, everywhere=True, note=note)
            )


def _remove_zone(scan: RegionScan, item: Item) -> None:
    scan.client("route53").delete_hosted_zone(Id=item.identifier)


def _records(scan: RegionScan) -> Iterator[Item]:
    """Alias records that point to one of the stack's load balancers. Records have no tags."""
    for zone in scan.pages("route53", "list_hosted_zones", "HostedZones"):
        if zone["Config"].get("PrivateZone"):
            continue
        for record in scan.pages("route53", "list_resource_record_sets", "ResourceRecordSets", HostedZoneId=zone["Id"]):
            points_at = record.get("AliasTarget", {}).get("DNSName", "").rstrip(".")
            if points_at and scan.identity.named("DNS record", points_at):
                identifier = f"{zone['Id']} {record['Type']} {record['Name']}"
                item = scan.item("DNS record", identifier, points_at, everywhere=True, note=f"points at {points_at}")
                yield from present(item and replace(item, name=f"{record['Name'].rstrip('.')} {record['Type']}"))


def _remove_record(scan: RegionScan, item: Item) -> None:
    zone, kind, name = item.identifier.split(" ")
    listed = scan.pages("route53", "list_resource_record_sets", "ResourceRecordSets", HostedZoneId=zone)
    changes = [
        {"Action": "DELETE", "ResourceRecordSet": record}
        for record in listed
        if (record["Type"], record["Name"]) == (kind, name)
        and scan.identity.named("DNS record", record.get("AliasTarget", {}).get("DNSName", "").rstrip("."))
    ]
    if changes:
        scan.client("route53").change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})


KINDS = (
    Kind("DNS record", _records, _remove_record, everywhere=True),
    Kind(
        "load balancer", _balancers, _remove_balancer,
        arns=("elasticloadbalancing:loadbalancer", "elasticloadbalancing:listener", "elasticloadbalancing:listener-rule"),
    ),
    Kind("target group", _target_groups, _remove_target_group, arns=("elasticloadbalancing:targetgroup",)),
    Kind("web ACL", _acls, _remove_acl, arns=("wafv2",)),
    Kind("certificate", _certificates, _remove_certificate, arns=("acm",)),
    Kind("hosted zone", _zones, _remove_zone, everywhere=True, arns=("route53",)),
)  # fmt: skip
