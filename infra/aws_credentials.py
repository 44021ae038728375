"""The AWS credentials of a deploy: asked of AWS before the provider starts, and one line for each way in which they fail.

The provider's own messages run over several lines, and one that stops it from starting ends the program, too. Here each
becomes one line that names the profile and what to run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, NoCredentialsError

# One try within seconds: whoever waits longer for an answer learns nothing more.
CONFIG = Config(connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 1})
DEFAULT_PROFILE = "default"
# What SDKs and services say, in the order in which they are looked for: (their words, what is wrong, what to run).
# {profile} and {region} are filled in, and so is what a group of the pattern found, as {found}.
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
        "AWS profile {profile} is of account {found}, which aws:allowedAccountIds does not allow",
        "pulumi config set aws:profile NAME with a profile of the right account",
    ),
    (
        r"\bSSO\b|SSOProvider|oauth2 token|login session",
        "the sign-in of AWS profile {profile} has expired",
        "aws sso login --profile {profile}",
    ),
    (
        r"Signature not yet current|Signature expired|RequestTimeTooSkewed|clock",
        "AWS refused the time of the requests: this machine's clock is wrong (AWS profile {profile})",
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
        "AWS does not know the credentials of AWS profile {profile}, or {region} is not enabled in their account",
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
        "AWS profile {profile} may not call {found}",
        "pulumi config set aws:profile NAME with a profile that may, or add {found} to its role",
    ),
    (
        r"no such host|dial tcp|Could not connect to the endpoint|connection refused|i/o timeout|Invalid AWS Region",
        "AWS could not be reached in {region} (AWS profile {profile})",
        "aws sts get-caller-identity --profile {profile} --region {region}, and check aws:region and the network",
    ),
)


def explain(reason: str, profile: str, region: str, stack: str) -> str:
    """What an error of AWS or of an SDK means for a deploy, in one line; an empty string where it is about something else.

    Args:
        reason: the error's text.
        profile: the AWS profile; empty: the default one.
        region: the stack's region, or empty.
        stack: the stack's name, for the command that previews it without an account.
    """
    for pattern, wrong, command in _FAILURES:
        if match := re.search(pattern, reason, re.IGNORECASE):
            known = {
                "profile": profile or DEFAULT_PROFILE,
                "region": region or "its region",
                "found": match[1] if match.groups() else "",
            }
            preview = f"Without an account: make plan STACK={stack}"
            return f"{wrong}. Run: {command}. {preview}".format(**known)
    return ""


def session(profile: str, region: str, *, instance_metadata: bool = False) -> boto3.Session:
    """A session with the credentials that Pulumi's provider would find.

    Args:
        profile: the AWS profile; empty: AWS_PROFILE's or the default one.
        region: the stack's region.
        instance_metadata: whether EC2's metadata service is asked. Like the provider, not by default: where there is no
            such service, its address may take seconds to fail.

    Raises:
        botocore.exceptions.ProfileNotFound: there is no such profile.
    """
    core = botocore.session.Session(profile=profile or None)
    if not instance_metadata:
        core.get_component("credential_provider").remove("iam-role")
    return boto3.Session(botocore_session=core, region_name=region or None)


def failure(identity: Callable[[], Any]) -> tuple[str, bool]:
    """Why AWS does not take the credentials that ``identity`` asks with, and whether that is certain.

    Returns:
        The reason and True where the provider must fail, too; a reason and False where this machine has no credentials that
        are known here; an empty string and False where AWS took them, or could not be asked.
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
