"""An AWS account on this machine."""

from collections.abc import Iterator

import boto3
import httpx2
import pytest

from policy.emulator import BUDGET_TAGS, CACHE_RULES, REGION, KeptClients, emulator


@pytest.fixture(scope="session")
def _server() -> Iterator[str]:
    with emulator() as url:
        yield url


@pytest.fixture(scope="session")
def _session() -> boto3.Session:
    return KeptClients(region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test")


@pytest.fixture
def aws(_server: str, _session: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
    """A session in an empty account that every boto3 client of the test is in, the command's own included."""
    httpx2.post(f"{_server}/moto-api/reset", timeout=30).raise_for_status()
    monkeypatch.setattr("smoke_tests.teardown.__main__.boto3.Session", lambda **_: _session)
    BUDGET_TAGS.clear()
    CACHE_RULES.clear()
    for name, value in {
        "AWS_ENDPOINT_URL": _server, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return boto3.Session(region_name=REGION)
