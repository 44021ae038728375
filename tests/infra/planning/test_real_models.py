"""Weights and KV cache of real models, computed from their config.json alone and compared with what is published."""

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

from infra.planning.catalog.models import ModelArchitecture, UnknownModelError, find_model
from infra.planning.memory import kv_bytes_per_token
from infra.planning.weights import weight_bytes

ROWS: dict[str, Any] = {
    name: row
    for name, row in json.loads(Path(__file__).with_name("real_models.json").read_text()).items()
    if not name.startswith("_")
}


def by_hand(formula: str) -> int:
    """The product that the data file writes out, of numbers and one bracket at most: ``78*(576*2+132)``."""
    before, _, inside = formula.rstrip(")").partition("(")
    total = sum(prod(int(number) for number in term.split("*")) for term in inside.split("+")) if inside else 1
    return total * prod(int(number) for number in before.strip("*").split("*"))


@pytest.mark.parametrize("name", ROWS)
def test_weights_are_within_five_percent_by_formula_and_the_cache_within_two(name: str) -> None:
    row = ROWS[name]
    found = ModelArchitecture.from_config(row["config"], "hub")
    assert weight_bytes(found, "") == pytest.approx(row["published_bytes"], rel=0.05)
    assert kv_bytes_per_token(found, "auto") == pytest.approx(by_hand(row["kv_bytes_per_token"]), rel=0.02)


def test_a_folder_counts_each_weight_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(ROWS["Qwen/Qwen3-8B"]["config"]))
    for name in ("consolidated.safetensors", "model-00001-of-00001.safetensors"):
        (tmp_path / name).write_bytes(bytes(1000))
    found = find_model(str(tmp_path))
    assert (found.source, weight_bytes(found, "")) == ("folder", 1000)


@pytest.mark.parametrize("model", ["not a model", "a/b/c", "org/na me", "-", "https://huggingface.co/x/y"])
def test_what_is_no_hub_id_is_one_clear_line(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnknownModelError) as raised:
        find_model(model)
    assert "\n" not in str(raised.value)
