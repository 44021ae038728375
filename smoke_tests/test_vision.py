"""Images and videos for vision models: as base64 and by URL, actually read, and rejected with a clear error."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from openai import OpenAI

from smoke_tests import pictures
from smoke_tests.asking import ask, stream
from smoke_tests.conformance import Conformance
from smoke_tests.expectations import assert_openai_error
from smoke_tests.pictures import BLUE, BLUE_VIDEO, RED, RED_VIDEO, image_part, messages, png, video_part

pytestmark = pytest.mark.usefixtures("text")

THIS_MACHINE = ("127.0.0.1", "::1", "localhost")
# Above the imageLimit of any stack.
TOO_MANY_IMAGES = 65
INTERNAL_ADDRESSES = [
    "http://169.254.169.254/latest/meta-data/", "http://169.254.170.2/v2/credentials", "http://2852039166/",
    "http://[::ffff:169.254.169.254]/", "http://engine.internal:8000/metrics", "file:///etc/passwd",
]  # fmt: skip


def look(client: OpenAI, model: str, *parts: dict[str, Any]) -> tuple[int, dict[str, float]]:
    """Return the prompt tokens and the log probabilities of the likeliest first tokens."""
    answer = ask(client, model, *messages(*parts), max_tokens=1, logprobs=True, top_logprobs=5)
    logprobs = answer.choices[0].logprobs
    assert answer.usage is not None
    assert logprobs is not None, "no logprobs"
    assert logprobs.content, "logprobs are empty"
    return answer.usage.prompt_tokens, {token.token: token.logprob for token in logprobs.content[0].top_logprobs}


def apart(one: dict[str, float], other: dict[str, float]) -> float:
    """Return the largest difference between two sets of log probabilities."""
    nowhere = min([*one.values(), *other.values()]) - 1
    return max(abs(one.get(token, nowhere) - other.get(token, nowhere)) for token in one | other)


def assert_told_apart(client: OpenAI, model: str, red: dict[str, Any], blue: dict[str, Any]) -> None:
    (_, first), (_, again), (_, another) = (look(client, model, part) for part in (red, red, blue))
    # The same image may differ slightly in another batch; an image that is ignored does not differ at all.
    assert apart(first, another) > 5 * apart(first, again) + 0.01, "red and blue get the same answer"


@pytest.mark.usefixtures("image")
def test_an_image_by_base64_is_read(client: OpenAI, model: str) -> None:
    """An image sent as base64 is accepted and adds prompt tokens."""
    without, _ = look(client, model)
    with_image, _ = look(client, model, image_part(png(RED)))
    assert with_image >= without + 3, f"{without} tokens without the image, {with_image} with it"


@pytest.mark.usefixtures("image")
def test_images_are_told_apart(client: OpenAI, model: str) -> None:
    """The model reads the image: another colour changes the answer."""
    assert_told_apart(client, model, image_part(png(RED)), image_part(png(BLUE)))


@pytest.mark.usefixtures("image")
def test_images_stand_where_they_are_put(client: OpenAI, model: str) -> None:
    """Two images in one question are both read, in order."""
    red, blue = image_part(png(RED)), image_part(png(BLUE))
    one, _ = look(client, model, red)
    two, red_first = look(client, model, red, blue)
    _, again = look(client, model, red, blue)
    _, blue_first = look(client, model, blue, red)
    assert two >= one + 3
    assert apart(red_first, blue_first) > 5 * apart(red_first, again) + 0.01, "the order of the images does not matter"


@pytest.mark.usefixtures("image")
def test_an_image_is_streamed_about(client: OpenAI, model: str) -> None:
    """An answer about an image can be streamed."""
    chunks = stream(client, model, *messages(image_part(png(RED))), max_tokens=8)
    assert [chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]


@pytest.fixture(scope="session")
def addresses(conformance: Conformance) -> Iterator[tuple[str, str]]:
    """URLs of a red image and a red video that the endpoint can fetch; empty if none is known."""
    given = conformance.image_url, conformance.video_url
    if all(given) or urlsplit(conformance.target.endpoint).hostname not in THIS_MACHINE:
        yield given
        return
    with pictures.served() as folder:
        yield given[0] or f"{folder}/red.png", given[1] or f"{folder}/{RED_VIDEO.name}"


@pytest.mark.usefixtures("image")
def test_an_image_by_address_is_read(client: OpenAI, model: str, addresses: tuple[str, str]) -> None:
    """An image URL is fetched and adds prompt tokens."""
    if not addresses[0]:
        pytest.skip("the endpoint is on another machine; set --image-url to an image that it can fetch")
    without, _ = look(client, model)
    with_image, _ = look(client, model, image_part(addresses[0]))
    assert with_image >= without + 3, f"{without} tokens without the image, {with_image} with it"


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("wrong", ["nonsense", "address"])
def test_a_broken_image_is_refused(http: httpx2.Client, model: str, wrong: str) -> None:
    """Data that is not an image, and a URL that cannot be fetched, are rejected in OpenAI's error format, and the endpoint keeps serving."""
    part = image_part(b"no image") if wrong == "nonsense" else image_part("http://127.0.0.1:9/no.png")
    response = http.post("/v1/chat/completions", json={"model": model, "messages": messages(part), "max_tokens": 1})
    # vLLM reports a URL that does not answer as its own error, with 500.
    assert_openai_error(response, 500 if wrong == "address" and response.status_code == 500 else 400)
    fine = http.post("/v1/chat/completions", json={"model": model, "messages": messages(), "max_tokens": 1})
    assert fine.status_code == 200, f"the next request is answered with HTTP {fine.status_code}"


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("address", INTERNAL_ADDRESSES)
def test_an_internal_address_is_not_fetched(http: httpx2.Client, model: str, address: str) -> None:
    """URLs of cloud metadata, private networks and files are not fetched but rejected with 400 (SSRF)."""
    body = {"model": model, "messages": messages(image_part(address)), "max_tokens": 1}
    assert_openai_error(http.post("/v1/chat/completions", json=body), 400)


@pytest.mark.usefixtures("image")
def test_too_many_images_are_400(http: httpx2.Client, model: str) -> None:
    """More images than the stack's limit are rejected with 400 in OpenAI's error format."""
    parts = [image_part(png(RED, 16, 16))] * TOO_MANY_IMAGES
    body = {"model": model, "messages": messages(*parts), "max_tokens": 1}
    assert_openai_error(http.post("/v1/chat/completions", json=body), 400)


@pytest.mark.usefixtures("video")
def test_a_video_by_base64_is_read(client: OpenAI, model: str) -> None:
    """A video sent as base64 is accepted and adds prompt tokens."""
    without, _ = look(client, model)
    with_video, _ = look(client, model, video_part(RED_VIDEO))
    assert with_video >= without + 3, f"{without} tokens without the video, {with_video} with it"


@pytest.mark.usefixtures("video")
def test_videos_are_told_apart(client: OpenAI, model: str) -> None:
    """The model reads the video: another colour changes the answer."""
    assert_told_apart(client, model, video_part(RED_VIDEO), video_part(BLUE_VIDEO))


@pytest.mark.usefixtures("video")
def test_a_video_by_address_is_read(client: OpenAI, model: str, addresses: tuple[str, str]) -> None:
    """A video URL is fetched and adds prompt tokens."""
    if not addresses[1]:
        pytest.skip("the endpoint is on another machine; set --video-url to an MP4 that it can fetch")
    without, _ = look(client, model)
    with_video, _ = look(client, model, video_part(addresses[1]))
    assert with_video >= without + 3, f"{without} tokens without the video, {with_video} with it"
