"""IAM, Secrets Manager and KMS."""

from collections.abc import Iterator

from smoke_tests.teardown.items import Item
from smoke_tests.teardown.prices import hourly
from smoke_tests.teardown.region_scan import Kind, RegionScan, is_denied, present


def _profiles(scan: RegionScan) -> Iterator[Item]:
    iam = scan.client("iam")
    for profile in scan.pages("iam", "list_instance_profiles", "InstanceProfiles"):
        name = profile["InstanceProfileName"]
        if name.startswith(scan.identity.prefix):
            tags = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"].get("Tags")
            yield from present(scan.item("instance profile", name, name, tags, everywhere=True))


def _remove_profile(scan: RegionScan, item: Item) -> None:
    iam = scan.client("iam")
    for role in iam.get_instance_profile(InstanceProfileName=item.identifier)["InstanceProfile"]["Roles"]:
        iam.remove_role_from_instance_profile(InstanceProfileName=item.identifier, RoleName=role["RoleName"])
    iam.delete_instance_profile(InstanceProfileName=item.identifier)


def _roles(scan: RegionScan) -> Iterator[Item]:
    for role in scan.pages("iam", "list_roles", "Roles"):
        name = role["RoleName"]
        if name.startswith(scan.identity.prefix):
            tags = scan.client("iam").list_role_tags(RoleName=name)["Tags"]
            yield from present(scan.item("IAM role", name, name, tags, everywhere=True))


def _remove_role(scan: RegionScan, item: Item) -> None:
    iam, name = scan.client("iam"), item.identifier
    for policy in list(scan.pages("iam", "list_role_policies", "PolicyNames", RoleName=name)):
        iam.delete_role_policy(RoleName=name, PolicyName=policy)
    for attached in list(scan.pages("iam", "list_attached_role_policies", "AttachedPolicies", RoleName=name)):
        iam.detach_role_policy(RoleName=name, PolicyArn=attached["PolicyArn"])
    for profile in list(scan.pages("iam", "list_instance_profiles_for_role", "InstanceProfiles", RoleName=name)):
        iam.remove_role_from_instance_profile(InstanceProfileName=profile["InstanceProfileName"], RoleName=name)
    iam.delete_role(RoleName=name)


def _policies(scan: RegionScan) -> Iterator[Item]:
    """Managed policies with the stack's tags. The program itself creates only inline policies of roles."""
    iam = scan.client("iam")
    for policy in scan.pages("iam", "list_policies", "Policies", Scope="Local"):
        if policy["PolicyName"].startswith(scan.identity.prefix):
            tags = iam.list_policy_tags(PolicyArn=policy["Arn"])["Tags"]
            yield from present(scan.item("IAM policy", policy["Arn"], policy["PolicyName"], tags, everywhere=True))


def _remove_policy(scan: RegionScan, item: Item) -> None:
    iam, arn = scan.client("iam"), item.identifier
    for role in list(scan.pages("iam", "list_entities_for_policy", "PolicyRoles", PolicyArn=arn)):
        iam.detach_role_policy(RoleName=role["RoleName"], PolicyArn=arn)
    for version in list(scan.pages("iam", "list_policy_versions", "Versions", PolicyArn=arn)):
        if not version["IsDefaultVersion"]:
            iam.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])
    iam.delete_policy(PolicyArn=arn)


def _secrets(scan: RegionScan) -> Iterator[Item]:
    for secret in scan.pages("secretsmanager", "list_secrets", "SecretList", IncludePlannedDeletion=True):
        deleted = secret.get("DeletedDate")
        note = f"in deletion since {deleted:%Y-%m-%d}; can be restored until AWS takes it away" if deleted else ""
        yield from present(
            scan.item(
                "secret", secret["ARN"], secret["Name"], secret.get("Tags"),
                usd_per_hour=hourly("secret_month"), going=deleted is not None, note=note,
            )
        )  # fmt: skip


def _remove_secret(scan: RegionScan, item: Item) -> None:
    scan.client("secretsmanager").delete_secret(SecretId=item.identifier, ForceDeleteWithoutRecovery=True)


DELETED_KEY_STATES = ("PendingDeletion", "PendingReplicaDeletion")  # a key with replicas has no date of deletion yet


def _keys(scan: RegionScan) -> Iterator[Item]:
    kms, tagged = scan.client("kms"), set(scan.arns("kms", "key"))
    for key in scan.pages("kms", "list_keys", "Keys"):
        arn, identifier = key["KeyArn"], key["KeyId"]
        try:
            tags = list(scan.pages("kms", "list_resource_tags", "Tags", KeyId=key["KeyId"]))
        except Exception as error:
            if is_denied(error) and arn not in tagged:
                continue  # the key's own policy denies access; the search by tag would have found it
            raise
        item = scan.item("KMS key", identifier, "", tags, usd_per_hour=hourly("kms_key_month"))
        if item is None:
            continue
        found = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]
        ends = found.get("DeletionDate")
        note = f"is deleted on {ends:%Y-%m-%d}; can be kept until then" if ends else found["KeyState"]
        yield from present(
            scan.item(
                "KMS key",
                identifier,
                "",
                tags,
                usd_per_hour=item.usd_per_hour,
                going=found["KeyState"] in DELETED_KEY_STATES,
                note=note,
            )
        )


def _remove_key(scan: RegionScan, item: Item) -> None:
    scan.client("kms").schedule_key_deletion(KeyId=item.identifier, PendingWindowInDays=7)


KINDS = (
    Kind("instance profile", _profiles, _remove_profile, everywhere=True, arns=("iam:instance-profile",)),
    Kind("IAM role", _roles, _remove_role, everywhere=True, arns=("iam:role",)),
    Kind("IAM policy", _policies, _remove_policy, everywhere=True, arns=("iam:policy",)),
    Kind("secret", _secrets, _remove_secret, arns=("secretsmanager",)),
    Kind("KMS key", _keys, _remove_key, arns=("kms:key",)),
)
