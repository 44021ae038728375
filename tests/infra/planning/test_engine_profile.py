"""vLLM's performance arguments: graphs, kernels, quantization, copies, adapters, draft models, processes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from image.engine.standalone import _listening_inside
from infra.planning.catalog.models import GIB, catalog
from infra.planning.cold_start import engine_start_seconds
from infra.planning.plan import ServingPlan
from infra.planning.weights import weight_bytes
from infra.stack_files import ROOT, load_stack
from local.arguments import engine_command
from local.machine import Machine
from tests.infra.kubernetes.rendering import render
from tests.infra.planning.plans import argument, plan, reasons
from tests.infra.program import run_program


def config(plan: ServingPlan) -> dict[str, Any]:
    return dict(json.loads(argument(plan.engine.args, "--compilation-config")))


def test_few_graphs_are_captured_and_one_stream_has_a_kernel_of_its_own() -> None:
    chosen = config(plan(gpu="h200"))
    assert len(chosen["cudagraph_capture_sizes"]) == 15
    assert chosen["cudagraph_capture_sizes"][-1] == 512
    assert chosen["compile_sizes"] == [1]
    assert config(plan(gpu="h200", maxNumSeqs=12))["cudagraph_capture_sizes"] == [1, 2, 4, 8, 16, 24]


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ({"gpu": "l4"}, "torch.compile tunes no matrix products on 58 multiprocessors"),
        ({"gpu": "h200", "quantization": "auto"}, "FP8 products are vLLM's own kernels"),
        ({"gpu": "h200", "model": "Qwen/Qwen3-8B-AWQ"}, "so are 4-bit ones"),
        ({"gpu": "h200", "fastBoot": False}, "it would be compiled at each start"),
    ],
)
def test_nothing_is_compiled_where_it_gains_nothing(overrides: dict[str, Any], why: str) -> None:
    assert "compile_sizes" not in config(plan(**overrides)), why


@pytest.mark.parametrize(
    "overrides",
    [
        {"fastBoot": "eager"},
        {"speculative": "ngram"},
        {"engineArgs": ["--compilation-config", "{}"]},
        {"engineArgs": ["-O3"]},
        {"engineArgs": ["--cudagraph-capture-sizes", "1", "2"]},
    ],
)
def test_graphs_are_left_to_vllm_or_to_the_user_where_they_choose(overrides: dict[str, Any]) -> None:
    ours = plan(**overrides).engine.args
    assert not any(arg.startswith('{"cudagraph') for arg in ours)
    assert ours.count("--compilation-config") <= 1


def test_fp8_is_chosen_only_where_the_gpu_has_it_and_nothing_is_quantized_yet() -> None:
    assert argument(plan(gpu="h200", quantization="auto").engine.args, "--quantization") == "fp8"
    assert argument(plan(gpu="l4", quantization="auto").engine.args, "--quantization") == "fp8"
    for chosen in (
        plan(quantization="auto"),
        plan(gpu="a100", gpuCount=1, quantization="auto"),
        plan("prod", quantization="auto"),
        plan(gpu="h200", quantization="auto", model="Qwen/Qwen3-8B-AWQ"),
        plan(gpu="h200"),
    ):
        assert "--quantization" not in chosen.engine.args


def test_copies_share_the_gpus_of_a_replica() -> None:
    chosen = plan(gpu="h200", gpuCount=8, dataParallelSize=4)
    assert argument(chosen.engine.args, "--data-parallel-size") == "4"
    assert argument(chosen.engine.args, "--tensor-parallel-size") == "2"
    assert (chosen.engine.data_parallel_size, chosen.engine.tensor_parallel_size) == (4, 2)
    assert chosen.replicas.gpu_count == 8
    whole = plan(gpu="h200", gpuCount=8, dataParallelSize=8)
    assert "--tensor-parallel-size" not in whole.engine.args
    assert whole.memory.kv_cache_tokens == plan(gpu="h200").memory.kv_cache_tokens


def test_a_small_model_that_is_split_is_told_of_copies() -> None:
    assert any("dataParallelSize: 8" in warning for warning in plan(gpu="h200", gpuCount=8).warnings)
    assert not any(
        "dataParallelSize" in warning for warning in plan(gpu="h200", gpuCount=8, dataParallelSize=8).warnings
    )
    big = plan(gpu="l40s", gpuCount=4, model="Qwen/Qwen3-32B")
    assert not any("dataParallelSize" in warning for warning in big.warnings)


def test_adapters_are_served_by_name_and_counted() -> None:
    chosen = plan(loraAdapters=["sql=acme/sql-lora", "law=/weights/law"], maxLoraRank=64)
    args = chosen.engine.args
    at = args.index("--lora-modules")
    assert args[at + 1 : at + 3] == ("sql=acme/sql-lora", "law=/weights/law")
    assert "--enable-lora" in args
    assert argument(args, "--max-loras") == "2"
    assert argument(args, "--max-lora-rank") == "64"
    assert chosen.memory.weights_gib > plan().memory.weights_gib + 0.4
    assert chosen.gateway.environment["GATEWAY_ADAPTERS"] == "sql,law"
    assert "GATEWAY_ADAPTERS" not in plan().gateway.environment


def test_a_draft_model_takes_memory_and_must_fit_the_vocabulary() -> None:
    alone, drafted = plan(gpu="l40s"), plan(gpu="l40s", speculative="Qwen/Qwen3-0.6B:4")
    assert drafted.memory.weights_gib == pytest.approx(alone.memory.weights_gib + 1.11, abs=0.02)
    assert drafted.memory.kv_bytes_per_token == alone.memory.kv_bytes_per_token + 28 * 8 * 128 * 2 * 2
    assert drafted.memory.overhead_gib > alone.memory.overhead_gib + 0.3


@pytest.mark.parametrize(
    ("overrides", "key", "advice"),
    [
        ({"speculative": "TinyLlama/TinyLlama-1.1B-Chat-v1.0"}, "speculative", "same family"),
        ({"speculative": "eagle3:acme/head"}, "speculative", "access to the Hub"),
        ({"speculative": "mtp"}, "speculative", "ngram"),
        ({"speculative": "quickly"}, "speculative", "eagle3:MODEL"),
        ({"gpu": "h200", "gpuCount": 8, "model": "Qwen/Qwen3-4B-FP8"}, "gpuCount", "1 or 2 or 4"),
        ({"gpu": "h200", "gpuCount": 4, "model": "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"}, "gpuCount", "1 or 2"),
        ({"gpu": "h200", "gpuCount": 2, "dataParallelSize": 2, "model": "Qwen/Qwen3-30B-A3B"}, "dataParallelSize", "maxReplicas"),
    ],
)  # fmt: skip
def test_what_vllm_would_refuse_minutes_later(overrides: dict[str, Any], key: str, advice: str) -> None:
    (reason,) = reasons(**overrides)
    assert reason.startswith(f"{key}: ")
    assert advice in reason


def test_processes_are_forked_where_that_was_measured() -> None:
    for chosen in (plan(), plan(gpu="h200", gpuCount=2), plan(fastBoot="eager")):
        assert chosen.engine.environment["VLLM_WORKER_MULTIPROC_METHOD"] == "fork"
    eyes = plan(gpu="l40s", model="Qwen/Qwen2.5-VL-7B-Instruct", maxModelLen=8192, imageLimit=1)
    copies = plan(gpu="h200", gpuCount=2, dataParallelSize=2)
    for chosen in (eyes, copies):
        assert "VLLM_WORKER_MULTIPROC_METHOD" not in chosen.engine.environment
    theirs = plan(engineEnvironment=["VLLM_WORKER_MULTIPROC_METHOD=spawn"])
    assert theirs.engine.environment["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"


def test_the_estimated_start_is_near_the_measured_ones() -> None:
    def seconds(**overrides: Any) -> float:
        settings = load_stack("dev", {"gpu": "h200", "maxModelLen": 8192} | overrides)
        architecture = catalog()[settings.model]
        return engine_start_seconds(settings, architecture, weight_bytes(architecture, "") / GIB)

    # 4B was measured as it is deployed, the others without restoring and reading files, which took 4B 6.8 s.
    assert seconds(model="Qwen/Qwen3-4B") == pytest.approx(27.1, abs=0.5)
    assert seconds(model="Qwen/Qwen3-32B") == pytest.approx(27.8 + 6.8, abs=1)
    assert seconds(model="Qwen/Qwen3-4B", gpuCount=2) == pytest.approx(24.5 + 6.8, abs=1)
    assert seconds(model="Qwen/Qwen3-4B", fastBoot="eager") == pytest.approx(12.4 + 6.8, abs=1)
    assert seconds(fastBoot=False) > 2 * seconds()


def test_every_target_reports_cached_prompt_tokens() -> None:
    flag, off = "--enable-prompt-tokens-details", "--no-enable-prompt-tokens-details"
    machine = Machine("Linux", "x86_64", 8, frozenset({"avx2"}), memory_gib=32, shared_memory_gib=4)
    compose = yaml.safe_load((ROOT / "image" / "compose.yaml").read_text())["services"]
    commands = {
        "AWS": run_program("dev").one("TaskDefinition", "engine").container()["command"],
        "Kubernetes": render().container("engine")["args"],
        "make local, real model": engine_command(plan(), machine, Path("/m"), False, 8001, None).arguments,
        "make local, stand-in": engine_command(plan(), machine, Path("/m"), True, 8001, None).arguments,
        "standalone container": _listening_inside(["acme/tiny"]),
        **{f"Compose, {name}": compose[name]["command"] for name in ("engine", "engine-cpu")},
    }
    for target, command in commands.items():
        assert command.count(flag) == 1, target
    # Of two, vLLM uses the last: the user's.
    for command in (plan(engineArgs=[off]).engine.args, _listening_inside(["acme/tiny", off])):
        assert command.index(flag) < command.index(off)
