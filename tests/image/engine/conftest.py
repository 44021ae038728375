"""A fake Hub with one small model, for the tests of the engine's container."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_hub import FakeHub, FakeModel, fake_hub
from image.engine import patience
from image.engine.hub import Hub
from image.engine.progress import Progress
from image.engine.weights import Repository, Weights, ensure

MODEL = "acme/tiny"
TINY = Repository(MODEL)
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


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


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each wait, none of which takes time."""
    waited: list[float] = []
    monkeypatch.setattr(patience, "clock", lambda: sum(waited))
    monkeypatch.setattr(patience, "sleep", waited.append)
    monkeypatch.setattr(Progress, "pause", lambda self, seconds: waited.append(seconds))
    return waited


def have(
    home: Path, hub: FakeHub, told: list[str] | None = None, repository: Repository = TINY, **more: Any
) -> Weights:
    token = more.pop("token", "")
    tell = (told if told is not None else []).append
    return ensure(repository, home / "hub", Hub({"HF_ENDPOINT": hub.address, "HF_TOKEN": token}), tell, **more)


def right(weights: Weights, model: FakeModel) -> bool:
    wanted = [name for name in model.files if name in ("config.json", FIRST, SECOND)]
    return all((weights.folder / name).read_bytes() == model.files[name] for name in wanted)
