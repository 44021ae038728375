"""The EFS file system that stores weights and compile caches between engine starts, shared with the fetch task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.adopted_weights import OWNER_ID, AdoptedWeights, Existing
from infra.aws.context import Context
from infra.aws.iam import Statement, allow, document
from infra.aws.security_groups import NFS_PORT
from infra.settings import S3Address, WeightsThroughput

ACTIONS = ("elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite")


def read_folder(
    address: S3Address, partition: str, kms_key_arn: pulumi.Input[str] = "", region: pulumi.Input[str] = ""
) -> list[Statement]:
    """Permissions to list and read one folder of a bucket, and to use the stack's key for objects that it encrypts."""
    bucket = f"arn:{partition}:s3:::{address.bucket}"
    prefixes = {"StringLike": {"s3:prefix": [f"{address.prefix}/*"]}} if address.prefix else None
    found = [
        allow("ListModel", ["s3:ListBucket"], [bucket], prefixes),
        allow("ReadModel", ["s3:GetObject"], [f"{bucket}/{address.key('*')}"]),
    ]
    if kms_key_arn:
        through_s3 = {"StringEquals": {"kms:ViaService": pulumi.Output.concat("s3.", region, ".amazonaws.com")}}
        found.append(allow("DecryptModel", ["kms:Decrypt"], [kms_key_arn], through_s3))
    return found


@dataclass(frozen=True)
class WeightsArgs:
    """The inputs of the file system.

    Attributes:
        context: account, region, names and tags.
        subnets: subnets for mount targets, by the name of their zone; EFS allows one mount target per zone.
        security_group_id: security group of the mount targets.
        client_security_group_id: security group of the tasks that mount it.
        readers: the roles of the engine's tasks and of the fetch task, the only ones that may mount it.
        throughput: elastic is faster and bills each GB read; with bursting, reads are free.
        kms_key_arn: key that encrypts it; empty: the AWS managed key.
        retain: whether it is retained with its access points when the stack is destroyed.
        adopted: an existing file system, which is used without changes; None: one is created.
        bucket: the folder in S3 that the model is read from; None: it is not in S3.
    """

    context: Context
    subnets: Mapping[str, pulumi.Input[str]]
    security_group_id: pulumi.Input[str]
    client_security_group_id: pulumi.Input[str]
    readers: Mapping[str, aws.iam.Role]
    throughput: WeightsThroughput
    kms_key_arn: pulumi.Input[str]
    retain: bool
    adopted: AdoptedWeights | None = None
    bucket: S3Address | None = None


class Weights(pulumi.ComponentResource):
    """An encrypted file system with two access points.

    Attributes:
        file_system: the file system.
        models: access point of the model files.
        compiled: access point of vLLM's compile cache.
        ready: resources that must exist before a task can mount it.
    """

    def __init__(self, name: str, args: WeightsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:Weights", name, None, opts)
        self._name, self._args = name, args
        child = pulumi.ResourceOptions(parent=self)
        self.file_system = args.adopted.file_system if args.adopted else self._make()
        self.models = self._access_point("models")
        self.compiled = self._access_point("compiled")
        covered = args.adopted.covered_subnet_ids if args.adopted else frozenset()
        targets: list[pulumi.Resource] = [
            aws.efs.MountTarget(
                f"{name}-{zone}",
                file_system_id=self.file_system.id,
                subnet_id=subnet_id,
                security_groups=[args.security_group_id],
                # Their names were numbers in earlier versions. A zone's target must be deleted before it is created in another subnet.
                opts=pulumi.ResourceOptions(
                    parent=self, delete_before_replace=True, aliases=[pulumi.Alias(name=f"{name}-{i}")]
                ),
            )
            for i, (zone, subnet_id) in enumerate(args.subnets.items())
            if subnet_id not in covered
        ]
        for group_id in args.adopted.security_group_ids if args.adopted else ():
            targets += self._reach(group_id)
        condition: dict[str, dict[str, Any]] = {
            "Bool": {"aws:SecureTransport": "true"},
            "StringEquals": {"elasticfilesystem:AccessPointArn": [self.models.arn, self.compiled.arn]},
        }
        mount = allow("MountThroughAccessPoints", ACTIONS, [self.file_system.arn], condition)
        grants = [
            aws.iam.RolePolicy(f"{name}-mount-{who}", role=role.id, policy=document([mount]), opts=child)
            for who, role in args.readers.items()
        ]
        if args.bucket:
            reads = document(read_folder(args.bucket, args.context.partition, args.kms_key_arn, args.context.region))
            grants += [
                aws.iam.RolePolicy(f"{name}-bucket-{who}", role=role.id, policy=reads, opts=child)
                for who, role in args.readers.items()
            ]
        policy = aws.efs.FileSystemPolicy(
            name,
            file_system_id=self.file_system.id,
            # With a file system policy, EFS denies every principal that the policy does not name, including anonymous ones.
            policy=document(
                [
                    {**mount, "Principal": {"AWS": [role.arn for role in args.readers.values()]}},
                    {
                        "Sid": "NoPlainText",
                        "Effect": "Deny",
                        "Principal": {"AWS": "*"},
                        "Action": "*",
                        "Resource": self.file_system.arn,
                        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                    },
                ]
            ),
            opts=child,
        )
        self.ready: list[pulumi.Resource] = [*targets, *grants, policy]
        self.register_outputs({"fileSystemId": self.file_system.id})

    def volume(self, name: str, access_point: aws.efs.AccessPoint | Existing) -> aws.ecs.TaskDefinitionVolumeArgs:
        """One access point as a task's volume, with TLS and IAM authorization as the task role."""
        return aws.ecs.TaskDefinitionVolumeArgs(
            name=name,
            efs_volume_configuration=aws.ecs.TaskDefinitionVolumeEfsVolumeConfigurationArgs(
                file_system_id=self.file_system.id,
                transit_encryption="ENABLED",
                authorization_config=aws.ecs.TaskDefinitionVolumeEfsVolumeConfigurationAuthorizationConfigArgs(
                    access_point_id=access_point.id, iam="ENABLED"
                ),
            ),
        )

    def _make(self) -> aws.efs.FileSystem:
        args = self._args
        return aws.efs.FileSystem(
            self._name,
            encrypted=True,
            kms_key_id=args.kms_key_arn or None,
            throughput_mode=args.throughput.value,
            lifecycle_policies=[
                # Weights not read for a month move to a storage class at a twentieth of the price; the next read moves them back.
                aws.efs.FileSystemLifecyclePolicyArgs(transition_to_ia="AFTER_30_DAYS"),
                aws.efs.FileSystemLifecyclePolicyArgs(transition_to_primary_storage_class="AFTER_1_ACCESS"),
            ],
            tags=args.context.tags("weights", self._name, retain=args.retain),
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=args.retain or None),
        )

    def _reach(self, group_id: str) -> list[pulumi.Resource]:
        """Allow tasks to connect to existing mount targets: an egress and an ingress rule, deleted with the stack."""
        args, child = self._args, pulumi.ResourceOptions(parent=self)
        tags = args.context.tags("weights", self._name)
        name = f"{self._name}-{group_id}"
        out = aws.vpc.SecurityGroupEgressRule(
            name,
            security_group_id=args.client_security_group_id,
            referenced_security_group_id=group_id,
            ip_protocol="tcp",
            from_port=NFS_PORT,
            to_port=NFS_PORT,
            tags=tags,
            opts=child,
        )
        back = aws.vpc.SecurityGroupIngressRule(
            name,
            security_group_id=group_id,
            referenced_security_group_id=args.client_security_group_id,
            ip_protocol="tcp",
            from_port=NFS_PORT,
            to_port=NFS_PORT,
            tags=tags,
            opts=child,
        )
        return [out, back]

    def _access_point(self, folder: str) -> aws.efs.AccessPoint | Existing:
        """The access point that a destroyed stack retained, or a new one for the same folder."""
        adopted, retain = self._args.adopted, self._args.retain and self._args.adopted is None
        if adopted and folder in adopted.access_points:
            return adopted.access_points[folder]
        name = f"{self._name}-{folder}"
        return aws.efs.AccessPoint(
            name,
            file_system_id=self.file_system.id,
            posix_user=aws.efs.AccessPointPosixUserArgs(uid=OWNER_ID, gid=OWNER_ID),
            root_directory=aws.efs.AccessPointRootDirectoryArgs(
                path=f"/{folder}",
                creation_info=aws.efs.AccessPointRootDirectoryCreationInfoArgs(
                    owner_uid=OWNER_ID, owner_gid=OWNER_ID, permissions="0750"
                ),
            ),
            tags=self._args.context.tags("weights", name, retain=retain),
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=retain or None),
        )
