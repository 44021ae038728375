"""What holds for every test: no credentials of the person who runs them, and no way to ask an instance for some."""

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests import browsers, forked_programs

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# The same examples in every run, and no verdict on how fast a busy machine makes them.
hypothesis.settings.register_profile(
    "repository", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repository")


@pytest.fixture(autouse=True, scope="session")
def no_aws_account() -> None:
    patch = pytest.MonkeyPatch()
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"):
        patch.delenv(name, raising=False)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_CONFIG_FILE", "/dev/null")
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


@pytest.fixture(scope="session")
def programs() -> Iterator[forked_programs.Programs]:
    """Runs programs of this repository as processes, without importing their libraries each time."""
    with forked_programs.forking() as starter:
        yield starter


def pytest_collection_finish() -> None:
    """What is imported by now stays; looked through at every full collection, it cost 7% of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # a run of the program makes 50,000 objects, which live as long as it does


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A browser without a window, one a module."""
    from playwright.sync_api import sync_playwright  # only the tests of pages pay for it

    program = browsers.installed()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=browsers.OPTIONS)
        yield started
        started.close()
