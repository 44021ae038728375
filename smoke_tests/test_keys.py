"""API keys: only the right one gets in."""

import httpx2
import pytest
from openai import AuthenticationError, OpenAI

from smoke_tests.expectations import assert_openai_error
from smoke_tests.target import Target


@pytest.fixture(autouse=True)
def _endpoint_with_keys(target: Target) -> None:
    if target.api_key is None:
        pytest.skip("no API key was given and the endpoint answers without one")


@pytest.mark.parametrize("wrong", ["sk-wrong", "{key}x", "x"], ids=["another", "longer", "short"])
def test_wrong_key_is_401(client: OpenAI, target: Target, model: str, wrong: str) -> None:
    stranger = client.with_options(api_key=wrong.format(key=target.api_key))
    with pytest.raises(AuthenticationError) as refused:
        stranger.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
    assert refused.value.status_code == 401


def test_missing_key_is_401(target: Target, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    url = f"{target.openai_base_url}/chat/completions"
    assert_openai_error(httpx2.post(url, json=body, timeout=60), 401)
