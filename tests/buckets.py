"""A bucket of an emulated S3."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto import mock_aws

BUCKET = "acme-models"


@contextmanager
def filled_bucket(files: Mapping[str, bytes], prefix: str, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """boto3's client of an S3 whose bucket acme-models has these files below a prefix."""
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        patch.setenv(name, value)
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        for name, content in files.items():
            client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=content)
        yield client
