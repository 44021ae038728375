"""Credentials that fail: one line for each way, which names the profile and what to run, within seconds."""

import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ProfileNotFound

from infra.aws_credentials import CONFIG, explain, failure, session

STATUS_403 = "operation error STS: GetCallerIdentity, https response error StatusCode: 403, RequestID: 0a1b, api error "
# What pulumi-aws, the AWS SDK for Go and botocore say, and what the line must hold.
WORDS = {
    f"{STATUS_403}ExpiredToken: The security token included in the request is expired": "have expired. Run: aws sso login --profile corp",
    "ClientError: An error occurred (ExpiredToken) when calling the GetCallerIdentity operation: ...": "have expired",
    f"{STATUS_403}InvalidClientTokenId: The security token included in the request is invalid.": "rejected the credentials of AWS profile corp",
    f"{STATUS_403}SignatureDoesNotMatch: The request signature we calculated does not match": "rejected the credentials",
    f"{STATUS_403}SignatureDoesNotMatch: Signature expired: 20261128T100000Z is now earlier than 20261128T104500Z": "clock is wrong",
    "No valid credential sources found. Error: failed to refresh cached credentials, no EC2 IMDS role found": "no AWS credentials for profile corp",
    "Unable to locate credentials": "no AWS credentials for profile corp",
    "failed to get shared config profile, corp": "AWS profile corp does not exist on this machine",
    "ProfileNotFound: The config profile (corp) could not be found": "AWS profile corp does not exist on this machine",
    "failed to refresh cached credentials, refresh cached SSO token failed, unable to refresh SSO token": "Run: aws sso login --profile corp",
    "SSOTokenLoadError: Error loading SSO Token: Token for corp does not exist": "Run: aws sso login --profile corp",
    "The SSO session associated with this profile has expired or is otherwise invalid.": "Run: aws sso login --profile corp",
    "failed to refresh cached credentials, process provider error: error in credential_process: exit status 1": "credential_process of AWS profile corp",
    "AWS account ID not allowed: 999999999999": "belongs to account 999999999999",
    "endpoint rule error, Invalid Configuration: Missing Region": "pulumi config set aws:region us-east-1",
    "NoRegionError: You must specify a region.": "pulumi config set aws:region us-east-1",
    "Missing region information": "pulumi config set aws:region us-east-1",
    "User: arn:aws:iam::1:user/x is not authorized to perform: ec2:DescribeAvailabilityZones": "is not allowed to call ec2:DescribeAvailabilityZones",
    "dial tcp: lookup sts.us-esat-1.amazonaws.com: no such host": "AWS could not be reached in us-east-1",
}  # fmt: skip


@pytest.mark.parametrize("reason", WORDS)
def test_each_way_is_one_line_with_the_profile_and_what_to_run(reason: str) -> None:
    line = explain(reason, "corp", "us-east-1", "dev")
    assert WORDS[reason] in line
    assert "corp" in line or "aws:region" in line
    assert ". Run: " in line
    assert line.endswith("Without an account: make plan STACK=dev")
    assert "\n" not in line


@pytest.mark.parametrize(
    "reason", ["InvalidVpcID.NotFound: The vpc ID 'vpc-1' does not exist", "Throttling: Rate exceeded"]
)
def test_what_is_not_about_credentials_keeps_its_own_words(reason: str) -> None:
    assert explain(reason, "corp", "us-east-1", "dev") == ""


def test_the_default_profile_has_a_name() -> None:
    assert "profile default" in explain("Unable to locate credentials", "", "", "dev")


def raising(error: Exception) -> Any:
    def identity() -> None:
        raise error

    return identity


def test_only_what_is_certain_is_refused_before_the_provider_is_asked() -> None:
    expired = ClientError({"Error": {"Code": "ExpiredToken", "Message": "expired"}}, "GetCallerIdentity")
    assert failure(raising(expired))[1]
    assert failure(raising(ProfileNotFound(profile="corp")))[1]
    assert failure(raising(NoCredentialsError())) == ("Unable to locate credentials", False)
    assert failure(raising(EndpointConnectionError(endpoint_url="https://sts"))) == ("", False)
    assert failure(lambda: None) == ("", False)


def test_a_machine_without_credentials_knows_it_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    # A metadata service that never responds; a request to it would block.
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://192.0.2.1")
    began = time.monotonic()
    client = session("", "us-east-1").client("sts", config=CONFIG)
    assert failure(client.get_caller_identity) == ("Unable to locate credentials", False)
    assert time.monotonic() - began < 5
    assert CONFIG.connect_timeout + CONFIG.read_timeout < 5  # type: ignore[attr-defined]


def test_an_expired_sign_in_is_found_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile corp]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Dev\nregion = us-west-2\n"
        "[sso-session corp]\nsso_start_url = https://example.awsapps.com/start\nsso_region = us-west-2\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)

    def identity() -> None:
        session("corp", "").client("sts", config=CONFIG).get_caller_identity()

    reason, certain = failure(identity)
    assert certain
    assert "aws sso login --profile corp" in explain(reason, "corp", "us-west-2", "dev")
