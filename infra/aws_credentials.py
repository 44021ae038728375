"""Checks the AWS credentials of a deploy before the provider starts, and explains each failure in one line.

The provider's own messages span several lines, and if it fails to start, the program ends as well. Here, each error becomes
one line with the profile and the command to run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, NoCredentialsError

# A single attempt with a short timeout: waiting longer would not change the result.
CONFIG = Config(connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 1})
DEFAULT_PROFILE = "default"
# Error messages of SDKs and services, matched in this order: (pattern, what is wrong, what to run).
# {profile}, {region} and {found} (the pattern's first group) are filled in.
_FAILURES = (
    (
        r"missing region|must specify a region|NoRegionError|provide a region",
        "aws:region is not set",
        "pulumi config set aws:region us-east-1",
    ),
    (
        r"shared config profile|config profile \(.*\) could not be found|AWS profile \S+ was not found",
        "AWS profile {profile} does not exist on this machine",
        "aws configure sso --profile {profile}, or pulumi config set aws:profile NAME to use one that does",
    ),
    (
        r"AWS account ID not allowed: (\d+)",
        "AWS profile {profile} belongs to account {found}, which is not in aws:allowedAccountIds",
        "pulumi config set aws:profile NAME with a profile of the right account",
    ),
    (
        r"\bSSO\b|SSOProvider|oauth2 token|login session",
        "the sign-in of AWS profile {profile} has expired",
        "aws sso login --profile {profile}",
    ),
    (
        r"Signature not yet current|Signature expired|RequestTimeTooSkewed|clock",
        "AWS rejected the time of the requests: this machine's clock is wrong (AWS profile {profile})",
        "timedatectl set-ntp true",
    ),
    (
        r"ExpiredToken|RequestExpired|token.{0,40} (?:is|has) expired",
        "the credentials of AWS profile {profile} have expired",
        "aws sso login --profile {profile}, or renew the keys in its place",
    ),
    (
        r"InvalidClientTokenId|UnrecognizedClient|security token included in the request is invalid|InvalidAccessKeyId"
        r"|SignatureDoesNotMatch|IncompleteSignature|AuthFailure|credentials are invalid",
        "AWS rejected the credentials of AWS profile {profile} as invalid, or {region} is not enabled in their account",
        "aws sts get-caller-identity --profile {profile}, then aws configure --profile {profile}",
    ),
    (
        r"credential_process|process provider error",
        "the credential_process of AWS profile {profile} failed",
        "aws sts get-caller-identity --profile {profile}",
    ),
    (
        r"No valid credential sources|no EC2 IMDS role|Unable to locate credentials|NoCredentialProviders"
        r"|failed to refresh cached credentials|failed to retrieve credentials|static credentials are empty",
        "there are no AWS credentials for profile {profile}",
        "aws configure sso --profile {profile}, or pulumi config set aws:profile NAME to use another",
    ),
    (
        r"not authorized to perform: ([A-Za-z0-9-]+:\w+)",
        "AWS profile {profile} is not allowed to call {found}",
        "pulumi config set aws:profile NAME with a profile that may, or add {found} to its role",
    ),
    (
        r"no such host|dial tcp|Could not connect to the endpoint|connection refused|i/o timeout|Invalid AWS Region",
        "AWS could not be reached in {region} (AWS profile {profile})",
        "aws sts get-caller-identity --profile {profile} --region {region}, and check aws:region and the network",
    ),
)


def explain(reason: str, profile: str, region: str, stack: str) -> str:
    """Explain an error of AWS or an SDK in one line; return an empty string if it is not about credentials or the region.

    Args:
        reason: the error's text.
        profile: the AWS profile; empty: the default profile.
        region: the stack's region, or empty.
        stack: the stack's name, for the command that plans it without an account; empty: there is no such command.
    """
    for pattern, wrong, command in _FAILURES:
        if match := re.search(pattern, reason, re.IGNORECASE):
            known = {
                "profile": profile or DEFAULT_PROFILE,
                "region": region or "its region",
                "found": match[1] if match.groups() else "",
            }
            preview = f". Without an account: make plan STACK={stack}" if stack else ""
            return f"{wrong}. Run: {command}{preview}".format(**known)
    return ""


def session(profile: str, region: str, *, instance_metadata: bool = False) -> boto3.Session:
    """A session with the credentials that Pulumi's provider would find.

    Args:
        profile: the AWS profile; empty: AWS_PROFILE or the default profile.
        region: the stack's region.
        instance_metadata: whether to query the EC2 instance metadata service. Off by default, as in the provider, because
            outside EC2 the connection may take seconds to fail.

    Raises:
        botocore.exceptions.ProfileNotFound: the profile does not exist.
    """
    core = botocore.session.Session(profile=profile or None)
    if not instance_metadata:
        core.get_component("credential_provider").remove("iam-role")
    return boto3.Session(botocore_session=core, region_name=region or None)


def failure(identity: Callable[[], Any]) -> tuple[str, bool]:
    """Why AWS rejects the credentials used by ``identity``, and whether the provider must fail too.

    Returns:
        The reason and True if the provider must fail too; the reason and False if boto3 found no credentials; an empty
        string and False if AWS accepted them or could not be reached.
    """
    try:
        identity()
    except NoCredentialsError as error:
        return str(error), False
    except (ConnectionError, HTTPClientError):
        return "", False
    except (BotoCoreError, ClientError) as error:
        return f"{type(error).__name__}: {error}", True
    return "", False
