"""Fixtures of the conformance tests: the target, the real OpenAI SDK, plain HTTP, and the abilities of the model."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from smoke_tests import pictures
from smoke_tests.abilities import why_no_text, why_not
from smoke_tests.conformance import STASH, Conformance
from smoke_tests.connections import openai_client, sync_client
from smoke_tests.schemas import TOOLS
from smoke_tests.target import Target
from smoke_tests.wire import Wire

# Long enough for a slow engine with sixteen concurrent requests. The cold start is over before the tests begin.
REQUEST_TIMEOUT_SECONDS = 300.0
# The field of /info that reports the ability, as planned for the stack.
REPORTED_BY = {"image": "image_limit", "video": "video_limit", "tools": "tool_call_parser"}


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run without a target."""
    if STASH not in config.stash:
        raise pytest.UsageError("start these tests with: python -m smoke_tests --endpoint URL (or --stack NAME)")


@pytest.fixture(scope="session")
def conformance(pytestconfig: pytest.Config) -> Conformance:
    """The endpoint under test and what the tests may use."""
    return pytestconfig.stash[STASH]


@pytest.fixture(scope="session")
def target(conformance: Conformance) -> Target:
    """The endpoint under test."""
    return conformance.target


@pytest.fixture(scope="session")
def model(target: Target) -> str:
    """The name of the model under test."""
    return target.model


@pytest.fixture(scope="session")
def client(target: Target) -> Iterator[OpenAI]:
    """The SDK as users have it, but without its retries: a request that fails once is a failure here."""
    with openai_client(target, timeout=REQUEST_TIMEOUT_SECONDS) as sdk:
        yield sdk


@pytest.fixture(scope="session")
def http(target: Target) -> Iterator[httpx2.Client]:
    """Plain HTTP with the key, for what the SDK hides."""
    with sync_client(target, timeout=REQUEST_TIMEOUT_SECONDS) as session:
        yield session


@pytest.fixture(scope="session")
def wire(http: httpx2.Client, model: str) -> Wire:
    """Raw JSON answers of the model, for details that the SDK hides."""
    return Wire(http, model)


@pytest.fixture(scope="session")
def plain(target: Target) -> Iterator[httpx2.Client]:
    """Plain HTTP without a key."""
    with sync_client(target, timeout=60.0, with_key=False) as session:
        yield session


@pytest.fixture(scope="session")
def info(http: httpx2.Client) -> dict[str, Any]:
    """The document at /info; empty if the endpoint does not serve it."""
    response = http.get("/info")
    try:
        document = response.json() if response.status_code == 200 else {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


@pytest.fixture(scope="session")
def context_tokens(client: OpenAI, model: str) -> int | None:
    """The context length that /v1/models reports, in tokens; None if it is not reported."""
    entry = next((listed for listed in client.models.list().data if listed.id == model), None)
    length = getattr(entry, "max_model_len", None)
    return length if isinstance(length, int) else None


@pytest.fixture(scope="session")
def needs(conformance: Conformance, info: dict[str, Any]) -> Callable[[str, str | None], None]:
    """Skip a test if the model lacks the ability; fail if --require or the plan in /info names it."""

    def check(ability: str, reason: str | None) -> None:
        if reason is None:
            return
        if ability in conformance.required:
            pytest.fail(f"--require {ability}: {reason}")
        field = REPORTED_BY.get(ability, "")
        if planned := info.get(field):
            pytest.fail(f"/info reports {field}: {planned}, but the endpoint refuses: {reason}")
        pytest.skip(f"the model does not support {ability}: {reason}")

    return check


@pytest.fixture(scope="session")
def _why_no_text(http: httpx2.Client, model: str) -> str | None:
    return why_no_text(http, model)


@pytest.fixture
def text(_why_no_text: str | None, needs: Callable[[str, str | None], None]) -> None:
    """The model generates text."""
    needs("text", _why_no_text)


@pytest.fixture(scope="session")
def _why_no_image(http: httpx2.Client, model: str, _why_no_text: str | None) -> str | None:
    return _why_no_text or why_not(
        http, model, {"messages": pictures.messages(pictures.image_part(pictures.png(pictures.RED)))}
    )


@pytest.fixture(scope="session")
def _why_no_video(http: httpx2.Client, model: str, _why_no_text: str | None) -> str | None:
    return _why_no_text or why_not(
        http, model, {"messages": pictures.messages(pictures.video_part(pictures.RED_VIDEO))}
    )


@pytest.fixture(scope="session")
def _why_no_tools(http: httpx2.Client, model: str, _why_no_text: str | None) -> str | None:
    return _why_no_text or why_not(http, model, {"tools": TOOLS, "tool_choice": "auto"})


@pytest.fixture
def tools(_why_no_tools: str | None, needs: Callable[[str, str | None], None]) -> None:
    """The model supports tool calls."""
    needs("tools", _why_no_tools)


@pytest.fixture
def image(_why_no_image: str | None, needs: Callable[[str, str | None], None]) -> None:
    """The model accepts images."""
    needs("image", _why_no_image)


@pytest.fixture
def video(_why_no_video: str | None, needs: Callable[[str, str | None], None]) -> None:
    """The model accepts videos."""
    needs("video", _why_no_video)
