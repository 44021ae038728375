"""A bucket for the load balancer's access logs."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context
from infra.aws.iam import document

# Load balancers write as this service principal; they support SSE-S3 only.
WRITER = "logdelivery.elasticloadbalancing.amazonaws.com"


@dataclass(frozen=True)
class AccessLogsArgs:
    """The retention of the logs, and whether the bucket is retained when the stack is destroyed."""

    context: Context
    retention_days: int
    retain: bool


class AccessLogs(pulumi.ComponentResource):
    """A private bucket that one account's load balancers may write to.

    Attributes:
        bucket: the bucket.
        ready: resources that must exist before a load balancer can write to the bucket.
    """

    def __init__(self, name: str, args: AccessLogsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:AccessLogs", name, None, opts)
        context, child = args.context, pulumi.ResourceOptions(parent=self)
        self.bucket = aws.s3.Bucket(
            name,
            force_destroy=not args.retain,
            tags=context.tags("load-balancer", name, retain=args.retain),
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=args.retain or None),
        )
        aws.s3.BucketOwnershipControls(
            name,
            bucket=self.bucket.id,
            rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
            opts=child,
        )
        closed = aws.s3.BucketPublicAccessBlock(
            name,
            bucket=self.bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            name,
            bucket=self.bucket.id,
            rules=[
                aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                    apply_server_side_encryption_by_default=aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                        sse_algorithm="AES256"
                    )
                )
            ],
            opts=child,
        )
        aws.s3.BucketLifecycleConfiguration(
            name,
            bucket=self.bucket.id,
            rules=[
                aws.s3.BucketLifecycleConfigurationRuleArgs(
                    id="expire",
                    status="Enabled",
                    filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
                    expiration=aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(days=args.retention_days),
                    abort_incomplete_multipart_upload=aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
                        days_after_initiation=1
                    ),
                )
            ],
            opts=child,
        )
        balancers = f"arn:{context.partition}:elasticloadbalancing:{context.region}:{context.account_id}:loadbalancer/*"
        policy = aws.s3.BucketPolicy(
            name,
            bucket=self.bucket.id,
            policy=document(
                [
                    {
                        "Sid": "WriteLogs",
                        "Effect": "Allow",
                        "Principal": {"Service": WRITER},
                        "Action": ["s3:PutObject"],
                        "Resource": [pulumi.Output.concat(self.bucket.arn, f"/AWSLogs/{context.account_id}/*")],
                        "Condition": {"ArnLike": {"aws:SourceArn": balancers}},
                    },
                    {
                        "Sid": "NoPlainText",
                        "Effect": "Deny",
                        "Principal": {"AWS": "*"},
                        "Action": ["s3:*"],
                        "Resource": [self.bucket.arn, pulumi.Output.concat(self.bucket.arn, "/*")],
                        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                    },
                ]
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[closed]),
        )
        self.ready: list[pulumi.Resource] = [policy]
        self.register_outputs({"bucket": self.bucket.id})
