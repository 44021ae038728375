"""The weights and caches of models of many architectures against what vLLM reported on an H200 (session 6)."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.engine.architecture_probes import PROBES, configuration
from infra.planning.architecture.caches import sequence_bytes
from infra.planning.catalog.models import GIB, ModelArchitecture
from infra.planning.weights import weights_gib

SESSION = Path(__file__).parents[3] / "docs" / "benchmarks" / "engine" / "session_6.jsonl"
MEASURED: dict[str, Any] = {
    row["name"].replace("--", "/"): row
    for row in map(json.loads, SESSION.read_text().splitlines())
    if "max_concurrency" in row
}


def test_enough_models_were_measured() -> None:
    assert len(MEASURED) >= 22
    assert set(MEASURED) <= set(PROBES)


@pytest.mark.parametrize("name", MEASURED)
def test_the_cache_of_a_sequence_is_what_vllm_allocates(name: str) -> None:
    config, _ = configuration(name)
    found, measured = ModelArchitecture.from_config(config, "hub"), MEASURED[name]
    assert weights_gib(found, "", 1) == pytest.approx(measured["weights_gib"], rel=0.04)
    sequence = sequence_bytes(found.caches, 8192, 2, 1, 8192)
    assert measured["kv_cache_gib"] * GIB / sequence == pytest.approx(measured["max_concurrency"], rel=0.002)
