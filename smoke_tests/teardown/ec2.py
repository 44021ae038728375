"""EC2: Auto Scaling groups, instances, launch templates, volumes, snapshots, images."""

from collections.abc import Iterator

from smoke_tests.teardown.identity import tags_of
from smoke_tests.teardown.items import Item
from smoke_tests.teardown.prices import hourly, instance_hourly, volume_hourly
from smoke_tests.teardown.region_scan import Kind, RegionScan, present

GOING_STATES = ("shutting-down", "terminated")


def _groups(scan: RegionScan) -> Iterator[Item]:
    for group in scan.pages("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups"):
        name = group["AutoScalingGroupName"]
        note = f"asks for {group['DesiredCapacity']} instances" if group["DesiredCapacity"] else ""
        going = group.get("Status") == "Delete in progress" and not group["Instances"]
        yield from present(
            scan.item("Auto Scaling group", name, name, group.get("Tags"), usd_per_hour=0.0, going=going, note=note)
        )


def _remove_group(scan: RegionScan, item: Item) -> None:
    scan.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=item.identifier, ForceDelete=True)


def _instances(scan: RegionScan) -> Iterator[Item]:
    for reservation in scan.pages("ec2", "describe_instances", "Reservations"):
        for instance in reservation["Instances"]:
            state, kind = instance["State"]["Name"], instance["InstanceType"]
            if state == "terminated":
                continue
            price = instance_hourly(kind) if state in ("pending", "running") else 0.0
            spot = ", spot: at most" if instance.get("InstanceLifecycle") == "spot" else ""
            yield from present(
                scan.item(
                    "EC2 instance", instance["InstanceId"], "", instance.get("Tags"),
                    usd_per_hour=price, going=state in GOING_STATES, note=f"{kind}, {state}{spot}",
                )
            )  # fmt: skip


def _remove_instance(scan: RegionScan, item: Item) -> None:
    ec2 = scan.client("ec2")
    ec2.modify_instance_attribute(InstanceId=item.identifier, DisableApiTermination={"Value": False})
    ec2.terminate_instances(InstanceIds=[item.identifier])


def _templates(scan: RegionScan) -> Iterator[Item]:
    for template in scan.pages("ec2", "describe_launch_templates", "LaunchTemplates"):
        identifier, name = template["LaunchTemplateId"], template["LaunchTemplateName"]
        yield from present(scan.item("launch template", identifier, name, template.get("Tags")))


def _remove_template(scan: RegionScan, item: Item) -> None:
    scan.client("ec2").delete_launch_template(LaunchTemplateId=item.identifier)


def _volumes(scan: RegionScan) -> Iterator[Item]:
    ours = {item.identifier for item in _instances(scan)}
    for volume in scan.pages("ec2", "describe_volumes", "Volumes"):
        # A disk that outlives its instance was attached by hand: it belongs to the stack only if its tags match.
        own = [one["InstanceId"] for one in volume["Attachments"] if one.get("DeleteOnTermination")]
        instance = next((one for one in own if one in ours), "")
        yield from present(
            scan.item(
                "EBS volume", volume["VolumeId"], "", volume.get("Tags"),
                usd_per_hour=volume_hourly(volume), part_of=instance, going=volume["State"] in ("deleting", "deleted"),
                note=f"{volume['Size']} GiB {volume['VolumeType']}, {volume['State']}",
            )
        )  # fmt: skip


def _remove_volume(scan: RegionScan, item: Item) -> None:
    scan.client("ec2").delete_volume(VolumeId=item.identifier)


def _snapshots(scan: RegionScan) -> Iterator[Item]:
    volumes = {item.identifier for item in _volumes(scan)}
    for snapshot in scan.pages("ec2", "describe_snapshots", "Snapshots", OwnerIds=[scan.account_id]):
        volume = snapshot.get("VolumeId", "")
        yield from present(
            scan.item(
                "EBS snapshot", snapshot["SnapshotId"], "", snapshot.get("Tags"),
                usd_per_hour=hourly("snapshot_gb_month", snapshot["VolumeSize"]),
                part_of=volume if volume in volumes else "", note=f"of {snapshot['VolumeSize']} GiB: at most",
            )
        )  # fmt: skip


def _remove_snapshot(scan: RegionScan, item: Item) -> None:
    scan.client("ec2").delete_snapshot(SnapshotId=item.identifier)


def _images(scan: RegionScan) -> Iterator[Item]:
    for image in scan.pages("ec2", "describe_images", "Images", Owners=[scan.account_id]):
        if tags_of(image.get("Tags")):
            yield from present(scan.item("machine image", image["ImageId"], "", image["Tags"]))


def _remove_image(scan: RegionScan, item: Item) -> None:
    scan.client("ec2").deregister_image(ImageId=item.identifier)


KINDS = (
    Kind("Auto Scaling group", _groups, _remove_group, arns=("autoscaling",)),
    Kind("EC2 instance", _instances, _remove_instance, arns=("ec2:instance",)),
    Kind("launch template", _templates, _remove_template, arns=("ec2:launch-template",)),
    Kind("EBS volume", _volumes, _remove_volume, arns=("ec2:volume",)),
    Kind("EBS snapshot", _snapshots, _remove_snapshot, arns=("ec2:snapshot",)),
    Kind("machine image", _images, _remove_image, arns=("ec2:image",)),
)
