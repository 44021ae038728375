"""Embeddings, if the endpoint serves them: order, dimensions, and both encodings."""

import base64
import math
import struct
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from openai import OpenAI
from openai.types import CreateEmbeddingResponse

from smoke_tests.expectations import assert_openai_error
from smoke_tests.wire import Document, Wire, assert_is

PATH = "/v1/embeddings"
TEXTS = ["The parrot is called Ada.", "A hotel in Rome", "Grüße, 東京 🦜"]


@pytest.fixture(scope="session")
def _why_no_embeddings(http: httpx2.Client, model: str) -> str | None:
    response = http.post(PATH, json={"model": model, "input": "Hi"})
    if response.status_code == 200:
        return None
    assert_openai_error(response, response.status_code if response.status_code in (400, 404, 501) else 404)
    return str(response.json()["error"]["message"]).strip().splitlines()[0]


@pytest.fixture(autouse=True)
def _embeddings(_why_no_embeddings: str | None, needs: Callable[[str, str | None], None]) -> None:
    """The model supports embeddings."""
    needs("embeddings", _why_no_embeddings)


def embed(wire: Wire, given: Any, **options: Any) -> Document:
    """Return the embeddings of a text or a list of texts."""
    response = wire.http.post(PATH, json={"model": wire.model, "input": given} | options)
    assert response.status_code == 200, f"HTTP {response.status_code}: {response.text[:200]}"
    document: Document = response.json()
    assert isinstance(document.get("data"), list), f"the answer has no data: {response.text[:200]}"
    assert len(document["data"]) == (1 if isinstance(given, str) else len(given)), "not one vector for each text"
    return document


def vectors(document: Document) -> list[list[float]]:
    """Return the vectors of an answer."""
    return [each["embedding"] for each in document["data"]]


def is_close(one: list[float], other: list[float]) -> bool:
    """Whether two vectors point in nearly the same direction, as in another batch."""
    lengths = math.hypot(*one) * math.hypot(*other)
    return len(one) == len(other) and sum(a * b for a, b in zip(one, other, strict=True)) > 0.999 * lengths


def test_embeddings_have_openais_format(wire: Wire) -> None:
    """Embeddings are a list with one vector for each text, in OpenAI's format."""
    answer = embed(wire, TEXTS)
    assert_is(CreateEmbeddingResponse, answer)
    assert answer["model"] == wire.model
    assert [each["index"] for each in answer["data"]] == [0, 1, 2]
    assert len({len(vector) for vector in vectors(answer)}) == 1, "the vectors differ in length"
    for vector in vectors(answer):
        assert all(math.isfinite(value) for value in vector)
        assert any(vector), "a vector is zero"


def test_embeddings_count_their_tokens(wire: Wire) -> None:
    """The usage counts the tokens of all texts, and the total is the prompt."""
    whole, alone = embed(wire, TEXTS)["usage"], [embed(wire, text)["usage"] for text in TEXTS]
    assert whole["total_tokens"] == whole["prompt_tokens"] > 0, f"usage is {whole}"
    assert whole["prompt_tokens"] == sum(usage["prompt_tokens"] for usage in alone)


def test_embeddings_are_in_the_order_of_the_texts(wire: Wire) -> None:
    """Vector i belongs to text i, whatever else is in the request."""
    together, alone = vectors(embed(wire, TEXTS)), [vectors(embed(wire, text))[0] for text in TEXTS]
    for index, (one, other) in enumerate(zip(together, alone, strict=True)):
        assert is_close(one, other), f"vector {index} is not that of its text alone"
    assert not is_close(alone[0], alone[1]), "two texts have the same vector"


def test_base64_embeddings_are_the_same_floats(wire: Wire) -> None:
    """With encoding_format base64 a vector is base64 of its little-endian 32-bit floats."""
    floats, encoded = vectors(embed(wire, TEXTS)), embed(wire, TEXTS, encoding_format="base64")["data"]
    for vector, each in zip(floats, encoded, strict=True):
        assert isinstance(each["embedding"], str), "the vector is not encoded"
        content = base64.b64decode(each["embedding"], validate=True)
        assert len(content) == 4 * len(vector), f"{len(vector)} floats are {len(content)} bytes"
        assert is_close(list(struct.unpack(f"<{len(vector)}f", content)), vector), "the floats differ"


def test_the_sdk_decodes_embeddings(client: OpenAI, wire: Wire, model: str) -> None:
    """The OpenAI SDK, which requests base64 by default, returns vectors of the right length."""
    answer = client.embeddings.create(model=model, input=TEXTS[0])
    assert is_close(list(answer.data[0].embedding), vectors(embed(wire, TEXTS[0], encoding_format="float"))[0])


def test_wrong_embeddings_requests_are_400(http: httpx2.Client, model: str) -> None:
    """Empty input and an unknown encoding are rejected with 400 in OpenAI's error format."""
    requests: tuple[Document, ...] = ({"input": []}, {"input": "Hi", "encoding_format": "roman"})
    for wrong in requests:
        assert_openai_error(http.post(PATH, json={"model": model} | wrong), 400)


def test_embeddings_of_tokens(wire: Wire) -> None:
    """The input may be lists of token ids, which are the tokens of the usage: LangChain sends them by default."""
    answer = embed(wire, [[11, 12, 13], [14, 15]])
    assert [each["index"] for each in answer["data"]] == [0, 1]
    assert answer["usage"]["prompt_tokens"] == 5, f"5 tokens are counted as {answer['usage']['prompt_tokens']}"


def test_dimensions_are_not_ignored(wire: Wire) -> None:
    """Vectors have the requested dimensions, or the request is rejected with 400."""
    response = wire.http.post(PATH, json={"model": wire.model, "input": "Hi", "dimensions": 3})
    if response.status_code == 200:
        length = len(response.json()["data"][0]["embedding"])
        assert length == 3, f"3 dimensions were requested, and the vector has {length}"
    else:
        assert_openai_error(response, 400)
