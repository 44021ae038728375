"""The pool of blocks of models that keep states, compared with what vLLM reported."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.architecture.caches import Cache, state_blocks
from infra.planning.plan import ServingPlan
from infra.stack_files import load_stack
from tests.infra.planning.plans import argument

GIB = 1 << 30
ROWS = json.loads(Path(__file__).parents[1].joinpath("real_models.json").read_text())


def plan(name: str, gpu: str, config: dict[str, Any] | None = None, **settings: Any) -> ServingPlan:
    values = {"model": "acme/hybrid", "gpu": gpu, "maxModelLen": 0, **settings}
    return make_plan(load_stack("dev", values), fetch=lambda model, revision: ROWS[name]["config"] | (config or {}))


def test_the_pool_is_as_large_as_vllm_reported_for_qwen_on_one_h100() -> None:
    # Qwen/Qwen3.6-27B-FP8 with a utilization of 0.95 (github.com/vllm-project/recipes, pull request 551): "max_num_seqs (1024)
    # exceeds available Mamba cache blocks (856)".
    fp8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    found = plan("Qwen/Qwen3.6-27B", "h100", fp8, gpuMemoryUtilization=0.95)
    room = found.memory.kv_cache_gib * GIB
    assert state_blocks(found.architecture.caches, room, 2, 1) == pytest.approx(856, rel=0.05)
    assert 700 < found.memory.most_sequences <= 856
    assert argument(found.engine.args, "--max-num-seqs") == str(found.memory.most_sequences)
    (warning,) = [warning for warning in found.warnings if "maxNumSeqs" in warning]
    assert warning.startswith("maxNumSeqs: planned")
    assert "concurrencyPerReplica" not in warning
    busy = plan("Qwen/Qwen3.6-27B", "h100", fp8, gpuMemoryUtilization=0.95, concurrencyPerReplica=900)
    assert any("vLLM queues the rest of concurrencyPerReplica (900)" in warning for warning in busy.warnings)


@pytest.mark.parametrize(
    "name",
    [
        "tiiuae/Falcon-H1-7B-Instruct",
        "tiiuae/falcon-mamba-7b-instruct",
        "Zyphra/Zamba2-7B-Instruct",
        "ai21labs/AI21-Jamba-1.5-Mini",
    ],
)
def test_each_kind_of_state_bounds_the_sequences(name: str) -> None:
    gpu = "h200" if "Jamba" in name else "l4"
    found = plan(name, gpu)
    blocks = state_blocks(found.architecture.caches, found.memory.kv_cache_gib * GIB, 2, 1)
    asked = int(argument(found.engine.args, "--max-num-seqs")) if "--max-num-seqs" in found.engine.args else 256
    assert 0 < asked <= blocks


def test_more_sequences_than_states_fit_are_refused() -> None:
    with pytest.raises(PlanError, match="maxNumSeqs: found 512, but the states of about") as raised:
        plan("tiiuae/Falcon-H1-7B-Instruct", "l4", maxNumSeqs=512)
    most = int(raised.value.problems[0].rpartition("at most ")[2].partition(",")[0])
    assert argument(plan("tiiuae/Falcon-H1-7B-Instruct", "l4", maxNumSeqs=most).engine.args, "--max-num-seqs") == str(
        most
    )


def test_a_model_without_states_has_no_such_bound() -> None:
    assert state_blocks((Cache("full", 32, elements=2048, heads=8),), GIB, 2, 1) == 0
    assert plan("meta-llama/Llama-3.1-8B", "l4").memory.most_sequences == 0
