"""What every conformance test stands on: the target, the real OpenAI SDK, and plain HTTP."""

from collections.abc import Iterator

import httpx2
import pytest
from openai import OpenAI

from smoke_tests.conformance import TARGET
from smoke_tests.target import Target

# Long enough for a slow engine under eight requests; a cold start was waited for before the tests.
REQUEST_TIMEOUT_SECONDS = 300.0


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run without a target."""
    if TARGET not in config.stash:
        raise pytest.UsageError("start these tests with: python -m smoke_tests --endpoint URL (or --stack NAME)")


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config) -> Target:
    """The endpoint under test."""
    return pytestconfig.stash[TARGET]


@pytest.fixture(scope="session")
def model(target: Target) -> str:
    """The model to ask for."""
    return target.model


@pytest.fixture(scope="session")
def client(target: Target) -> Iterator[OpenAI]:
    """The SDK as users have it, but without its retries: a request that fails once is a failure here."""
    with OpenAI(
        base_url=target.openai_base_url,
        api_key=target.api_key or "none",
        max_retries=0,
        timeout=REQUEST_TIMEOUT_SECONDS,
    ) as sdk:
        yield sdk


@pytest.fixture(scope="session")
def http(target: Target) -> Iterator[httpx2.Client]:
    """Plain HTTP with the key, for what the SDK hides."""
    with httpx2.Client(base_url=target.endpoint, headers=target.headers, timeout=REQUEST_TIMEOUT_SECONDS) as session:
        yield session
