"""What holds for every test: no credentials of the person who runs them, and no way to ask an instance for some."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_aws_account() -> None:
    patch = pytest.MonkeyPatch()
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"):
        patch.delenv(name, raising=False)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_CONFIG_FILE", "/dev/null")
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
