"""Weights and KV cache of real models, computed from their config.json alone and compared with what is published."""

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.__main__ import as_table
from infra.planning.architecture.config import CONFIRMED
from infra.planning.catalog import models
from infra.planning.catalog.models import ModelArchitecture, UnknownModelError, find_model
from infra.planning.memory import kv_bytes_per_token
from infra.planning.weights import file_bytes, weight_bytes
from infra.stack_files import load_stack

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
    assert file_bytes(found) == pytest.approx(row["published_bytes"], rel=0.05)
    assert kv_bytes_per_token(found, "auto") == pytest.approx(by_hand(row["kv_bytes_per_token"]), rel=0.02)


def test_sixty_sizes_are_stated_by_others_and_every_config_says_where_it_is_from() -> None:
    assert sum(bool(row["published_from"]) for row in ROWS.values()) >= 60
    assert all(row["config_from"] and (row["precision"] or not row["published_from"]) for row in ROWS.values())


def test_a_model_type_without_a_class_is_trusted_only_if_a_row_confirms_it() -> None:
    kinds = {row["config"].get("model_type") for row in ROWS.values()}
    kinds |= {row["config"].get("text_config", {}).get("model_type") for row in ROWS.values()}
    assert kinds >= CONFIRMED
    found = ModelArchitecture.from_config(ROWS["moonshotai/Kimi-K2-Instruct"]["config"], "hub")
    assert found.doubts == ()


def test_the_catalogs_formula_gives_the_published_size_and_each_row_has_a_source() -> None:
    data = json.loads((Path(models.__file__).with_name("models.json")).read_text())
    rows = {name: row for name, row in data.items() if not name.startswith("_")}
    assert set(models.catalog()) == set(rows)
    for name, row in rows.items():
        assert row.get("_source", "hub") in data["_sources"], name
        if published := row.get("_published_bytes"):
            assert file_bytes(models.catalog()[name]) == pytest.approx(published, rel=0.05), name


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


def test_an_encoder_keeps_no_cache_and_leaves_its_length_to_vllm() -> None:
    bge_m3 = {
        "model_type": "xlm-roberta", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "vocab_size": 250002, "max_position_embeddings": 8194, "type_vocab_size": 1,
    }  # fmt: skip
    settings = load_stack("dev", {"model": "BAAI/bge-m3", "gpu": "l4", "maxModelLen": 0})
    plan = make_plan(settings, fetch=lambda model, revision: bge_m3)
    assert plan.memory.fits
    assert (plan.memory.kv_bytes_per_token, plan.memory.max_model_len) == (0, 8192)
    assert "--max-model-len" not in plan.engine.args
    assert "none" in as_table(plan, "dev")
    assert plan.engine.checkpoint_gib == pytest.approx(568e6 * 4 / (1 << 30), rel=0.03)  # its files have 32 bits
    assert plan.memory.weights_gib == pytest.approx(568e6 * 2 / (1 << 30), rel=0.03)


def test_a_row_of_the_catalog_plans_as_the_models_own_config() -> None:
    """What a user gets must not depend on whether the plan reads the catalog or the Hub, such as with a revision."""

    def kinds(found: ModelArchitecture) -> Any:
        caches = [(cache.kind, cache.layers, cache.elements, cache.window) for cache in found.caches]
        return found.kind, found.sees, found.draft_layers, found.quantization, found.cache_dtype, caches

    for name, row in ROWS.items():
        if (listed := models.catalog().get(name)) is not None:
            own = ModelArchitecture.from_config(row["config"], "hub")
            assert kinds(listed) == kinds(own), name
            assert file_bytes(listed) == pytest.approx(file_bytes(own), rel=0.015), name


def test_mistrals_models_without_a_sliding_window_cache_every_token() -> None:
    rows = [name for name in models.catalog() if name.startswith("mistralai/M") and "v0.1" not in name]
    rows.append("mistralai/Devstral-Small-2507")
    assert all({cache.kind for cache in models.catalog()[name].caches} == {"full"} for name in rows)


@pytest.mark.parametrize("method", ["mtp", "qwen3_next_mtp"])
def test_a_model_that_predicts_several_tokens_may_speculate_with_them(method: str) -> None:
    """Qwen3-Next's config.json does not mention the layer for it; the size of its files includes it."""
    settings: dict[str, Any] = {"model": "Qwen/Qwen3-Next-80B-A3B-Instruct", "gpu": "h200", "gpuCount": 2}
    plain = make_plan(load_stack("dev", settings))
    config = {"method": method, "num_speculative_tokens": 2}
    found = make_plan(load_stack("dev", {**settings, "speculative": config}))
    assert found.memory.weights_gib > plain.memory.weights_gib + 1
    assert plain.engine.checkpoint_gib * (1 << 30) == pytest.approx(162_649_725_440, rel=0.005)
    assert (
        "--speculative-config"
        in make_plan(load_stack("dev", {**settings, "model": "Qwen/Qwen3.5-35B-A3B", "speculative": "mtp"})).engine.args
    )


def test_a_model_that_generates_no_text_does_not_speculate() -> None:
    with pytest.raises(PlanError, match="BAAI/bge-m3 generates no text"):
        make_plan(load_stack("dev", {"model": "BAAI/bge-m3", "maxModelLen": 0, "speculative": "ngram"}))
