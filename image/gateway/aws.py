"""boto3 helpers. Import this module only where it is used: boto3 takes 25 MiB, which a gateway outside AWS does not need."""

from __future__ import annotations

import os

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ERRORS = (BotoCoreError, ClientError)

# The callers retry; a thread blocked for a minute on a dead endpoint does not help.
CONFIG = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 2})


def session() -> boto3.session.Session:
    """A session with the task's role, in AWS_REGION, which boto3 does not read by default.

    Create one for each caller: boto3's default session is not thread-safe.
    """
    return boto3.session.Session(region_name=os.environ.get("AWS_REGION"))


def describe(error: Exception) -> str:
    """The error for the log: AWS's code and message, which contain no credentials."""
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        return f"{details.get('Code', 'Unknown')}: {details.get('Message', '')}"
    return str(error)


def plain_launch_failure(message: str) -> str:
    """Why the Auto Scaling group could not start an instance, worded for clients. `message`: of a scaling activity."""
    for mark, reason in (
        ("InsufficientInstanceCapacity", "the cloud provider has no such instance available"),
        ("do not have sufficient", "the cloud provider has no such instance available"),
        ("no Spot capacity", "the cloud provider has no such instance available"),
        ("ReservationCapacityExceeded", "all reserved instances are in use"),
        ("VcpuLimitExceeded", "an account quota is exhausted"),
        ("vCPU capacity", "an account quota is exhausted"),
        ("LimitExceeded", "an account quota is exhausted"),
        ("Exceeded", "an account quota is exhausted"),
        ("UnauthorizedOperation", "the gateway is not permitted to start the engine"),
    ):
        if mark in message:
            return reason
    return "the cloud provider could not start an instance"


def plain_reason(error: Exception) -> str:
    """The error worded for clients, without names from the account."""
    code = error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""
    if "Throttl" in code or code in ("RequestLimitExceeded", "TooManyRequestsException"):
        return "the cloud provider is limiting requests"
    if "AccessDenied" in code or "Unauthorized" in code or "Token" in code:
        return "the gateway is not permitted to start the engine"
    if "Quota" in code or "LimitExceeded" in code:
        return "an account quota is exhausted"
    if "ScalingActivityInProgress" in code:
        return "another scaling operation is in progress"
    if "NotFound" in code or "NotActive" in code:
        return "the engine's service was not found"
    return "the cloud provider returned an unexpected response"
