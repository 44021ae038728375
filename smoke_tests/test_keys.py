"""API keys: only a valid key is accepted, and a new key is accepted without a restart."""

import secrets
import time
from collections.abc import Iterator

import httpx2
import pytest
from openai import AuthenticationError, OpenAI

from smoke_tests.conformance import Conformance
from smoke_tests.expectations import assert_openai_error
from smoke_tests.keys_document import KeysDocument, with_key
from smoke_tests.target import Target

ROTATION_POLL_SECONDS = 0.5


@pytest.fixture(autouse=True)
def _endpoint_with_keys(target: Target) -> None:
    if target.api_key is None:
        pytest.skip("no API key was given and the endpoint answers without one")


@pytest.mark.parametrize("wrong", ["sk-wrong", "{key}x", "x"], ids=["another", "longer", "short"])
def test_wrong_key_is_401(client: OpenAI, target: Target, model: str, wrong: str) -> None:
    """A wrong key is rejected with 401."""
    stranger = client.with_options(api_key=wrong.format(key=target.api_key))
    with pytest.raises(AuthenticationError) as refused:
        stranger.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
    assert refused.value.status_code == 401


@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/responses", "/embeddings", "/models"])
def test_missing_key_is_401(plain: httpx2.Client, model: str, path: str) -> None:
    """Without a key, every path of the API returns 401 in OpenAI's error format."""
    if path == "/models":
        assert_openai_error(plain.get(f"/v1{path}"), 401)
    else:
        assert_openai_error(plain.post(f"/v1{path}", json={"model": model, "max_tokens": 1}), 401)


@pytest.fixture
def keys(conformance: Conformance) -> Iterator[KeysDocument]:
    if conformance.keys is None:
        pytest.skip("the tests may not change the keys; --rotate-keys allows it")
    before = conformance.keys.read()
    try:
        yield conformance.keys
    finally:
        conformance.keys.write(before)


def test_keys_are_rotated(plain: httpx2.Client, target: Target, keys: KeysDocument) -> None:
    """An added key is accepted while the old one stays valid; once removed, it is rejected with 401."""
    new = f"sk-smoke-{secrets.token_urlsafe(24)}"
    before = keys.read()
    _until(plain, new, 401, keys.notice_seconds)
    keys.write(with_key(before, f"smoke-test-{secrets.token_hex(4)}", new))
    _until(plain, new, 200, keys.notice_seconds)
    assert _status(plain, str(target.api_key)) == 200, "the old key is rejected although the document has both"
    keys.write(before)
    _until(plain, new, 401, keys.notice_seconds)
    assert _status(plain, str(target.api_key)) == 200, "the old key is rejected after the new one was removed"


def _status(plain: httpx2.Client, key: str) -> int:
    return plain.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code


def _until(plain: httpx2.Client, key: str, status: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (found := _status(plain, key)) != status:
        assert time.monotonic() < deadline, (
            f"{seconds:.0f} s after the change the key is answered with HTTP {found}, not {status}"
        )
        time.sleep(ROTATION_POLL_SECONDS)
