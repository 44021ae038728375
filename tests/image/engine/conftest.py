"""A fake Hub with one small model, for the tests of the engine's container."""

from collections.abc import Iterator

import pytest

from fakes.fake_hub import FakeHub, FakeModel, fake_hub

MODEL = "acme/tiny"


def tiny() -> FakeModel:
    """A model with small and large files, and weights in a format that vLLM does not need."""
    return FakeModel(
        {
            "config.json": b'{"model_type": "tiny"}',
            "model-00001-of-00002.safetensors": bytes(range(256)) * 4096,
            "model-00002-of-00002.safetensors": bytes(reversed(range(256))) * 4096,
            "pytorch_model.bin": b"old" * 1024,
            "onnx/model.onnx": b"other" * 1024,
        }
    )


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as found:
        found.models[MODEL] = tiny()
        yield found
