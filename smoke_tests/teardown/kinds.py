"""Every kind of resource that a stack creates, in deletion order."""

from collections.abc import Iterator
from dataclasses import replace

from smoke_tests.teardown import ec2, ecs, iam, load_balancing, monitoring, storage, vpc
from smoke_tests.teardown.confirm import Existence, confirm
from smoke_tests.teardown.identity import tags_of
from smoke_tests.teardown.items import Item, State
from smoke_tests.teardown.region_scan import Kind, RegionScan, matches, present

# First anything that would start other resources, then hourly costs, then resources that others depend on.
ORDER = (
    "schedule group", "Lambda function", "Auto Scaling group", "EC2 instance", "scalable target", "ECS service",
    "ECS task", "DNS record", "load balancer", "target group", "web ACL", "certificate", "NAT gateway",
    "EFS mount target", "EFS access point", "EFS file system", "VPC endpoint", "ECS cluster", "capacity provider",
    "task definition", "launch template", "EBS volume", "machine image", "EBS snapshot", "Elastic IP",
    "Cloud Map namespace", "hosted zone", "network interface", "security group", "flow log", "subnet", "route table",
    "internet gateway", "VPC", "pull-through cache", "ECR repository", "budget", "alarm", "dashboard", "SNS topic",
    "log group", "S3 bucket", "secret", "KMS key", "instance profile", "IAM role", "IAM policy", "other",
)  # fmt: skip


def search_by_tag(scan: RegionScan) -> None:
    """Fill `scan.tagged` with the resources that have exactly the stack's two tags."""
    wanted = {"Project": scan.identity.project, "Stack": scan.identity.stack}
    filters = [{"Key": key, "Values": [value]} for key, value in wanted.items()]
    for found in scan.pages("resourcegroupstaggingapi", "get_resources", "ResourceTagMappingList", TagFilters=filters):
        tags = tags_of(found.get("Tags"))
        if all(tags.get(key) == value for key, value in wanted.items()):
            scan.tagged[found["ResourceARN"]] = tags


def _others(scan: RegionScan) -> Iterator[Item]:
    """Tagged resources of kinds that are not listed here: added to the stack by hand, or new.

    Each is confirmed with its own service first, because the tagging API also lists resources that were deleted.
    """
    known = [form for kind in KINDS for form in kind.arns]
    for arn, tags in sorted(scan.tagged.items()):
        if any(matches(arn, form) for form in known):
            continue
        existence, detail = confirm(scan, arn)
        if existence is Existence.GONE:
            continue
        note = "; ".join(filter(None, ["price not known", detail]))
        for item in present(scan.item("other", arn, arn, tags, usd_per_hour=None, note=note)):
            yield replace(item, state=State.UNCONFIRMED) if existence is Existence.UNCONFIRMED else item


def _cannot(_scan: RegionScan, item: Item) -> None:
    raise RuntimeError(f"delete it by hand: {item.identifier}")


_ALL = {
    kind.title: kind
    for kind in (
        *ec2.KINDS, *vpc.KINDS, *load_balancing.KINDS, *ecs.KINDS, *storage.KINDS, *monitoring.KINDS, *iam.KINDS,
        Kind("other", _others, _cannot),
    )
}  # fmt: skip
KINDS: tuple[Kind, ...] = tuple(_ALL[title] for title in ORDER)
