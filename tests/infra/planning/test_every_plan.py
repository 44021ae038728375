"""Every GPU with every model of the catalog, on 1, 2, 4 or 8 GPUs: a plan that vLLM accepts, or helpful problems."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from image.engine.argument_list import argument_list
from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.catalog.models import UnknownModelError, catalog
from infra.planning.engine import GRAPH_SIZES, VLLM_VERSION
from infra.planning.memory import default_batch
from infra.planning.plan import ServingPlan
from infra.settings import Gpu
from infra.settings_problems import parse_settings

KNOWN = set(argument_list(VLLM_VERSION).by_name)
JSON_FLAGS = ("--compilation-config", "--limit-mm-per-prompt", "--speculative-config")
COUNTS = (1, 2, 4, 8)
SHARE = 5  # of all counts, one in five: another for each GPU
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"fastBoot": "eager"},
    {"fastBoot": False, "quantization": "auto"},
    {"performanceMode": "throughput", "loraAdapters": ["sql=acme/sql"]},
    {"performanceMode": "interactivity", "speculative": "ngram:3"},
    {"maxNumSeqs": 12, "maxNumBatchedTokens": 10240, "gpuMemoryUtilization": 0.95},
)


def no_hub(model: str, revision: str) -> dict[str, object]:
    raise UnknownModelError("the Hub cannot be reached (tests never reach it)")


def settings_of_everything(turn: int) -> Iterator[dict[str, Any]]:
    """Each model with some of the counts of GPUs and of copies; the counts and the variants take turns."""
    number = turn
    for model in catalog():
        for count in COUNTS:
            for copies in (copies for copies in COUNTS if copies <= count):
                number += 1
                if number % SHARE:
                    continue
                yield {
                    "model": model, "gpuCount": count, "dataParallelSize": copies, **VARIANTS[number // SHARE % len(VARIANTS)],
                }  # fmt: skip


def options(args: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in args:
        if word.startswith("--"):
            assert word not in found, f"{word} twice"
            found[word] = []
        else:
            found[list(found)[-1]].append(word)
    return found


def check(plan: ServingPlan, values: dict[str, Any]) -> None:
    """What vLLM would refuse, or what would make the plan's own figures wrong."""
    found = options(plan.engine.args)
    assert set(found) <= KNOWN
    parsed = {flag: json.loads(found[flag][0]) for flag in JSON_FLAGS if flag in found}
    tensor = int(found.get("--tensor-parallel-size", ["1"])[0])
    copies = int(found.get("--data-parallel-size", ["1"])[0])
    assert tensor * copies == values["gpuCount"]
    assert plan.architecture.num_attention_heads % tensor == 0
    memory = plan.memory
    assert memory.fits
    assert memory.max_model_len > 0
    assert memory.max_model_len <= memory.kv_cache_tokens or not plan.architecture.keeps_cache
    assert memory.weights_gib + memory.overhead_gib + memory.kv_cache_gib == pytest.approx(memory.usable_gib, abs=0.05)
    sequences = values.get("maxNumSeqs") or default_batch(plan.replicas.gpu, values.get("performanceMode", ""))[1]
    sequences = min(sequences, memory.most_sequences or sequences)
    sizes = parsed.get("--compilation-config", {}).get("cudagraph_capture_sizes", [1, min(sequences, 512)])
    assert sizes == sorted(set(sizes))
    # A batch larger than the largest graph runs without one, which is three to four times slower.
    assert min(sequences, GRAPH_SIZES[-1]) <= sizes[-1] <= max(2 * sequences, 1)
    eager, speculative = values.get("fastBoot") == "eager", "speculative" in values
    assert ("--enforce-eager" in found) == eager
    assert ("--compilation-config" in found) == (not eager and not speculative)
    assert ("VLLM_ENABLE_STARTUP_PLAN" in plan.engine.environment) == ("fastBoot" not in values)
    assert plan.engine.shared_memory_mib >= 1024 * values["gpuCount"]


@pytest.mark.parametrize("gpu", list(Gpu))
def test_each_model_is_planned_so_that_vllm_takes_it_or_refused_with_advice(gpu: Gpu) -> None:
    planned = refused = 0
    for values in settings_of_everything(list(Gpu).index(gpu)):
        try:
            plan = make_plan(parse_settings({"gpu": gpu.value, **values}), fetch=no_hub)
        except PlanError as error:
            refused += 1
            for reason in error.problems:
                assert re.match(r"[a-zA-Z]+: .+", reason), (values, reason)
                assert re.search(r"\b(Set|Remove)\b", reason), (values, reason)
                assert "\n" not in reason
        else:
            planned += 1
            check(plan, values)
    assert planned >= 30, "too few are planned to mean something"
    assert refused >= 10, "too few are refused to mean something"
