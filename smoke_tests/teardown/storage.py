"""EFS and S3."""

from collections.abc import Iterator
from typing import Any

from smoke_tests.teardown.identity import tags_of
from smoke_tests.teardown.items import Item
from smoke_tests.teardown.prices import GB, GIB, hourly
from smoke_tests.teardown.region_scan import Kind, RegionScan, is_denied, is_gone, present

GOING_STATES = ("deleting", "deleted")
MOST_OBJECTS_COUNTED = 10_000


def _file_systems(scan: RegionScan) -> Iterator[Item]:
    for found in scan.pages("efs", "describe_file_systems", "FileSystems"):
        size = found["SizeInBytes"]
        rarely_read = int(size.get("ValueInIA") or 0)
        price = hourly("efs_gb_month", (size["Value"] - rarely_read) / GIB) + hourly(
            "efs_ia_gb_month", rarely_read / GIB
        )
        yield from present(
            scan.item(
                "EFS file system", found["FileSystemId"], "", found.get("Tags"), usd_per_hour=price,
                going=found["LifeCycleState"] in GOING_STATES, note=f"{size['Value'] / GIB:.1f} GiB",
            )
        )  # fmt: skip


def _remove_file_system(scan: RegionScan, item: Item) -> None:
    scan.client("efs").delete_file_system(FileSystemId=item.identifier)


def _access_points(scan: RegionScan) -> Iterator[Item]:
    ours = {item.identifier for item in _file_systems(scan)}
    for point in scan.pages("efs", "describe_access_points", "AccessPoints"):
        system = point["FileSystemId"]
        yield from present(
            scan.item(
                "EFS access point", point["AccessPointId"], "", point.get("Tags"),
                part_of=system if system in ours else "", going=point["LifeCycleState"] in GOING_STATES,
            )
        )  # fmt: skip


def _remove_access_point(scan: RegionScan, item: Item) -> None:
    scan.client("efs").delete_access_point(AccessPointId=item.identifier)


def _mount_targets(scan: RegionScan) -> Iterator[Item]:
    for system in _file_systems(scan):
        for target in scan.pages("efs", "describe_mount_targets", "MountTargets", FileSystemId=system.identifier):
            yield from present(
                scan.item(
                    "EFS mount target", target["MountTargetId"], part_of=system.identifier,
                    going=target["LifeCycleState"] in GOING_STATES, note=target["SubnetId"],
                )
            )  # fmt: skip


def _remove_mount_target(scan: RegionScan, item: Item) -> None:
    scan.client("efs").delete_mount_target(MountTargetId=item.identifier)


def _bucket_tags(s3: Any, name: str) -> dict[str, str] | None:
    """Tags of a bucket; None if access is denied, in which case the bucket is ignored."""
    try:
        return tags_of(s3.get_bucket_tagging(Bucket=name)["TagSet"])
    except Exception as error:
        if is_gone(error):
            return {}
        if is_denied(error):
            return None
        raise


def _buckets(scan: RegionScan) -> Iterator[Item]:
    s3, tagged = scan.client("s3"), {arn.rpartition(":")[2] for arn in scan.arns("s3")}
    for bucket in scan.pages("s3", "list_buckets", "Buckets"):
        name = bucket["Name"]
        if name not in tagged and not name.startswith(f"{scan.identity.prefix}-"):
            continue
        tags = _bucket_tags(s3, name)
        if tags is None or not scan.item("S3 bucket", name, name, tags):
            continue
        size = count = 0
        for version in scan.pages("s3", "list_object_versions", "Versions", Bucket=name):
            size, count = size + version["Size"], count + 1
            if count == MOST_OBJECTS_COUNTED:
                break
        more = "at least " if count == MOST_OBJECTS_COUNTED else ""
        yield from present(
            scan.item(
                "S3 bucket", name, name, tags, usd_per_hour=hourly("s3_gb_month", size / GB), everywhere=True,
                note=f"{more}{count} objects, {size / GB:.1f} GB",
            )
        )  # fmt: skip


def _remove_bucket(scan: RegionScan, item: Item) -> None:
    s3 = scan.client("s3")
    for key in ("Versions", "DeleteMarkers"):
        objects = [
            {"Key": one["Key"], "VersionId": one["VersionId"]}
            for one in scan.pages("s3", "list_object_versions", key, Bucket=item.identifier)
        ]
        for start in range(0, len(objects), 1000):
            s3.delete_objects(Bucket=item.identifier, Delete={"Objects": objects[start : start + 1000], "Quiet": True})
    s3.delete_bucket(Bucket=item.identifier)


KINDS = (
    Kind("EFS mount target", _mount_targets, _remove_mount_target),
    Kind("EFS access point", _access_points, _remove_access_point, arns=("elasticfilesystem:access-point",)),
    Kind("EFS file system", _file_systems, _remove_file_system, arns=("elasticfilesystem:file-system",)),
    Kind("S3 bucket", _buckets, _remove_bucket, everywhere=True, arns=("s3",)),
)
