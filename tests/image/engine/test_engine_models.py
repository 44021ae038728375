"""Which models the arguments of vLLM name."""

import json
from pathlib import Path

from image.engine.models import localized, repositories
from image.engine.weights import Repository
from tests.image.engine.conftest import MODEL

ROOT = Path(__file__).parents[3]


def test_every_model_that_the_arguments_name_is_found_and_put_in_place() -> None:
    draft = json.dumps({"model": "acme/draft", "num_speculative_tokens": 4})
    adapter = json.dumps({"name": "b", "path": "acme/lora-b"})
    arguments = [
        MODEL,
        "--revision",
        "v1",
        "--speculative-config",
        draft,
        "--lora-modules",
        "a=acme/lora-a",
        adapter,
        "--seed",
        "1",
    ]
    models = repositories(arguments)
    assert models == [
        Repository(MODEL, "v1"),
        Repository("acme/draft"),
        Repository("acme/lora-a"),
        Repository("acme/lora-b"),
    ]
    told = localized(arguments, {model: Path("/w") / model.name for model in models})
    assert told[:3] == [
        "/w/acme/tiny",
        "--speculative-config",
        json.dumps({"model": "/w/acme/draft", "num_speculative_tokens": 4}),
    ]
    assert told[3:] == [
        "--lora-modules", "a=/w/acme/lora-a", json.dumps({"name": "b", "path": "/w/acme/lora-b"}), "--seed", "1",
        "--served-model-name", MODEL,
    ]  # fmt: skip


def test_folders_and_object_stores_are_vllms_own_business(tmp_path: Path) -> None:
    for name in (str(tmp_path), "gs://bucket/model", "acme/model:Q4_K_M"):
        assert repositories([name]) == []
        assert localized([name, "--revision", "x"], {}) == [name, "--revision", "x"]
