"""A sound stack in the emulated account of the teardown's tests."""

from collections.abc import Iterator

import boto3
import httpx2
import pytest

from policy.emulator import BUDGET_TAGS, REGION, KeptClients, emulator
from tests.smoke_tests.aws.sound import Sound


@pytest.fixture(scope="module")
def session() -> Iterator[boto3.Session]:
    """A session in an empty account."""
    with emulator() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION,
        }.items():  # fmt: skip
            patch.setenv(name, value)
        httpx2.post(f"{url}/moto-api/reset", timeout=30).raise_for_status()
        BUDGET_TAGS.clear()
        yield KeptClients(region_name=REGION)


@pytest.fixture(scope="module")
def sound(session: boto3.Session) -> Sound:
    """The stack; whoever breaks it mends it."""
    return Sound(session).build()
