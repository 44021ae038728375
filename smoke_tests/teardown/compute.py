"""EC2: Auto Scaling groups, instances, launch templates, volumes, snapshots, images."""

from collections.abc import Iterator

from smoke_tests.teardown.identity import tags_of
from smoke_tests.teardown.items import Item
from smoke_tests.teardown.look import Kind, Look, present
from smoke_tests.teardown.prices import hourly, instance_hourly, volume_hourly

GOING_STATES = ("shutting-down", "terminated")


def _groups(look: Look) -> Iterator[Item]:
    for group in look.pages("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups"):
        name = group["AutoScalingGroupName"]
        note = f"asks for {group['DesiredCapacity']} instances" if group["DesiredCapacity"] else ""
        going = group.get("Status") == "Delete in progress" and not group["Instances"]
        yield from present(
            look.item("Auto Scaling group", name, name, group.get("Tags"), usd_per_hour=0.0, going=going, note=note)
        )


def _remove_group(look: Look, item: Item) -> None:
    look.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=item.identifier, ForceDelete=True)


def _instances(look: Look) -> Iterator[Item]:
    for reservation in look.pages("ec2", "describe_instances", "Reservations"):
        for instance in reservation["Instances"]:
            state, kind = instance["State"]["Name"], instance["InstanceType"]
            if state == "terminated":
                continue
            price = instance_hourly(kind) if state in ("pending", "running") else 0.0
            spot = ", spot: at most" if instance.get("InstanceLifecycle") == "spot" else ""
            yield from present(
                look.item(
                    "EC2 instance", instance["InstanceId"], "", instance.get("Tags"),
                    usd_per_hour=price, going=state in GOING_STATES, note=f"{kind}, {state}{spot}",
                )
            )  # fmt: skip


def _remove_instance(look: Look, item: Item) -> None:
    ec2 = look.client("ec2")
    ec2.modify_instance_attribute(InstanceId=item.identifier, DisableApiTermination={"Value": False})
    ec2.terminate_instances(InstanceIds=[item.identifier])


def _templates(look: Look) -> Iterator[Item]:
    for template in look.pages("ec2", "describe_launch_templates", "LaunchTemplates"):
        identifier, name = template["LaunchTemplateId"], template["LaunchTemplateName"]
        yield from present(look.item("launch template", identifier, name, template.get("Tags")))


def _remove_template(look: Look, item: Item) -> None:
    look.client("ec2").delete_launch_template(LaunchTemplateId=item.identifier)


def _volumes(look: Look) -> Iterator[Item]:
    ours = {item.identifier for item in _instances(look)}
    for volume in look.pages("ec2", "describe_volumes", "Volumes"):
        # A disk that would outlive its instance was attached by somebody: it is only the stack's if its tags say so.
        own = [one["InstanceId"] for one in volume["Attachments"] if one.get("DeleteOnTermination")]
        instance = next((one for one in own if one in ours), "")
        yield from present(
            look.item(
                "EBS volume", volume["VolumeId"], "", volume.get("Tags"),
                usd_per_hour=volume_hourly(volume), part_of=instance, going=volume["State"] in ("deleting", "deleted"),
                note=f"{volume['Size']} GiB {volume['VolumeType']}, {volume['State']}",
            )
        )  # fmt: skip


def _remove_volume(look: Look, item: Item) -> None:
    look.client("ec2").delete_volume(VolumeId=item.identifier)


def _snapshots(look: Look) -> Iterator[Item]:
    volumes = {item.identifier for item in _volumes(look)}
    for snapshot in look.pages("ec2", "describe_snapshots", "Snapshots", OwnerIds=[look.account_id]):
        volume = snapshot.get("VolumeId", "")
        yield from present(
            look.item(
                "EBS snapshot", snapshot["SnapshotId"], "", snapshot.get("Tags"),
                usd_per_hour=hourly("snapshot_gb_month", snapshot["VolumeSize"]),
                part_of=volume if volume in volumes else "", note=f"of {snapshot['VolumeSize']} GiB: at most",
            )
        )  # fmt: skip


def _remove_snapshot(look: Look, item: Item) -> None:
    look.client("ec2").delete_snapshot(SnapshotId=item.identifier)


def _images(look: Look) -> Iterator[Item]:
    for image in look.pages("ec2", "describe_images", "Images", Owners=[look.account_id]):
        if tags_of(image.get("Tags")):
            yield from present(look.item("machine image", image["ImageId"], "", image["Tags"]))


def _remove_image(look: Look, item: Item) -> None:
    look.client("ec2").deregister_image(ImageId=item.identifier)


KINDS = (
    Kind("Auto Scaling group", _groups, _remove_group, arns=("autoscaling",)),
    Kind("EC2 instance", _instances, _remove_instance, arns=("ec2:instance",)),
    Kind("launch template", _templates, _remove_template, arns=("ec2:launch-template",)),
    Kind("EBS volume", _volumes, _remove_volume, arns=("ec2:volume",)),
    Kind("EBS snapshot", _snapshots, _remove_snapshot, arns=("ec2:snapshot",)),
    Kind("machine image", _images, _remove_image, arns=("ec2:image",)),
)
